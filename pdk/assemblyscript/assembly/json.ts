/**
 * JSON: read into a tree, and written from one. It is in a file of its own: a plugin that does not
 * import it does not contain it.
 *
 *     import { Json } from "@plugwasm/pdk/assembly/json";
 *
 *     export function total(): i32 {
 *       const order = Json.parse(Input.text());
 *       if (order === null) return Output.error("the input is not JSON");
 *       const total = order.get("price").toF64() * order.get("count").toF64();
 *       return Output.text(Json.object().set("total", Json.number(total)).toString());
 *     }
 */

import { quote } from "./index";

/** The kind of a value. Missing is what `get` and `at` return for what is not there. */
export enum Kind {
  Missing,
  Null,
  Bool,
  Number,
  Text,
  List,
  Object,
}

/** How deep lists and objects may be nested. */
const MAX_DEPTH: i32 = 100;

/** From how many fields on an object has an index of their names. */
const INDEXED: i32 = 16;

/** A JSON value. Numbers keep the digits that they were read with. */
export class Json {
  private names: string[] = [];
  private items: Json[] = [];
  private places: Map<string, i32> | null = null;

  private constructor(
    public readonly kind: Kind,
    private readonly value: string = "",
  ) {}

  /** Read a text, or return null if it is not one JSON value. */
  static parse(text: string): Json | null {
    return new Parser(text).parse();
  }

  static null(): Json {
    return new Json(Kind.Null);
  }

  static bool(value: bool): Json {
    return new Json(Kind.Bool, value ? "true" : "false");
  }

  /** A number. Not a number and infinity, which JSON does not have, are null. */
  static number(value: f64): Json {
    if (!isFinite(value)) return Json.null();
    const text = value.toString();
    return new Json(Kind.Number, text.endsWith(".0") ? text.substring(0, text.length - 2) : text);
  }

  static integer(value: i64): Json {
    return new Json(Kind.Number, value.toString());
  }

  static text(value: string): Json {
    return new Json(Kind.Text, value);
  }

  static list(): Json {
    return new Json(Kind.List);
  }

  static object(): Json {
    return new Json(Kind.Object);
  }

  /** A number as it is written in JSON. */
  static digits(value: string): Json {
    return new Json(Kind.Number, value);
  }

  static missing(): Json {
    return new Json(Kind.Missing);
  }

  /** Whether there is a value, and it is not null. */
  get isSet(): bool {
    return this.kind != Kind.Missing && this.kind != Kind.Null;
  }

  /** How many items a list has, or fields an object. */
  get length(): i32 {
    return this.items.length;
  }

  /** The names of an object's fields, in their order. */
  get keys(): string[] {
    return this.names.slice(0);
  }

  /** A field of an object. */
  get(name: string): Json {
    const at = this.place(name);
    return at < 0 ? Json.missing() : this.items[at];
  }

  /** Where a field is, or -1. */
  private place(name: string): i32 {
    const places = this.places;
    if (places === null) return this.names.indexOf(name);
    return places.has(name) ? places.get(name) : -1;
  }

  /** An item of a list. */
  at(index: i32): Json {
    return this.kind == Kind.List && index >= 0 && index < this.items.length ? this.items[index] : Json.missing();
  }

  /** Set a field of an object. */
  set(name: string, value: Json): Json {
    assert(this.kind == Kind.Object, "only an object has fields");
    const at = this.place(name);
    if (at >= 0) {
      this.items[at] = value;
      return this;
    }
    this.names.push(name);
    this.items.push(value);
    if (this.names.length < INDEXED) return this;
    let places = this.places;
    if (places === null) {
      places = new Map<string, i32>();
      this.places = places;
      for (let i = 0; i < this.names.length; i++) places.set(this.names[i], i);
    } else {
      places.set(name, this.names.length - 1);
    }
    return this;
  }

  /** Append to a list. */
  push(value: Json): Json {
    assert(this.kind == Kind.List, "only a list has items");
    this.items.push(value);
    return this;
  }

  /** The text; "" if the value is none. */
  toText(): string {
    return this.kind == Kind.Text ? this.value : "";
  }

  /** The number; not a number if the value is none. */
  toF64(): f64 {
    return this.kind == Kind.Number ? parseFloat(this.value) : NaN;
  }

  /** Whether the value is a whole number that an i64 holds. */
  get isI64(): bool {
    if (this.kind != Kind.Number) return false;
    for (let i = 0; i < this.value.length; i++) {
      const code = this.value.charCodeAt(i);
      if ((code < 0x30 || code > 0x39) && code != 0x2d) return false;
    }
    return I64.parseInt(this.value).toString() == (this.value == "-0" ? "0" : this.value);
  }

  /** The whole number; 0 if the value is none (see `isI64`). */
  toI64(): i64 {
    return this.isI64 ? I64.parseInt(this.value) : 0;
  }

  /** True if the value is true. */
  toBool(): bool {
    return this.kind == Kind.Bool && this.value == "true";
  }

