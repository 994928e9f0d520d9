// What the kit reads as JSON, and how it is written.

import { Input, Output, quote } from "@plugwasm/pdk/assembly/index";
import { Json } from "@plugwasm/pdk/assembly/json";

/** The input, read and written again. */
export function mirror(): i32 {
  const value = Json.parse(Input.text());
  return value === null ? Output.error("not JSON") : Output.text(value.toString());
}

/** A field `x` of the input, as each type. */
export function types(): i32 {
  const value = Json.parse(Input.text());
  if (value === null) return Output.error("not JSON");
  const x = value.get("x");
  const list = Json.list().push(Json.bool(x.isSet)).push(Json.bool(x.toBool())).push(Json.number(x.toF64()));
  list.push(Json.bool(x.isI64)).push(Json.integer(x.toI64())).push(Json.text(x.toText()));
  return Output.text(list.push(x.at(1)).toString());
}

/** The input as a JSON string, without a tree. */
export function quoted(): i32 {
  return Output.text(quote(Input.text()));
}
