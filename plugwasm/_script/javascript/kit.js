// What a script has besides the language: the surface of the official JavaScript kit. It runs once,
// before any script, and gets the functions of glue.c. It keeps what it uses of the language, so
// that a script that replaces parts of it only harms itself.
(function (native) {
  "use strict";

  const { Error, TypeError, RangeError, ReferenceError, SyntaxError } = globalThis;
  const { Array, ArrayBuffer, Boolean, DataView, Float32Array, Float64Array, Function, JSON, Math } = globalThis;
  const { Object, RegExp, String, Uint8Array } = globalThis;
  const uncurry = (method) => Function.prototype.call.bind(method);
  const { parse, stringify } = JSON;
  const { create, defineProperty, keys, getOwnPropertyNames, setPrototypeOf } = Object;
  const { deleteProperty } = Reflect;
  const isArray = Array.isArray;
  const isView = ArrayBuffer.isView;
  const join = uncurry(Array.prototype.join);
  const push = uncurry(Array.prototype.push);
  const sourceOf = uncurry(Function.prototype.toString);
  const matches = uncurry(RegExp.prototype.exec);
  const isWellFormed = uncurry(String.prototype.isWellFormed);
  const startsWith = uncurry(String.prototype.startsWith);
  const slice = uncurry(String.prototype.slice);
  const toWellFormed = uncurry(String.prototype.toWellFormed);
  const trimEnd = uncurry(String.prototype.trimEnd);

  // A script that formats stacks itself must not get the functions of the kit from their frames.
  Error.prepareStackTrace = (_, frames) => frames;
  delete Object.getPrototypeOf(new Error().stack[0]).getFunction;
  Error.prepareStackTrace = undefined;

  function define(name, value) {
    defineProperty(globalThis, name, { value, writable: true, enumerable: false, configurable: true });
  }

  function toText(value, what) {
    if (typeof value !== "string") throw new TypeError(`${what} must be text, not ${typeof value}`);
    return value;
  }

  function toBytes(value, what) {
    if (typeof value === "string" || value instanceof ArrayBuffer || isView(value)) return value;
    throw new TypeError(`${what} must be text, an ArrayBuffer or a typed array, not ${typeof value}`);
  }

  // ---- blocks of the host's memory

  class MemoryHandle {
    constructor(offset, len) {
      this.offset = offset;
      this.len = len ?? native.blockSize(offset);
    }
    readString() {
      return native.blockText(this.offset);
    }
    readBytes() {
      return native.blockBuffer(this.offset);
    }
    readJsonObject() {
      return parse(native.blockText(this.offset));
    }
    readUInt32() {
      return new DataView(this.readBytes()).getUint32(0, true);
    }
    readUInt64() {
      return new DataView(this.readBytes()).getBigUint64(0, true);
    }
    readFloat32() {
      return new DataView(this.readBytes()).getFloat32(0, true);
    }
    readFloat64() {
      return new DataView(this.readBytes()).getFloat64(0, true);
    }
    free() {
      native.blockFree(this.offset);
      this.offset = 0;
      this.len = 0;
    }
  }

  function makeBlock(value) {
    return new MemoryHandle(native.blockNew(value));
  }

  function makeNumberBlock(size, set) {
    const buffer = new ArrayBuffer(size);
    set(new DataView(buffer));
    return makeBlock(buffer);
  }

  const Memory = {
    fromString: (text) => makeBlock(toText(text, "Memory.fromString: the argument")),
    fromBuffer: (bytes) => makeBlock(toBytes(bytes, "Memory.fromBuffer: the argument")),
    fromJsonObject: (value) => makeBlock(stringify(value)),
    allocUInt32: (value) => makeNumberBlock(4, (view) => view.setUint32(0, value, true)),
    allocUInt64: (value) => makeNumberBlock(8, (view) => view.setBigUint64(0, value, true)),
    allocFloat32: (value) => makeNumberBlock(4, (view) => view.setFloat32(0, value, true)),
    allocFloat64: (value) => makeNumberBlock(8, (view) => view.setFloat64(0, value, true)),
    find: (offset) => new MemoryHandle(offset),
  };

  // ---- the host

  class Failure {
    constructor(message, code) {
      this.message = message;
      this.code = code;
    }
  }

  let functions = create(null);

  const Host = {
    inputString: () => native.inputText(),
    inputBytes: () => native.inputBuffer(),
    outputString: (text) => native.output(toText(text, "Host.outputString: the argument")),
    outputBytes: (bytes) => native.output(toBytes(bytes, "Host.outputBytes: the argument")),
    getFunctions: (namespace = "extism:host/user") => ({ ...functions[namespace] }),
    fail(message, code = 1) {
      if (code !== (code | 0) || code === 0) throw new RangeError("Host.fail: the code must be an integer other than 0");
      throw new Failure(toText(message, "Host.fail: the message"), code);
    },
  };

  const Config = {
    get: (key) => native.config(toText(key, "Config.get: the key")),
  };

  const Var = {
    get: (name) => native.varText(toText(name, "Var.get: the name")),
    getString: (name) => native.varText(toText(name, "Var.getString: the name")),
    getBytes: (name) => native.varBuffer(toText(name, "Var.getBytes: the name")),
    set: (name, value) => native.varSet(toText(name, "Var.set: the name"), toBytes(value, "Var.set: the value")),
    delete: (name) => native.varSet(toText(name, "Var.delete: the name"), null),
  };

  const Http = {
    request(request, body) {
      if (typeof request !== "object" || request === null) throw new TypeError("Http.request: the request must be an object with a `url`");
      const headers = {};
      for (const name of keys(request.headers ?? {})) headers[name] = String(request.headers[name]);
      const document = { url: String(request.url), method: String(request.method ?? "GET"), headers };
      const content = body === undefined || body === null ? undefined : toBytes(body, "Http.request: the body");
      const bytes = native.http(stringify(document), content);
      const answered = native.httpHeaders();
      return {
        status: native.httpStatus(),
        headers: answered === null ? {} : parse(answered),
        get body() {
          return native.decode(bytes, false);
        },
        bytes: () => bytes,
      };
    },
  };

  // ---- logging

  function show(value) {
    if (typeof value === "string") return value;
    if (value instanceof Error) return describe(value);
    if (typeof value === "function") return `[function ${value.name || "(anonymous)"}]`;
    if (typeof value === "object" && value !== null) {
      try {
        return stringify(value) ?? String(value);
      } catch {
        return "[object]";
      }
    }
    return typeof value === "bigint" ? `${value}n` : String(value);
  }

  function logger(level) {
    return (...values) => {
      if (!native.logEnabled(level)) return;
      const texts = [];
      for (let i = 0; i < values.length; i++) push(texts, show(values[i]));
      native.log(level, join(texts, " "));
    };
  }

  const console = {
    trace: logger(0),
    debug: logger(1),
    log: logger(2),
    info: logger(2),
    warn: logger(3),
    error: logger(4),
  };

  // ---- text as bytes

  class TextEncoder {
    get encoding() {
      return "utf-8";
    }
    encode(text = "") {
      return new Uint8Array(native.encode(String(text)));
    }
    encodeInto(text, into) {
      let read = 0;
      let written = 0;
      for (const character of String(text)) {
        const bytes = new Uint8Array(native.encode(character));
        if (written + bytes.length > into.length) break;
        into.set(bytes, written);
        written += bytes.length;
        read += character.length;
      }
      return { read, written };
    }
  }

  class TextDecoder {
    #fatal;
    #ignoreBOM;
    constructor(label = "utf-8", { fatal = false, ignoreBOM = false } = {}) {
      if (!matches(/^\s*(unicode-1-1-utf-8|utf-?8)\s*$/i, label)) throw new RangeError(`TextDecoder: ${label} is not known: only utf-8 is`);
      this.#fatal = Boolean(fatal);
      this.#ignoreBOM = Boolean(ignoreBOM);
    }
    get encoding() {
      return "utf-8";
    }
    get fatal() {
      return this.#fatal;
    }
    get ignoreBOM() {
      return this.#ignoreBOM;
    }
    decode(bytes = new ArrayBuffer(0), { stream = false } = {}) {
      if (stream) throw new TypeError("TextDecoder: streams are not supported");
      const text = native.decode(toBytes(bytes, "TextDecoder.decode: the argument"), this.#fatal);
      return !this.#ignoreBOM && startsWith(text, "\uFEFF") ? slice(text, 1) : text;
    }
  }

  const crypto = {
    getRandomValues(array) {
      if (!isView(array) || array instanceof DataView || array instanceof Float32Array || array instanceof Float64Array)
        throw new TypeError("crypto.getRandomValues: the argument must be a typed array of integers");
      if (array.byteLength > 65536) throw new RangeError("crypto.getRandomValues: at most 65536 bytes at once");
      new Uint8Array(array.buffer, array.byteOffset, array.byteLength).set(new Uint8Array(native.randomBuffer(array.byteLength)));
      return array;
    },
  };

  for (const [name, value] of Object.entries({ Host, Config, Var, Http, Memory, MemoryHandle, console, TextEncoder, TextDecoder, crypto })) define(name, value);
  defineProperty(Math, "random", { value: () => native.random(), writable: true, enumerable: false, configurable: true });

  // ---- what the engine calls

  // The text of an error of the call. It may run code of the script, whose errors glue.c handles.
  function describe(thrown) {
    if (thrown instanceof Failure) return thrown.message;
    if (!(thrown instanceof Error)) return show(thrown);
    const name = String(thrown.name);
    const message = String(thrown.message);
    const stack = trimEnd(String(thrown.stack ?? ""));
    return `${name}${message ? ": " : ""}${message}${stack ? "\n" : ""}${stack}`;
  }

  const MOST_ERROR = 65536; // characters of the error of loading a script
  const MODES = { __proto__: null, json: 1, text: 2, bytes: 3 };

  function modeOf(exported, name, mode) {
    const own = exported.input;
    if (own !== undefined && MODES[own] === undefined)
      throw new TypeError(`${name}.input must be "json", "text" or "bytes"`);
    if (own !== undefined) return MODES[own];
    const takesNothing = exported.length === 0 && matches(/^(async\b)?\s*(function\b)?\s*\*?\s*[^\s()]*\s*\(\s*\)/, sourceOf(exported));
    return takesNothing ? 0 : MODES[mode];
  }

  function addExports(exported, mode, output) {
    const found = setPrototypeOf([], null);
    const names = getOwnPropertyNames(exported);
    for (let i = 0; i < names.length; i++) {
      const name = names[i];
      const value = exported[name];
      if (typeof value !== "function" || matches(/^class\b/, sourceOf(value))) continue;
      if (!isWellFormed(name)) throw new TypeError(`the name of the exported function ${stringify(name)} is not valid Unicode`);
      native.addExport(value, modeOf(value, name, mode), output === "json");
      push(found, name);
    }
    return found;
  }

  const COMMONJS = ["module", "exports", "require"];

  // What `module.exports` has, or the exports of a module.
  function run(source, name) {
    const module = { exports: {} };
    define("module", module);
    define("exports", module.exports);
    define("require", (path) => {
      throw new ReferenceError(`cannot require '${path}': a script is one file; bundle it with what it requires`);
    });
    const exported = native.run(source, name, matches(/^[ \t]*(import|export)\b/m, source) !== null);
    // A script may have frozen the global object: then they stay.
    for (let i = 0; i < COMMONJS.length; i++) deleteProperty(globalThis, COMMONJS[i]);
    return exported ?? module.exports;
  }

  function load(text) {
    const document = parse(text);
    const { name, source, input, output, host, stack } = document;
    if (stack) native.limitStack(stack);
    const types = [];
    for (let i = 0; i < host.length; i++) push(types, host[i].type);
    const made = native.hostFunctions(document.firstElement, types);
    for (let i = 0; i < host.length; i++) {
      functions[host[i].namespace] ??= create(null);
      functions[host[i].namespace][host[i].name] = made[i];
    }
    // Without prototypes: a script may have given them a `toJSON`.
    try {
      return stringify({ __proto__: null, exports: addExports(run(source, name), input, output) });
    } catch (error) {
      const text = slice(describe(error), 0, MOST_ERROR);
      return stringify({ __proto__: null, error: toWellFormed(text), isSyntax: error instanceof SyntaxError });
    }
  }

  return { load, describe };
});
