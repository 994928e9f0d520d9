import { Config, Host, Memory, Var } from "@extism/as-pdk";
import { error_set } from "@extism/as-pdk/lib/env";

export function count_vowels(): i32 {
  const set = Config.get("vowels");
  const vowels = set === null ? "aeiouAEIOU" : set;
  const text = Host.inputString();
  let count: u64 = 0;
  for (let i = 0; i < text.length; i++) count += vowels.includes(text.charAt(i)) ? 1 : 0;
  const before = Var.get("total");
  const total = count + (before === null ? 0 : load<u64>(before.dataStart));
  const bytes = new Uint8Array(8);
  store<u64>(bytes.dataStart, total);
  Var.set("total", bytes);
  Host.outputString(`{"count":${count},"total":${total},"vowels":"${vowels}"}`);
  return 0;
}

/** What a failed assertion calls. */
export function abort(message: string | null, file: string | null, line: u32, column: u32): void {
  error_set(Memory.allocateString(message === null ? "abort" : message).offset);
  unreachable();
}
