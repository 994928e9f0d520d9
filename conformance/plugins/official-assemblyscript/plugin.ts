// The test plugin of the conformance suite in AssemblyScript, with the official kit.

import { Config, Host, LogLevel, Memory, Var } from "@extism/as-pdk";
import { alloc, error_set, free, length } from "@extism/as-pdk/lib/env";

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

function output(text: string): i32 {
  Host.output(Uint8Array.wrap(String.UTF8.encode(text)));
  return 0;
}

function error(message: string, code: i32): i32 {
  error_set(Memory.allocateString(message).offset);
  return code;
}

function describe(value: string | null): i32 {
  return output(value === null ? "unset" : "=" + value);
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
  Host.output(Host.input());
  return 0;
}

export function utf8(): i32 {
  const count = countCodePoints(Host.input());
  return count < 0 ? error("not UTF-8", 1) : output(count.toString());
}

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
  return output(`{"count":${count},"total":${total},"vowels":"${vowels}"}`);
}

export function config_get(): i32 {
  return describe(Config.get(Host.inputString()));
}

export function var_get(): i32 {
  return describe(Var.getString(Host.inputString()));
}

export function var_set(): i32 {
  const lines = new Lines(Host.inputString());
  const name = lines.next();
  Var.set(name, Uint8Array.wrap(String.UTF8.encode(lines.remaining())));
  return 0;
}

export function var_delete(): i32 {
  Var.remove(Host.inputString());
  return 0;
}

export function fail(): i32 {
  const lines = new Lines(Host.inputString());
  const code = <i32>parseInt(lines.next());
  return error(lines.remaining(), code);
}

export function panic(): i32 {
  throw new Error("as it was asked to");
}

export function log_message(): i32 {
  const lines = new Lines(Host.inputString());
  const level = lines.next();
  const message = lines.remaining();
  if (level == "debug") Host.log(LogLevel.Debug, message);
  else if (level == "info") Host.log(LogLevel.Info, message);
  else if (level == "warn") Host.log(LogLevel.Warn, message);
  else if (level == "error") Host.log(LogLevel.Error, message);
  else return error("no level " + level, 1);
  return 0;
}

export function call_i32(): i32 {
  return output(host_i32(I32.parseInt(Host.inputString())).toString());
}

export function call_i64(): i32 {
  return output(host_i64(I64.parseInt(Host.inputString())).toString());
}

/** Without the `.0` of whole numbers. */
function decimal(value: f64): i32 {
  const text = value.toString();
  return output(text.endsWith(".0") ? text.substring(0, text.length - 2) : text);
}

export function call_f32(): i32 {
  return decimal(host_f32(<f32>parseFloat(Host.inputString())));
}

export function call_f64(): i32 {
  return decimal(host_f64(parseFloat(Host.inputString())));
}

export function call_text(): i32 {
  const text = Memory.allocateString(Host.inputString());
  const answer = host_text(text.offset);
  Host.outputMemory(new Memory(answer, length(answer)));
  text.free();
  return 0;
}

export function call_bytes(): i32 {
  const bytes = Memory.allocateBytes(Host.input());
  const answer = host_bytes(bytes.offset);
  Host.outputMemory(new Memory(answer, length(answer)));
  bytes.free();
  return 0;
}

export function call_other(): i32 {
  host_other();
  return 0;
}

export function churn(): i32 {
  const count = I32.parseInt(Host.inputString());
  for (let i = 0; i < count; i++) free(alloc(65536));
  return output(count.toString());
}

/** What a failed assertion calls. */
export function abort(message: string | null, file: string | null, line: u32, column: u32): void {
  error_set(Memory.allocateString(message === null ? "abort" : message).offset);
  unreachable();
}
