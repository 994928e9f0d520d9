/**
 * What `plugwasm generate` uses: values of their types, read of the `Json` of the kit and written.
 *
 * AssemblyScript has no exceptions. `problem` keeps what went wrong first, and reading goes on with
 * zero values; `failed()` says so in the end. `parse` and `decode` begin anew.
 */

import { quote } from "./index";
import { Json, Kind, Parser } from "./json";

export { quote };

/** The deepest JSON that is read. */
const MAX_LEVELS = 64;

/** What went wrong first since the last `parse` or `decode`; "" if nothing did. */
export let problem: string = "";

export function failed(): bool {
  return problem.length > 0;
}

export function fail(text: string): void {
  if (problem.length == 0) problem = text;
}

/** Read JSON in UTF-8. What is no JSON is null, and a problem. */
export function parse(data: ArrayBuffer): Json {
  problem = isUtf8(data) ? "" : "the JSON is not UTF-8";
  if (failed()) return Json.null();
  const parser = new Parser(String.UTF8.decode(data), MAX_LEVELS);
  const json = parser.parse();
  if (json !== null) return json;
  if (parser.isTooDeep) fail("the JSON is nested too deeply");
  else fail("the text is not JSON (at character " + parser.failedAt.toString() + ")");
  return Json.null();
}

/** Read text in UTF-8. What is no UTF-8 is "", and a problem. */
export function decode(data: ArrayBuffer): string {
  problem = isUtf8(data) ? "" : "the text is not UTF-8";
  return failed() ? "" : String.UTF8.decode(data);
}

/** Return a value of an object, missing if it has none. */
export function field(json: Json, name: string): Json {
  if (json.kind != Kind.Object) fail("expected an object with `" + name + "`");
  return json.get(name);
}

export function readBool(json: Json): bool {
  if (json.kind != Kind.Bool) fail("expected true or false");
  return json.toBool();
}

export function readText(json: Json): string {
  if (json.kind != Kind.Text) fail("expected a string");
  return json.toText();
}

/** The bytes of a string in base64. */
export function readBytes(json: Json): Uint8Array {
  return decodeBase64(readText(json));
}

export function readF64(json: Json): f64 {
  if (json.kind != Kind.Number) {
    fail("expected a number");
    return 0;
  }
  const number = json.toF64();
  if (!isFinite(number)) fail("the number is too large");
  return number;
}

export function readF32(json: Json): f32 {
  const number = <f32>readF64(json);
  if (!isFinite(number)) fail("the number is too large");
  return number;
}

/** A whole number in the range of its type: `readInteger<u8>(json)`. */
export function readInteger<T extends number>(json: Json): T {
  if (json.kind != Kind.Number) {
    fail("expected a number");
    return <T>0;
  }
  const digits = json.toString();
  const negative = digits.charCodeAt(0) == 0x2d;
  let size: u64 = 0;
  for (let i = negative ? 1 : 0; i < digits.length; i++) {
    const digit = <u64>(digits.charCodeAt(i) - 0x30);
    if (digit > 9) {
      fail("expected a whole number");
      return <T>0;
    }
    if (size > 1844674407370955161 || (size == 1844674407370955161 && digit > 5)) {
      fail("the number is out of range");
      return <T>0;
    }
    size = size * 10 + digit;
  }
  const bits = <u64>sizeof<T>() * 8;
  let most: u64 = isSigned<T>() ? (<u64>1 << (bits - 1)) - 1 : u64.MAX_VALUE >> (64 - bits);
  if (negative) most = isSigned<T>() ? most + 1 : 0;
  if (size > most) {
    fail("the number is out of range");
    return <T>0;
  }
  return <T>(negative ? 0 - size : size);
}

export function readArray<T>(json: Json, read: (json: Json) => T): T[] {
  const made: T[] = [];
  if (json.kind != Kind.List) {
    fail("expected a list");
    return made;
  }
  for (let i = 0; i < json.length; i++) made.push(read(json.at(i)));
  return made;
}

