/**
 * What a plugin in JavaScript or TypeScript has besides the language.
 *
 * In a project, `tsconfig.json` names this file, with `"lib": ["es2024"]` and `"types": []`: the types of
 * browsers and of Node declare things that a plugin does not have. In a single file,
 * `/// <reference path="…/plugwasm.d.ts" />` does.
 */

/** Types of host functions. A PTR is the offset of a block of the host's memory. */
declare type I32 = number;
declare type I64 = number | bigint;
declare type F32 = number;
declare type F64 = number;
declare type PTR = I64;

declare type Bytes = string | ArrayBuffer | ArrayBufferView;

/** The host functions of a plugin are declared here, in `plugin.d.ts` beside its source. */
declare module "extism:host" {
  interface user {}
}

/** Exports may be declared here, as for the official kit. They are found without that, too. */
declare module "main" {}

/** What an exported function gets: a value read from JSON (the default), text, or a Uint8Array. */
declare interface Function {
  input?: "json" | "text" | "bytes";
}

// ---- the host

declare interface Host {
  /** The input of the call, as text; what is no UTF-8 becomes U+FFFD. */
  inputString(): string;
  inputBytes(): ArrayBuffer;
  outputString(text: string): boolean;
  outputBytes(bytes: Bytes): boolean;
  /** The host functions of `extism:host/user`. */
  getFunctions(): import("extism:host").user;
  /** The host functions of another namespace. */
  getFunctions(namespace: string): Record<string, (...values: (number | bigint)[]) => any>;
  /** Ends the call with exactly this message, and a return code other than 0. */
  fail(message: string, code?: number): never;
  arrayBufferToBase64(buffer: ArrayBuffer): string;
  base64ToArrayBuffer(text: string): ArrayBuffer;
}
declare var Host: Host;

declare var Config: {
  /** A value of the config, or null. */
  get(key: string): string | null;
};

/** Vars are kept by the host from one call to the next. */
declare var Var: {
  get(name: string): string | null;
  getString(name: string): string | null;
  getBytes(name: string): ArrayBuffer | null;
  set(name: string, value: Bytes): void;
  delete(name: string): void;
};

declare interface HttpRequest {
  url: string;
  /** GET if it is not given. */
  method?: string;
  headers?: Record<string, string | number | boolean>;
}

declare interface HttpResponse {
  readonly status: number;
  /** By names in lower case; empty where the host does not tell them. */
  readonly headers: Record<string, string>;
  readonly body: string;
  bytes(): ArrayBuffer;
}

declare var Http: {
  /** Sends a request to a host that is granted. A status such as 404 is no error. */
  request(request: HttpRequest, body?: Bytes | null): HttpResponse;
};

/** A block of the host's memory, by which host functions get and return text and bytes. */
declare class MemoryHandle {
  constructor(offset: PTR, len?: I64);
  offset: PTR;
  len: I64;
  readString(): string;
  readBytes(): ArrayBuffer;
  readJsonObject<T = any>(): T;
  readUInt32(): number;
  readUInt64(): bigint;
  readFloat32(): number;
  readFloat64(): number;
  readUFloat64(): number;
  free(): void;
}

declare var Memory: {
  fromString(text: string): MemoryHandle;
  fromBuffer(bytes: Bytes): MemoryHandle;
  fromJsonObject(value: unknown): MemoryHandle;
  allocUInt32(value: number): MemoryHandle;
  allocUInt64(value: bigint): MemoryHandle;
  allocFloat32(value: number): MemoryHandle;
  allocFloat64(value: number): MemoryHandle;
  find(offset: PTR): MemoryHandle;
};

// ---- as on the web

/** The plugin's log. */
declare var console: {
  trace(...values: any[]): void;
  debug(...values: any[]): void;
  log(...values: any[]): void;
  info(...values: any[]): void;
  warn(...values: any[]): void;
  error(...values: any[]): void;
  assert(condition?: unknown, ...values: any[]): void;
  dir(value?: any, options?: any): void;
  table(...values: any[]): void;
  group(...values: any[]): void;
  groupEnd(): void;
};

/** Timers run while a call waits for the promise that it returned, and are dropped when it ends. */
declare function setTimeout<A extends any[]>(callback: (...values: A) => void, delay?: number, ...values: A): number;
declare function setInterval<A extends any[]>(callback: (...values: A) => void, delay?: number, ...values: A): number;
declare function clearTimeout(id?: number): void;
declare function clearInterval(id?: number): void;
declare function queueMicrotask(callback: () => void): void;
declare function structuredClone<T>(value: T): T;
declare function atob(text: string): string;
declare function btoa(text: string): string;

declare var performance: { now(): number; readonly timeOrigin: number };

declare var crypto: {
  getRandomValues<T extends ArrayBufferView>(array: T): T;
};

