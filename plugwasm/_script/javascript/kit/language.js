// The kit: what a script has besides the language. Its files are the body of one function, in the order
// that recipe.py names; it runs once, before any script, and `native` has the functions of glue.c.
// It keeps what it uses of the language, so that a script that replaces parts of it only harms
// itself.
const { Error, TypeError, RangeError, ReferenceError, SyntaxError, DOMException } = globalThis;
const { Array, ArrayBuffer, DataView, Float32Array, Float64Array, Uint8Array, Map, Set } = globalThis;
const { BigInt, Boolean, Date, Function, JSON, Math, Number, Object, Promise, RegExp, String, Symbol } = globalThis;
const uncurry = (method) => Function.prototype.call.bind(method);
const { parse, stringify } = JSON;
const { create, defineProperty, keys, getOwnPropertyDescriptor, getOwnPropertyNames, getPrototypeOf, setPrototypeOf } = Object;
const { deleteProperty, ownKeys } = Reflect;
const isArray = Array.isArray;
const isView = ArrayBuffer.isView;
const join = uncurry(Array.prototype.join);
const push = uncurry(Array.prototype.push);
const sourceOf = uncurry(Function.prototype.toString);
const matches = uncurry(RegExp.prototype.exec);
const isWellFormed = uncurry(String.prototype.isWellFormed);
const toWellFormed = uncurry(String.prototype.toWellFormed);
const startsWith = uncurry(String.prototype.startsWith);
const slice = uncurry(String.prototype.slice);
const replace = uncurry(String.prototype.replace);
const repeat = uncurry(String.prototype.repeat);
const lower = uncurry(String.prototype.toLowerCase);
const upper = uncurry(String.prototype.toUpperCase);
const trimEnd = uncurry(String.prototype.trimEnd);

// A script that formats stacks itself must not get the functions of the kit from their frames.
Error.prepareStackTrace = (_, frames) => frames;
delete Object.getPrototypeOf(new Error().stack[0]).getFunction;
Error.prepareStackTrace = undefined;

function define(name, value) {
  defineProperty(globalThis, name, { value, writable: true, enumerable: false, configurable: true });
}

