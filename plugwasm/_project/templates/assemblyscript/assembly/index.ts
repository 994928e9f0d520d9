import { Config, Input, Output } from "@plugwasm/pdk/assembly/index";

export function greet(): i32 {
  const name = Input.text();
  if (name.length == 0) return Output.error("no name was given", 2);

  const greeting = Config.get("greeting");
  return Output.text((greeting === null ? "Hello" : greeting) + ", " + name + "!");
}
