// Text as bytes, and random numbers.
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

define("TextEncoder", TextEncoder);
define("TextDecoder", TextDecoder);
define("crypto", crypto);
defineProperty(Math, "random", { value: () => native.random(), writable: true, enumerable: false, configurable: true });

