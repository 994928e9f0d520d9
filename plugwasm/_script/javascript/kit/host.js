// The host: input, output, config, vars, requests, and blocks of its memory.
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
  readUFloat64() {
    return this.readFloat64(); // its name in the official kit
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
  outputString(text) {
    native.output(toText(text, "Host.outputString: the argument"));
    return true;
  },
  outputBytes(bytes) {
    native.output(toBytes(bytes, "Host.outputBytes: the argument"));
    return true;
  },
  getFunctions: (namespace = "extism:host/user") => ({ ...functions[namespace] }),
  arrayBufferToBase64: (buffer) => new Uint8Array(buffer).toBase64(),
  base64ToArrayBuffer: (text) => Uint8Array.fromBase64(text).buffer,
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

function send(url, method, headers, body) {
  const bytes = native.http(stringify({ url, method, headers }), body);
  const answered = native.httpHeaders();
  return { status: native.httpStatus(), headers: answered === null ? {} : parse(answered), bytes };
}

const Http = {
  request(request, body) {
    if (typeof request !== "object" || request === null) throw new TypeError("Http.request: the request must be an object with a `url`");
    const headers = {};
    for (const name of keys(request.headers ?? {})) headers[name] = String(request.headers[name]);
    const content = body === undefined || body === null ? undefined : toBytes(body, "Http.request: the body");
    const { status, headers: answered, bytes } = send(String(request.url), String(request.method ?? "GET"), headers, content);
    return {
      status,
      headers: answered,
      get body() {
        return native.decode(bytes, false);
      },
      bytes: () => bytes,
    };
  },
};

define("Host", Host);
define("Config", Config);
define("Var", Var);
define("Http", Http);
define("Memory", Memory);
define("MemoryHandle", MemoryHandle);

