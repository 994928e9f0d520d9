import { Input, Output } from "@plugwasm/pdk/assembly/index";

export function hello(): i32 {
  return Output.text("Hello, " + Input.text() + "!");
}
