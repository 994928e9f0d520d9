// The test plugin of the conformance suite in AssemblyScript.

import { Block, Config, Input, Level, log, Output, Request, Var } from "@plugwasm/pdk/assembly/index";
import { alloc } from "@plugwasm/pdk/assembly/env";
import { Json } from "@plugwasm/pdk/assembly/json";

// @ts-ignore: decorator
@external("extism:host/user", "host_i32")
declare function host_i32(value: i32): i32;
// @ts-ignore: decorator
@external("extism:host/user", "host_i64")
declare function host_i64(value: i64): i64;
// @ts-ignore: decorator
@external("extism:host/user", "host_f32")
declare function host_f32(value: f32): f32;
// @ts-ignore: decorator
@external("extism:host/user", "host_f64")
declare function host_f64(value: f64): f64;
// @ts-ignore: decorator
@external("extism:host/user", "host_text")
declare function host_text(block: u64): u64;
// @ts-ignore: decorator
@external("extism:host/user", "host_bytes")
declare function host_bytes(block: u64): u64;
// @ts-ignore: decorator
@external("extism:host/user", "host_json")
declare function host_json(block: u64): u64;
// @ts-ignore: decorator
@external("conformance:host", "host_other")
declare function host_other(): void;

/** The lines of a text, of which the last may have line feeds itself. */
class Lines {
  constructor(private rest: string) {}

  next(): string {
    const end = this.rest.indexOf("\n");
    const line = end < 0 ? this.rest : this.rest.substring(0, end);
    this.rest = end < 0 ? "" : this.rest.substring(end + 1);
    return line;
  }

  remaining(): string {
    return this.rest;
  }
}

function describe(value: string | null): i32 {
  return Output.text(value === null ? "unset" : "=" + value);
}

/** How many code points the bytes have, or -1 if they are not UTF-8. */
function countCodePoints(text: Uint8Array): i32 {
  let count = 0;
  for (let i = 0; i < text.length; count++) {
    const lead = <u32>text[i++];
    const more = lead < 0x80 ? 0 : lead < 0xc2 ? -1 : lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : lead < 0xf5 ? 3 : -1;
    if (more < 0 || text.length - i < more) return -1;
    let point = more ? lead & (0x3f >> more) : lead;
    for (let k = 0; k < more; k++, i++) {
      if ((text[i] & 0xc0) != 0x80) return -1;
      point = (point << 6) | (text[i] & 0x3f);
    }
    if (more == 2 && point < 0x800) return -1;
    if (more == 3 && (point < 0x10000 || point > 0x10ffff)) return -1;
    if (point >= 0xd800 && point < 0xe000) return -1;
  }
  return count;
}

export function echo(): i32 {
  return Output.bytes(Input.bytes());
}

export function utf8(): i32 {
  const count = countCodePoints(Uint8Array.wrap(Input.bytes()));
  return count < 0 ? Output.error("not UTF-8") : Output.text(count.toString());
}

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
  const result = Json.object().set("count", Json.integer(count)).set("total", Json.integer(total));
  return Output.text(result.set("vowels", Json.text(vowels)).toString());
}

export function config_get(): i32 {
  return describe(Config.get(Input.text()));
}

export function var_get(): i32 {
  return describe(Var.getText(Input.text()));
}

export function var_set(): i32 {
  const lines = new Lines(Input.text());
  const name = lines.next();
  Var.setText(name, lines.remaining());
  return Output.none();
}

export function var_delete(): i32 {
  Var.remove(Input.text());
  return Output.none();
}

export function fail(): i32 {
  const lines = new Lines(Input.text());
  const code = <i32>parseInt(lines.next());
  return Output.error(lines.remaining(), code);
}

export function panic(): i32 {
  throw new Error("as it was asked to");
}

export function log_message(): i32 {
  const lines = new Lines(Input.text());
  const level = ["trace", "debug", "info", "warn", "error"].indexOf(lines.next());
  log(<Level>level, lines.remaining());
  return Output.none();
}

export function add(): i32 {
  const numbers = Json.parse(Input.text());
  if (numbers === null) return Output.error("the input is not JSON");
  const a = numbers.get("a");
  const b = numbers.get("b");
  if (!a.isI64 || !b.isI64) return Output.error("a and b must be integers");
  return Output.text(Json.object().set("sum", Json.integer(a.toI64() + b.toI64())).toString());
}

export function http(): i32 {
  const lines = new Lines(Input.text());
  const method = lines.next();
  const request = new Request(lines.next());
  request.method = method;
  for (let line = lines.next(); line.length; line = lines.next()) {
    const colon = line.indexOf(": ");
    request.header(line.substring(0, colon), line.substring(colon + 2));
  }
  request.body = String.UTF8.encode(lines.remaining());
  const response = request.send();
  const headers = Json.parse(response.headers);
  const told = headers === null ? Json.missing() : headers.get("x-answer");
  const answer = told.isSet ? told.toText() : "-";
  return Output.text(`${response.status}\n${answer}\n${response.text}`);
}

export function call_i32(): i32 {
  return Output.text(host_i32(I32.parseInt(Input.text())).toString());
}

export function call_i64(): i32 {
  return Output.text(host_i64(I64.parseInt(Input.text())).toString());
}

/** Without the `.0` of whole numbers. */
function decimal(value: f64): i32 {
  const text = value.toString();
  return Output.text(text.endsWith(".0") ? text.substring(0, text.length - 2) : text);
}

export function call_f32(): i32 {
  return decimal(host_f32(<f32>parseFloat(Input.text())));
}

export function call_f64(): i32 {
  return decimal(host_f64(parseFloat(Input.text())));
}

export function call_text(): i32 {
  const text = Block.text(Input.text());
  const answer = Output.block(new Block(host_text(text.handle)));
  text.free();
  return answer;
}

export function call_bytes(): i32 {
  const bytes = Block.bytes(Input.bytes());
  const answer = Output.block(new Block(host_bytes(bytes.handle)));
  bytes.free();
  return answer;
}

export function call_json(): i32 {
  const numbers = Block.text(Input.text());
  const sum = Json.parse(String.UTF8.decode(new Block(host_json(numbers.handle)).take()));
  numbers.free();
  return sum === null ? Output.error("the host's answer is not JSON") : Output.text(sum.toString());
}

export function call_other(): i32 {
  host_other();
  return Output.none();
}

export function churn(): i32 {
  const count = I32.parseInt(Input.text());
  for (let i = 0; i < count; i++) new Block(alloc(65536)).free();
  return Output.text(count.toString());
}
