import { Input, Output } from "@plugwasm/pdk/assembly/index";

export function echo(): i32 {
  return Output.bytes(Input.bytes());
}
