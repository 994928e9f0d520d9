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
    return Block.copy(changetype<usize>(data), data.byteLength);
  }

  /** Copy text into a new block, as UTF-8. */
  static text(text: string): Block {
    return Block.bytes(String.UTF8.encode(text));
  }

  private static copy(from: usize, size: i32): Block {
    if (size == 0) return new Block(0);
    const handle = env.alloc(size);
    assert(handle != 0, "the host has no memory left");
    let at = 0;
    for (; size - at >= 8; at += 8) env.store_u64(handle + at, load<u64>(from + at));
    for (; at < size; at++) env.store_u8(handle + at, load<u8>(from + at));
    return new Block(handle);
  }

  /** The size in bytes. */
  get length(): i32 {
    return this.handle == 0 ? 0 : <i32>env.length(this.handle);
  }

  /** Free the block. Do not free one that was given to the host. */
  free(): void {
    if (this.handle != 0) env.free(this.handle);
  }

  /** Return a copy of the bytes. */
  toBytes(): ArrayBuffer {
    const size = this.length;
    const data = new ArrayBuffer(size);
    const to = changetype<usize>(data);
    let at = 0;
    for (; size - at >= 8; at += 8) store<u64>(to + at, env.load_u64(this.handle + at));
    for (; at < size; at++) store<u8>(to + at, <u8>env.load_u8(this.handle + at));
    return data;
  }

  /** Return the bytes as text. */
  toText(): string {
    return String.UTF8.decode(this.toBytes());
  }

  /** Return a copy of the bytes, and free the block. */
  take(): ArrayBuffer {
    const data = this.toBytes();
    this.free();
    return data;
  }
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
    return Output.block(Block.bytes(data));
  }

  static text(text: string): i32 {
    return Output.block(Block.text(text));
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
    env.error_set(Block.text(message).handle);
    return code;
  }
}

/** The config that the host gave. */
export class Config {
  /** Return a value, or null. An empty value counts as not set. */
  static get(key: string): string | null {
    const value = new Block(env.config_get(Block.text(key).handle));
    return value.handle == 0 ? null : String.UTF8.decode(value.take());
  }
}

/** Vars, which the host keeps from one call to the next. */
export class Var {
  /** Return a value, or null. */
  static get(name: string): ArrayBuffer | null {
    const value = new Block(env.var_get(Block.text(name).handle));
    return value.handle == 0 ? null : value.take();
  }

  static getText(name: string): string | null {
    const value = Var.get(name);
    return value === null ? null : String.UTF8.decode(value);
  }

  /** Set a var. An empty value removes it. The call fails if the host's limit is exceeded. */
  static set(name: string, value: ArrayBuffer): void {
    const key = Block.text(name).handle;
    env.var_set(key, Block.bytes(value).handle);
  }

  static setText(name: string, value: string): void {
    Var.set(name, String.UTF8.encode(value));
  }

  static remove(name: string): void {
    env.var_set(Block.text(name).handle, 0);
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
  const text = Block.text(message).handle;
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
    const document = Block.text(
      '{"method":' + quote(this.method) + ',"url":' + quote(this.url) + ',"headers":{' + this.headers + "}}",
    );
    const body = new Block(env.http_request(document.handle, Block.bytes(this.body).handle)).take();
    const status = env.http_status_code();
    return new Response(status, body, String.UTF8.decode(new Block(env.http_headers()).take()));
  }
}

/** Return text as a JSON string, with its quotes. */
export function quote(text: string): string {
  let json = '"';
  let start = 0;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code >= 0x20 && code != 0x22 && code != 0x5c) continue;
    json += text.substring(start, i);
    if (code >= 0x20) json += "\\" + text.charAt(i);
    else json += (code < 0x10 ? "\\u000" : "\\u001") + "0123456789abcdef".charAt(code & 15);
    start = i + 1;
  }
  return json + text.substring(start) + '"';
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