export function readMap<T>(json: Json, read: (json: Json) => T): Map<string, T> {
  const made = new Map<string, T>();
  const keys = readObject(json).keys;
  for (let i = 0; i < keys.length; i++) made.set(keys[i], read(json.get(keys[i])));
  return made;
}

/** An object as it is. */
export function readObject(json: Json): Json {
  if (json.kind != Kind.Object) fail("expected an object");
  return json;
}

/** Return an array as JSON. */
export function writeArray<T>(values: T[], write: (value: T) => string): string {
  const parts: string[] = [];
  for (let i = 0; i < values.length; i++) parts.push(write(values[i]));
  return "[" + parts.join(",") + "]";
}

/** Return a map as JSON. */
export function writeMap<T>(values: Map<string, T>, write: (value: T) => string): string {
  const parts: string[] = [];
  const keys = values.keys();
  for (let i = 0; i < keys.length; i++) parts.push(quote(keys[i]) + ":" + write(values.get(keys[i])));
  return "{" + parts.join(",") + "}";
}

/** Return a number as JSON, which has no infinity. */
export function writeFloat(value: f64): string {
  return isFinite(value) ? value.toString() : "null";
}

/** Return bytes as a JSON string in base64. */
export function writeBytes(data: Uint8Array): string {
  let made = '"';
  for (let i = 0; i < data.length; i += 3) {
    const more = data.length - i;
    const bits =
      (<u32>data[i] << 16) | ((more > 1 ? <u32>data[i + 1] : 0) << 8) | (more > 2 ? <u32>data[i + 2] : 0);
    made += BASE64.charAt((bits >> 18) & 63) + BASE64.charAt((bits >> 12) & 63);
    made += more > 1 ? BASE64.charAt((bits >> 6) & 63) : "=";
    made += more > 2 ? BASE64.charAt(bits & 63) : "=";
  }
  return made + '"';
}

const BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

function sextet(code: i32): i32 {
  if (code >= 0x41 && code <= 0x5a) return code - 0x41;
  if (code >= 0x61 && code <= 0x7a) return code - 0x61 + 26;
  if (code >= 0x30 && code <= 0x39) return code - 0x30 + 52;
  return code == 0x2b ? 62 : code == 0x2f ? 63 : -1;
}

function decodeBase64(text: string): Uint8Array {
  let length = text.length;
  if (length & 3) {
    fail("expected base64");
    return new Uint8Array(0);
  }
  if (length > 0 && text.charCodeAt(length - 1) == 0x3d) length--;
  if (length > 0 && length < text.length && text.charCodeAt(length - 1) == 0x3d) length--;
  const data = new Uint8Array((length * 3) / 4);
  let bits = 0;
  let at = 0;
  for (let i = 0; i < length; i++) {
    const value = sextet(text.charCodeAt(i));
    if (value < 0) {
      fail("expected base64");
      return new Uint8Array(0);
    }
    bits = (bits << 6) | value;
    if ((i & 3) > 0) data[at++] = <u8>(bits >> (6 - 2 * (i & 3)));
  }
  return data;
}

/** Return whether bytes are UTF-8. */
export function isUtf8(data: ArrayBuffer): bool {
  const bytes = Uint8Array.wrap(data);
  let i = 0;
  while (i < bytes.length) {
    const first = bytes[i++];
    if (first < 0x80) continue;
    const more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
    if (first < 0xc2 || first > 0xf4 || i + more > bytes.length) return false;
    const second = bytes[i];
    if (first == 0xe0 && second < 0xa0) return false;
    if (first == 0xed && second > 0x9f) return false;
    if (first == 0xf0 && second < 0x90) return false;
    if (first == 0xf4 && second > 0x8f) return false;
    for (let end = i + more; i < end; i++) {
      if ((bytes[i] & 0xc0) != 0x80) return false;
    }
  }
  return true;
}
