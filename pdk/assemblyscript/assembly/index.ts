/**
 * Write plugins in AssemblyScript, for every host of the Extism contract.
 *
 *     import { Input, Output } from "@plugwasm/pdk";
 *
 *     export function greet(): i32 {
 *       return Output.text("Hello, " + Input.text() + "!");
 *     }
 *
 * Build it with `asc plugin.ts -O --use abort=~lib/@plugwasm/pdk/assembly/index/abort -o plugin.wasm`,
 * where the last option makes a failed assertion an error with its message.
 */

import * as env from "./env";

export { env };

export const VERSION: string = "0.1.0";

/** A block of the host's memory, by its handle: what host functions take and return for text and bytes. 0 is none. */
export class Block {
  constructor(public readonly handle: u64) {}

  /** Copy bytes into a new block. No bytes are no block. */
  static bytes(data: ArrayBuffer): Block {
    return new Block(toHost(data));
  }

  /** Copy text into a new block, as UTF-8. */
  static text(text: string): Block {
    return new Block(textToHost(text));
  }

  /** The size in bytes. */
  get length(): i32 {
    return sizeOf(this.handle);
  }

  /** Free the block. Do not free one that was given to the host. */
  free(): void {
    if (this.handle != 0) env.free(this.handle);
  }

  /** Return a copy of the bytes. */
  toBytes(): ArrayBuffer {
    return fromHost(this.handle);
  }

  /** Return the bytes as text. */
  toText(): string {
    return String.UTF8.decode(this.toBytes());
  }

  /** Return a copy of the bytes, and free the block. */
  take(): ArrayBuffer {
    return takeFromHost(this.handle);
  }
}

// Handles as numbers, where no object is needed. Four words a turn are twice as fast as one.

function sizeOf(handle: u64): i32 {
  return handle == 0 ? 0 : <i32>env.length(handle);
}

function toHost(data: ArrayBuffer): u64 {
  const size = data.byteLength;
  if (size == 0) return 0;
  const handle = env.alloc(size);
  assert(handle != 0, "the host has no memory left");
  const from = changetype<usize>(data);
  let at = 0;
  for (; size - at >= 32; at += 32) {
    env.store_u64(handle + at, load<u64>(from + at));
    env.store_u64(handle + at + 8, load<u64>(from + at, 8));
    env.store_u64(handle + at + 16, load<u64>(from + at, 16));
    env.store_u64(handle + at + 24, load<u64>(from + at, 24));
  }
  for (; size - at >= 8; at += 8) env.store_u64(handle + at, load<u64>(from + at));
  for (; at < size; at++) env.store_u8(handle + at, load<u8>(from + at));
  return handle;
}

function textToHost(text: string): u64 {
  return toHost(String.UTF8.encode(text));
}

function fromHost(handle: u64): ArrayBuffer {
  const size = sizeOf(handle);
  const data = new ArrayBuffer(size);
  const to = changetype<usize>(data);
  let at = 0;
  for (; size - at >= 32; at += 32) {
    store<u64>(to + at, env.load_u64(handle + at));
    store<u64>(to + at, env.load_u64(handle + at + 8), 8);
    store<u64>(to + at, env.load_u64(handle + at + 16), 16);
    store<u64>(to + at, env.load_u64(handle + at + 24), 24);
  }
  for (; size - at >= 8; at += 8) store<u64>(to + at, env.load_u64(handle + at));
  for (; at < size; at++) store<u8>(to + at, <u8>env.load_u8(handle + at));
  return data;
}

function takeFromHost(handle: u64): ArrayBuffer {
  const data = fromHost(handle);
  if (handle != 0) env.free(handle);
  return data;
}

/** The input of the call. */
export class Input {
  static get length(): i32 {
    return <i32>env.input_length();
  }

  static bytes(): ArrayBuffer {
    const size = Input.length;
    const data = new ArrayBuffer(size);
    const to = changetype<usize>(data);
    let at = 0;
    for (; size - at >= 32; at += 32) {
      store<u64>(to + at, env.input_load_u64(at));
      store<u64>(to + at, env.input_load_u64(at + 8), 8);
      store<u64>(to + at, env.input_load_u64(at + 16), 16);
      store<u64>(to + at, env.input_load_u64(at + 24), 24);
    }
    for (; size - at >= 8; at += 8) store<u64>(to + at, env.input_load_u64(at));
    for (; at < size; at++) store<u8>(to + at, <u8>env.input_load_u8(at));
    return data;
  }

  static text(): string {
    return String.UTF8.decode(Input.bytes());
  }
}

/** What an export returns: `return Output.text("…")`. */
export class Output {
  static bytes(data: ArrayBuffer): i32 {
    env.output_set(toHost(data), data.byteLength);
    return 0;
  }

  static text(text: string): i32 {
    return Output.bytes(String.UTF8.encode(text));
  }

  /** A block is passed on without a copy. */
  static block(block: Block): i32 {
    env.output_set(block.handle, block.length);
    return 0;
  }

  /** No output. */
  static none(): i32 {
    return 0;
  }

