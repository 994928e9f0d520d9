import { Config, Input, Output, quote, Var } from "@plugwasm/pdk/assembly/index";

export function count_vowels(): i32 {
  const set = Config.get("vowels");
  const vowels = set === null ? "aeiouAEIOU" : set;
  const text = Input.text();
  let count: u64 = 0;
  for (let i = 0; i < text.length; i++) count += vowels.includes(text.charAt(i)) ? 1 : 0;
  const before = Var.get("total");
  const total = count + (before === null ? 0 : load<u64>(changetype<usize>(before)));
  const bytes = new ArrayBuffer(8);
  store<u64>(changetype<usize>(bytes), total);
  Var.set("total", bytes);
  return Output.text(`{"count":${count},"total":${total},"vowels":${quote(vowels)}}`);
}
