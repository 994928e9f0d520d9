// `structuredClone`: a copy of a value, with all that it refers to.
function refuseClone(what) {
  throw new DOMException(`${what} cannot be cloned`, "DataCloneError");
}

// The copy without what it refers to; a view is copied with the whole of its buffer.
function cloneShallow(value, clone) {
  if (isArray(value)) return new Array(value.length);
  if (value instanceof ArrayBuffer) return value.slice(0);
  if (value instanceof DataView) return new DataView(clone(value.buffer), value.byteOffset, value.byteLength);
  if (isView(value)) return new value.constructor(clone(value.buffer), value.byteOffset, value.length);
  if (value instanceof Date) return new Date(value.getTime());
  if (value instanceof RegExp) return new RegExp(value.source, value.flags);
  if (value instanceof Map) return new Map();
  if (value instanceof Set) return new Set();
  if (value instanceof Error) return new (ERRORS[value.name] ?? Error)(value.message);
  if (value instanceof Boolean || value instanceof Number || value instanceof String || value instanceof BigInt) return Object(value.valueOf());
  for (const kind of [Promise, WeakMap, WeakSet, WeakRef, Symbol]) if (value instanceof kind) refuseClone(`a ${kind.name}`);
  return {};
}

const ERRORS = { EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError };

define("structuredClone", (value) => {
  const copies = new Map();

  function clone(value) {
    if (typeof value === "symbol") refuseClone("a symbol");
    if (typeof value === "function") refuseClone(`the function ${value.name || "(anonymous)"}`);
    if (typeof value !== "object" || value === null) return value;
    if (copies.has(value)) return copies.get(value);
    const made = cloneShallow(value, clone);
    copies.set(value, made);
    if (value instanceof Map) {
      for (const [key, item] of [...value]) made.set(clone(key), clone(item));
    } else if (value instanceof Set) {
      for (const item of [...value]) made.add(clone(item));
    } else if (value instanceof Error) {
      for (const key of ["stack", "cause"])
        if (getOwnPropertyDescriptor(value, key)) defineProperty(made, key, { value: clone(value[key]), writable: true, enumerable: false, configurable: true });
    } else if (!isView(value)) {
      for (const key of keys(value)) made[key] = clone(value[key]);
    }
    return made;
  }

  return clone(value);
});