  /** An error: its message, and a code. */
  static error(message: string, code: i32 = 1): i32 {
    env.error_set(textToHost(message));
    return code;
  }
}

/** The config that the host gave. */
export class Config {
  /** Return a value, or null. An empty value counts as not set. */
  static get(key: string): string | null {
    const value = env.config_get(textToHost(key));
    return value == 0 ? null : String.UTF8.decode(takeFromHost(value));
  }
}

/** Vars, which the host keeps from one call to the next. */
export class Var {
  /** Return a value, or null. */
  static get(name: string): ArrayBuffer | null {
    const value = env.var_get(textToHost(name));
    return value == 0 ? null : takeFromHost(value);
  }

  static getText(name: string): string | null {
    const value = Var.get(name);
    return value === null ? null : String.UTF8.decode(value);
  }

  /** Set a var. An empty value removes it. The call fails if the host's limit is exceeded. */
  static set(name: string, value: ArrayBuffer): void {
    const key = textToHost(name);
    env.var_set(key, toHost(value));
  }

  static setText(name: string, value: string): void {
    Var.set(name, String.UTF8.encode(value));
  }

  static remove(name: string): void {
    env.var_set(textToHost(name), 0);
  }
}

export enum Level {
  Trace,
  Debug,
  Info,
  Warn,
  Error,
}

/** Log a message, if the host keeps messages of that level; nothing is copied if not. */
export function log(level: Level, message: string): void {
  if (level < env.get_log_level()) return;
  const text = textToHost(message);
  switch (level) {
    case Level.Trace:
      env.log_trace(text);
      break;
    case Level.Debug:
      env.log_debug(text);
      break;
    case Level.Info:
      env.log_info(text);
      break;
    case Level.Warn:
      env.log_warn(text);
      break;
    default:
      env.log_error(text);
  }
}

/** The answer of a server. A status that is no success (404, …) is no error. */
export class Response {
  constructor(
    public readonly status: i32,
    public readonly body: ArrayBuffer,
    /** JSON, names in lower case; empty where the host does not tell them. */
    public readonly headers: string,
  ) {}

  get text(): string {
    return String.UTF8.decode(this.body);
  }
}

/** A request. */
export class Request {
  method: string = "GET";
  body: ArrayBuffer = new ArrayBuffer(0);
  private headers: string = "";

  constructor(public url: string) {}

  /** Add a header. */
  header(name: string, value: string): Request {
    if (this.headers.length) this.headers += ",";
    this.headers += quote(name) + ":" + quote(value);
    return this;
  }

  /**
   * Send it. The host must allow it: otherwise, and if no answer comes, the call ends here with the
   * host's error.
   */
  send(): Response {
    const document = textToHost(
      '{"method":' + quote(this.method) + ',"url":' + quote(this.url) + ',"headers":{' + this.headers + "}}",
    );
    const body = takeFromHost(env.http_request(document, toHost(this.body)));
    const status = env.http_status_code();
    return new Response(status, body, String.UTF8.decode(takeFromHost(env.http_headers())));
  }
}

/** Return text as a JSON string, with its quotes. */
export function quote(text: string): string {
  const from = changetype<usize>(text);
  const end = from + (<usize>text.length << 1);
  let size: u64 = 4 + (end - from);
  for (let at = from; at < end; at += 2) size += escapeSize(load<u16>(at));
  // `__new` refuses a size that is too large; one that does not fit into a `usize` must be so as well.
  const json = changetype<string>(__new(<usize>min<u64>(size, usize.MAX_VALUE), idof<string>()));
  let to = changetype<usize>(json);
  store<u16>(to, 0x22);
  for (let at = from; at < end; at += 2) {
    const code = load<u16>(at);
    const escape = escapeSize(code);
    if (escape > 2) {
      // \u00 and two digits
      const digit = code & 15;
      store<u64>(to, 0x30_0030_0075_005c, 2);
      store<u16>(to, 0x30 + (code >> 4), 10);
      to += 10;
      store<u16>(to, digit + (digit < 10 ? 0x30 : 0x57), 2);
    } else {
      if (escape) store<u16>((to += 2), 0x5c);
      store<u16>(to, code, 2);
    }
    to += 2;
  }
  store<u16>(to, 0x22, 2);
  return json;
}

/** How many bytes more a UTF-16 code unit takes in a JSON string. */
function escapeSize(code: u32): u32 {
  return code < 0x20 ? 10 : u32(code == 0x22 || code == 0x5c) << 1;
}

/** What a failed assertion calls: the message becomes the call's error. */
export function abort(message: string | null, file: string | null, line: u32, column: u32): void {
  const where = (file === null ? "" : file) + ":" + digits(line) + ":" + digits(column);
  Output.error((message === null ? "abort" : message) + " (" + where + ")");
  unreachable();
}

/** As `toString` does, without the tables of it, which would be in every plugin. */
function digits(number: u32): string {
  const last = String.fromCharCode(48 + (number % 10));
  return number < 10 ? last : digits(number / 10) + last;
}
