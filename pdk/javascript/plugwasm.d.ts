/** What a plugin in JavaScript has besides the language. For editors: `/// <reference path=… />`. */

declare type Bytes = string | ArrayBuffer | ArrayBufferView;

declare interface Host {
  /** The input of the call, as text; what is no UTF-8 becomes U+FFFD. */
  inputString(): string;
  inputBytes(): ArrayBuffer;
  outputString(text: string): void;
  outputBytes(bytes: Bytes): void;
  /** The host functions of a namespace. */
  getFunctions(namespace?: string): Record<string, (...values: (number | bigint)[]) => any>;
  /** Ends the call with exactly this message, and a return code other than 0. */
  fail(message: string, code?: number): never;
}
declare const Host: Host;

declare const Config: {
  /** A value of the config, or null. */
  get(key: string): string | null;
};

/** Vars are kept by the host from one call to the next. */
declare const Var: {
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
declare const Http: {
  /** Sends a request to a host that is granted. A status such as 404 is no error. */
  request(request: HttpRequest, body?: Bytes | null): HttpResponse;
};

/** A block of the host's memory, by which host functions get and return text and bytes. */
declare class MemoryHandle {
  constructor(offset: number, len?: number);
  offset: number;
  len: number;
  readString(): string;
  readBytes(): ArrayBuffer;
  readJsonObject(): any;
  readUInt32(): number;
  readUInt64(): bigint;
  readFloat32(): number;
  readFloat64(): number;
  free(): void;
}
declare const Memory: {
  fromString(text: string): MemoryHandle;
  fromBuffer(bytes: Bytes): MemoryHandle;
  fromJsonObject(value: any): MemoryHandle;
  allocUInt32(value: number): MemoryHandle;
  allocUInt64(value: bigint): MemoryHandle;
  allocFloat32(value: number): MemoryHandle;
  allocFloat64(value: number): MemoryHandle;
  find(offset: number): MemoryHandle;
};

declare const console: Record<"trace" | "debug" | "log" | "info" | "warn" | "error", (...values: any[]) => void>;

/** What the function that is called gets: "json" (the default), "text" or "bytes". */
declare interface Function {
  input?: "json" | "text" | "bytes";
}