declare class DOMException extends Error {
  constructor(message?: string, name?: string);
  readonly code: number;
}

declare class TextEncoder {
  readonly encoding: "utf-8";
  encode(text?: string): Uint8Array<ArrayBuffer>;
  encodeInto(text: string, into: Uint8Array): { read: number; written: number };
}

declare class TextDecoder {
  /** The label is "utf-8", which is the only encoding. */
  constructor(label?: string, options?: { fatal?: boolean; ignoreBOM?: boolean });
  readonly encoding: "utf-8";
  readonly fatal: boolean;
  readonly ignoreBOM: boolean;
  decode(bytes?: ArrayBuffer | ArrayBufferView): string;
}

declare interface AbortEvent {
  readonly type: "abort";
  readonly target: AbortSignal;
}

declare class AbortSignal {
  private constructor();
  static abort(reason?: any): AbortSignal;
  static timeout(delay: number): AbortSignal;
  readonly aborted: boolean;
  readonly reason: any;
  onabort: ((event: AbortEvent) => void) | null;
  throwIfAborted(): void;
  addEventListener(type: "abort", listener: (event: AbortEvent) => void): void;
  removeEventListener(type: "abort", listener: (event: AbortEvent) => void): void;
}

declare class AbortController {
  readonly signal: AbortSignal;
  abort(reason?: any): void;
}

declare class URL {
  constructor(url: string | URL, base?: string | URL);
  static canParse(url: string | URL, base?: string | URL): boolean;
  static parse(url: string | URL, base?: string | URL): URL | null;
  href: string;
  protocol: string;
  username: string;
  password: string;
  host: string;
  hostname: string;
  port: string;
  pathname: string;
  search: string;
  hash: string;
  readonly origin: string;
  readonly searchParams: URLSearchParams;
  toString(): string;
  toJSON(): string;
}

declare class URLSearchParams implements Iterable<[string, string]> {
  constructor(init?: string | Iterable<readonly [string, string]> | Record<string, string>);
  readonly size: number;
  append(name: string, value: string): void;
  delete(name: string, value?: string): void;
  get(name: string): string | null;
  getAll(name: string): string[];
  has(name: string, value?: string): boolean;
  set(name: string, value: string): void;
  sort(): void;
  forEach(callback: (value: string, name: string, query: URLSearchParams) => void, receiver?: any): void;
  entries(): IterableIterator<[string, string]>;
  keys(): IterableIterator<string>;
  values(): IterableIterator<string>;
  [Symbol.iterator](): IterableIterator<[string, string]>;
  toString(): string;
}

declare type HeadersInit = Headers | Iterable<readonly [string, string]> | Record<string, string>;

declare class Headers implements Iterable<[string, string]> {
  constructor(init?: HeadersInit);
  append(name: string, value: string): void;
  delete(name: string): void;
  get(name: string): string | null;
  has(name: string): boolean;
  set(name: string, value: string): void;
  forEach(callback: (value: string, name: string, headers: Headers) => void, receiver?: any): void;
  entries(): IterableIterator<[string, string]>;
  keys(): IterableIterator<string>;
  values(): IterableIterator<string>;
  [Symbol.iterator](): IterableIterator<[string, string]>;
}

declare type BodyInit = Bytes | URLSearchParams;

declare interface Body {
  readonly bodyUsed: boolean;
  text(): Promise<string>;
  json(): Promise<any>;
  bytes(): Promise<Uint8Array<ArrayBuffer>>;
  arrayBuffer(): Promise<ArrayBuffer>;
}

declare interface RequestInit {
  method?: string;
  headers?: HeadersInit;
  body?: BodyInit | null;
  signal?: AbortSignal | null;
}

declare interface Request extends Body {}
declare class Request {
  constructor(input: string | URL | Request, init?: RequestInit);
  readonly url: string;
  readonly method: string;
  readonly headers: Headers;
  readonly signal: AbortSignal;
  clone(): Request;
}

declare interface ResponseInit {
  status?: number;
  statusText?: string;
  headers?: HeadersInit;
}

declare interface Response extends Body {}
declare class Response {
  constructor(body?: BodyInit | null, init?: ResponseInit);
  static json(value: any, init?: ResponseInit): Response;
  readonly status: number;
  readonly statusText: string;
  readonly ok: boolean;
  /** Empty where the host does not tell them. */
  readonly headers: Headers;
  readonly url: string;
  readonly redirected: boolean;
  readonly type: string;
  clone(): Response;
}

/**
 * Sends a request to a host that is granted. It is answered before `fetch` returns; a host that is not
 * granted, and a connection that fails, end the call.
 */
declare function fetch(input: string | URL | Request, init?: RequestInit): Promise<Response>;
