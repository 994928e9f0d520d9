/**
 * JSON as values, for bindings that are generated, and for plugins that need no more.
 *
 *     const order = Json.parse(Input.bytes());
 *     const price = order.get("price").toF64();
 *     if (Json.failed) return Output.error(Json.problem);
 *
 * AssemblyScript has no exceptions. What goes wrong is kept in `Json.problem`, and reading goes on with
 * zero values; `Json.failed` says so in the end. `Json.parse` begins anew.
 */

import { quote } from "./index";

export enum JsonKind {
  Null,
  Boolean,
  Number,
  String,
  Array,
  Object,
}

/** The deepest JSON that is read. */
const MAX_LEVELS = 64;

/** A value of JSON. Numbers keep their digits. */
export class Json {
  /** What went wrong first since the last `parse`. */
  static problem: string = "";

  static get failed(): bool {
    return Json.problem.length > 0;
  }

  static fail(problem: string): void {
    if (Json.problem.length == 0) Json.problem = problem;
  }

  /** Read UTF-8. What is no JSON is null, and a problem. */
  static parse(data: ArrayBuffer): Json {
    Json.problem = "";
    if (!isUtf8(data)) {
      Json.fail("the JSON is not UTF-8");
      return new Json(JsonKind.Null);
    }
    return Json.parseText(String.UTF8.decode(data));
  }

  /** Read text, likewise. */
  static parseText(text: string): Json {
    Json.problem = "";
    const reader = new Reader(text);
    const json = reader.value(0);
    reader.space();
    if (reader.at < text.length) Json.fail("the text is not JSON (at character " + reader.at.toString() + ")");
    return Json.failed ? new Json(JsonKind.Null) : json;
  }

  /** The text of a string, or the digits of a number; "true" for true. */
  text: string = "";
  /** The items of an array, or the values of an object. */
  items: Json[] = [];
  /** The keys of an object, in the order of `items`. */
  keys: string[] = [];

  constructor(public readonly kind: JsonKind) {}

  get isNull(): bool {
    return this.kind == JsonKind.Null;
  }

  /** Return a value of an object; null if there is none. */
  get(key: string): Json {
    if (this.kind != JsonKind.Object) {
      Json.fail("expected an object with `" + key + "`");
      return new Json(JsonKind.Null);
    }
    for (let i = this.keys.length - 1; i >= 0; i--) {
      if (this.keys[i] == key) return this.items[i];
    }
    return new Json(JsonKind.Null);
  }

  toBool(): bool {
    if (this.kind != JsonKind.Boolean) Json.fail("expected true or false");
    return this.text == "true";
  }

  toText(): string {
    if (this.kind != JsonKind.String) {
      Json.fail("expected a string");
      return "";
    }
    return this.text;
  }

  /** The bytes of a string in base64. */
  toBytes(): Uint8Array {
    return decodeBase64(this.toText());
  }

  toF64(): f64 {
    if (this.kind != JsonKind.Number) {
      Json.fail("expected a number");
      return 0;
    }
    const number = F64.parseFloat(this.text);
    if (!isFinite(number)) Json.fail("the number is too large");
    return number;
  }

  toF32(): f32 {
    const number = <f32>this.toF64();
    if (!isFinite(number)) Json.fail("the number is too large");
    return number;
  }

  /** A whole number in the range of its type: `json.toInteger<u8>()`. */
  toInteger<T extends number>(): T {
    if (this.kind != JsonKind.Number) {
      Json.fail("expected a number");
      return <T>0;
    }
    const negative = this.text.charCodeAt(0) == 0x2d;
    let size: u64 = 0;
    for (let i = negative ? 1 : 0; i < this.text.length; i++) {
      const digit = <u64>(this.text.charCodeAt(i) - 0x30);
      if (digit > 9) {
        Json.fail("expected a whole number");
        return <T>0;
      }
      if (size > 1844674407370955161 || (size == 1844674407370955161 && digit > 5)) {
        Json.fail("the number is out of range");
        return <T>0;
      }
      size = size * 10 + digit;
    }
    let most: u64 = isSigned<T>() ? (<u64>1 << (<u64>sizeof<T>() * 8 - 1)) - 1 : u64.MAX_VALUE >> (64 - <u64>sizeof<T>() * 8);
    if (negative) most = isSigned<T>() ? most + 1 : 0;
    if (size > most) {
      Json.fail("the number is out of range");
      return <T>0;
    }
    return <T>(negative ? 0 - size : size);
  }

  toArray<T>(convert: (json: Json) => T): T[] {
    const made: T[] = [];
    if (this.kind != JsonKind.Array) {
      Json.fail("expected a list");
      return made;
    }
    for (let i = 0; i < this.items.length; i++) made.push(convert(this.items[i]));
    return made;
  }

  toMap<T>(convert: (json: Json) => T): Map<string, T> {
    const made = new Map<string, T>();
    if (this.kind != JsonKind.Object) {
      Json.fail("expected an object");
      return made;
    }
    for (let i = 0; i < this.items.length; i++) made.set(this.keys[i], convert(this.items[i]));
    return made;
  }

  /** An object as it is. */
  toObject(): Json {
    if (this.kind != JsonKind.Object) Json.fail("expected an object");
    return this;
  }