  /** The value as JSON. */
  toString(): string {
    switch (this.kind) {
      case Kind.Bool:
      case Kind.Number:
        return this.value;
      case Kind.Text:
        return quote(this.value);
      case Kind.List:
      case Kind.Object: {
        const parts = new Array<string>(this.items.length);
        for (let i = 0; i < this.items.length; i++) {
          const item = this.items[i].toString();
          parts[i] = this.kind == Kind.Object ? quote(this.names[i]) + ":" + item : item;
        }
        return this.kind == Kind.Object ? "{" + parts.join(",") + "}" : "[" + parts.join(",") + "]";
      }
      default:
        return "null";
    }
  }
}

/** What `Json.parse` reads with, for those who need another limit, or where the text is not JSON. */
export class Parser {
  private at: i32 = 0;
  private failed: bool = false;
  private deep: bool = false;
  private stop: i32 = 0;

  constructor(
    private readonly source: string,
    private readonly maxDepth: i32 = MAX_DEPTH,
  ) {}

  /** Read the text, or return null if it is not one JSON value. */
  parse(): Json | null {
    const value = this.value(0);
    if (!this.failed && this.peek() >= 0) this.fail();
    return this.failed ? null : value;
  }

  /** Where the text stopped being JSON: the index of a UTF-16 code unit. */
  get failedAt(): i32 {
    return this.stop;
  }

  /** Whether the text was refused because lists and objects are nested too deeply. */
  get isTooDeep(): bool {
    return this.deep;
  }

  private value(depth: i32): Json {
    const code = this.peek();
    if (depth > this.maxDepth) {
      this.deep = true;
      return this.fail();
    }
    if (code == 0x7b) return this.object(depth);
    if (code == 0x5b) return this.list(depth);
    if (code == 0x22) return Json.text(this.string());
    if (code == 0x2d || isDigit(code)) return this.number();
    if (this.word("true")) return Json.bool(true);
    if (this.word("false")) return Json.bool(false);
    if (this.word("null")) return Json.null();
    return this.fail();
  }

  private object(depth: i32): Json {
    const object = Json.object();
    this.at++;
    if (this.take(0x7d)) return object;
    do {
      if (this.peek() != 0x22) return this.fail();
      const name = this.string();
      if (!this.take(0x3a)) return this.fail();
      object.set(name, this.value(depth + 1));
      if (this.failed) return object;
    } while (this.take(0x2c));
    return this.take(0x7d) ? object : this.fail();
  }

  private list(depth: i32): Json {
    const list = Json.list();
    this.at++;
    if (this.take(0x5d)) return list;
    do {
      list.push(this.value(depth + 1));
      if (this.failed) return list;
    } while (this.take(0x2c));
    return this.take(0x5d) ? list : this.fail();
  }

  private number(): Json {
    const start = this.at;
    if (this.code() == 0x2d) this.at++;
    if (this.code() == 0x30) this.at++;
    else if (!this.digits()) return this.fail();
    if (this.code() == 0x2e) {
      this.at++;
      if (!this.digits()) return this.fail();
    }
    if ((this.code() | 0x20) == 0x65) {
      this.at++;
      if (this.code() == 0x2b || this.code() == 0x2d) this.at++;
      if (!this.digits()) return this.fail();
    }
    return Json.digits(this.source.substring(start, this.at));
  }

  private digits(): bool {
    const start = this.at;
    while (isDigit(this.code())) this.at++;
    return this.at > start;
  }

  private string(): string {
    let text = "";
    let start = ++this.at;
    while (true) {
      const code = this.code();
      if (code < 0x20) {
        this.fail(); // the end of the source, too
        return text;
      }
      if (code == 0x22) {
        text += this.source.substring(start, this.at++);
        return text;
      }
      this.at++;
      if (code != 0x5c) continue;
      text += this.source.substring(start, this.at - 1) + this.escape();
      start = this.at;
    }
  }

  private escape(): string {
    const code = this.code();
    this.at++;
    switch (code) {
      case 0x22:
      case 0x2f:
      case 0x5c:
        return String.fromCharCode(code);
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
      case 0x75: {
        let unit = 0;
        for (let i = 0; i < 4; i++, this.at++) {
          const digit = this.code();
          if (isDigit(digit)) unit = unit * 16 + digit - 0x30;
          else if ((digit | 0x20) >= 0x61 && (digit | 0x20) <= 0x66) unit = unit * 16 + (digit | 0x20) - 0x57;
          else this.fail();
        }
        return String.fromCharCode(unit);
      }
    }
    this.fail();
    return "";
  }

  private word(word: string): bool {
    if (!this.source.startsWith(word, this.at)) return false;
    this.at += word.length;
    return true;
  }

  /** Skip the character, if it is the next one after white space. */
  private take(code: i32): bool {
    if (this.peek() != code) return false;
    this.at++;
    return true;
  }

  /** The next character after white space; -1 at the end. */
  private peek(): i32 {
    let code = this.code();
    while (code == 0x20 || (code >= 0x09 && code <= 0x0d && code != 0x0b && code != 0x0c)) {
      this.at++;
      code = this.code();
    }
    return code;
  }

  private code(): i32 {
    return this.at < this.source.length ? this.source.charCodeAt(this.at) : -1;
  }

  /** Keep where the first mistake is. */
  private fail(): Json {
    if (!this.failed) this.stop = this.at;
    this.failed = true;
    return Json.missing();
  }
}

function isDigit(code: i32): bool {
  return code >= 0x30 && code <= 0x39;
}