  /** The value as JSON. */
  toString(): string {
    const parts: string[] = [];
    switch (this.kind) {
      case JsonKind.Null:
        return "null";
      case JsonKind.String:
        return quote(this.text);
      case JsonKind.Array:
        for (let i = 0; i < this.items.length; i++) parts.push(this.items[i].toString());
        return "[" + parts.join(",") + "]";
      case JsonKind.Object:
        for (let i = 0; i < this.items.length; i++) parts.push(quote(this.keys[i]) + ":" + this.items[i].toString());
        return "{" + parts.join(",") + "}";
      default:
        return this.text;
    }
  }
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
    Json.fail("expected base64");
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
      Json.fail("expected base64");
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

class Reader {
  at: i32 = 0;

  constructor(private text: string) {}

  private peek(): i32 {
    return this.at < this.text.length ? this.text.charCodeAt(this.at) : -1;
  }

  space(): void {
    for (let c = this.peek(); c == 0x20 || c == 0x0a || c == 0x0d || c == 0x09; c = this.peek()) this.at++;
  }

  private take(code: i32): bool {
    this.space();
    if (this.peek() != code) return false;
    this.at++;
    return true;
  }

  private bad(): Json {
    Json.fail("the text is not JSON (at character " + this.at.toString() + ")");
    return new Json(JsonKind.Null);
  }

  private word(word: string, kind: JsonKind): Json {
    if (this.text.substr(this.at, word.length) != word) return this.bad();
    this.at += word.length;
    const json = new Json(kind);
    json.text = word;
    return json;
  }

  value(level: i32): Json {
    this.space();
    if (level > MAX_LEVELS) {
      Json.fail("the JSON is nested too deeply");
      return new Json(JsonKind.Null);
    }
    switch (this.peek()) {
      case 0x7b:
        return this.object(level);
      case 0x5b:
        return this.array(level);
      case 0x22: {
        const json = new Json(JsonKind.String);
        json.text = this.string();
        return json;
      }
      case 0x74:
        return this.word("true", JsonKind.Boolean);
      case 0x66:
        return this.word("false", JsonKind.Boolean);
      case 0x6e:
        return this.word("null", JsonKind.Null);
      default:
        return this.number();
    }
  }

  private object(level: i32): Json {
    const json = new Json(JsonKind.Object);
    this.at++;
    if (this.take(0x7d)) return json;
    do {
      this.space();
      if (this.peek() != 0x22) return this.bad();
      json.keys.push(this.string());
      if (!this.take(0x3a)) return this.bad();
      json.items.push(this.value(level + 1));
      if (Json.failed) return json;
    } while (this.take(0x2c));
    return this.take(0x7d) ? json : this.bad();
  }

  private array(level: i32): Json {
    const json = new Json(JsonKind.Array);
    this.at++;
    if (this.take(0x5d)) return json;
    do {
      json.items.push(this.value(level + 1));
      if (Json.failed) return json;
    } while (this.take(0x2c));
    return this.take(0x5d) ? json : this.bad();
  }

  private string(): string {
    this.at++;
    let made = "";
    let start = this.at;
    for (let c = this.peek(); c != 0x22; c = this.peek()) {
      if (c < 0x20) {
        this.bad();
        return "";
      }
      this.at++;
      if (c != 0x5c) continue;
      made += this.text.substring(start, this.at - 1) + this.escaped();
      start = this.at;
    }
    return made + this.text.substring(start, this.at++);
  }

  private escaped(): string {
    const c = this.peek();
    this.at++;
    switch (c) {
      case 0x22:
      case 0x5c:
      case 0x2f:
        return String.fromCharCode(c);
      case 0x62:
        return "\b";
      case 0x66:
        return "\f";
      case 0x6e:
        return "\n";
      case 0x72:
        return "\r";
      case 0x74:
        return "\t";
    }
    let code = 0;
    for (let i = 0; i < 4 && c == 0x75; i++) {
      const digit = this.peek();
      const value = digit >= 0x30 && digit <= 0x39 ? digit - 0x30 : (digit | 32) >= 0x61 && (digit | 32) <= 0x66 ? (digit | 32) - 0x57 : -1;
      if (value < 0) {
        this.bad();
        return "";
      }
      code = (code << 4) | value;
      this.at++;
    }
    if (c != 0x75) this.bad();
    return String.fromCharCode(code);
  }

  private digits(): bool {
    const start = this.at;
    for (let c = this.peek(); c >= 0x30 && c <= 0x39; c = this.peek()) this.at++;
    return this.at > start;
  }

  private number(): Json {
    const start = this.at;
    if (this.peek() == 0x2d) this.at++;
    if (this.peek() == 0x30) this.at++;
    else if (!this.digits()) return this.bad();
    if (this.peek() == 0x2e) {
      this.at++;
      if (!this.digits()) return this.bad();
    }
    if ((this.peek() | 32) == 0x65) {
      this.at++;
      if (this.peek() == 0x2b || this.peek() == 0x2d) this.at++;
      if (!this.digits()) return this.bad();
    }
    const json = new Json(JsonKind.Number);
    json.text = this.text.substring(start, this.at);
    return json;
  }
}
