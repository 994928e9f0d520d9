// Values as text, as Node shows them, and the log. What is shown is bounded in depth and length.
const MOST_DEPTH = 2;
const MOST_ITEMS = 100; // of one object
const MOST_ALL = 2000; // of one value, with all that it refers to
const MOST_TEXT = 10000;
const WIDTH = 72;

const isName = (text) => matches(/^[A-Za-z_$][\w$]*$/, text) !== null;
const indent = (text) => replace(text, /\n/g, "\n  ");

function cut(text, most) {
  return text.length > most ? `${slice(text, 0, most)}… ${text.length - most} more characters` : text;
}

function quote(text) {
  const shown = cut(text, MOST_TEXT);
  const mark = matches(/'/, shown) === null ? "'" : matches(/"/, shown) === null ? '"' : matches(/`|\$\{/, shown) === null ? "`" : "'";
  const escaped = replace(shown, /[\0-\x1f\\\x7f]/g, (character) => {
    const inner = stringify(character);
    return inner.length > 3 ? slice(inner, 1, -1) : character;
  });
  return mark + (mark === "'" ? replace(escaped, /'/g, "\\'") : escaped) + mark;
}

// The text of an error, also of the call. It may run code of the script, whose errors glue.c handles.
function describe(thrown) {
  if (thrown instanceof Failure) return thrown.message;
  if (!(thrown instanceof Error) && !(thrown instanceof DOMException)) return describeOther(thrown);
  const name = String(thrown.name);
  const message = String(thrown.message);
  const stack = mapStack(trimEnd(String(thrown.stack ?? "")));
  return `${name}${message ? ": " : ""}${message}${stack ? "\n" : ""}${stack}`;
}

// Other objects that are thrown are for programs to read.
function describeOther(thrown) {
  if (typeof thrown === "object" && thrown !== null) {
    try {
      return stringify(thrown) ?? show(thrown);
    } catch {
      // It has no JSON.
    }
  }
  return show(thrown);
}

function describeFunction(value) {
  const name = typeof value.name === "string" ? value.name : "";
  if (matches(/^class\b/, sourceOf(value))) return `[class ${name || "(anonymous)"}]`;
  return `[Function${name ? ": " : " (anonymous)"}${name}]`;
}

// The name of the class of an object, null if it has no prototype.
function nameOfClass(value) {
  for (let of = value; of !== null; of = getPrototypeOf(of)) {
    const own = getOwnPropertyDescriptor(of, "constructor");
    if (own !== undefined && typeof own.value === "function" && typeof own.value.name === "string" && own.value.name !== "") return own.value.name;
  }
  return null;
}

const STATES = ["<pending>", "", "<rejected>"];

class Inspector {
  left = MOST_ALL;
  path = []; // the objects that are being shown

  show(value, depth) {
    this.left--;
    if (typeof value === "string") return quote(value);
    if (typeof value === "bigint") return `${value}n`;
    if (typeof value === "number" && value === 0 && 1 / value < 0) return "-0";
    if (typeof value === "function") return this.body(describeFunction(value), value, [], "{}", depth);
    if (typeof value !== "object" || value === null) return String(value);
    for (let i = 0; i < this.path.length; i++) if (this.path[i] === value) return "[Circular]";
    const kind = nameOfClass(value);
    if (depth > MOST_DEPTH && !(value instanceof Error || value instanceof Date || value instanceof RegExp)) return isArray(value) ? "[Array]" : `[${kind ?? "Object: null prototype"}]`;
    push(this.path, value);
    const text = this.showObject(value, kind, depth);
    this.path.length--;
    return text;
  }

  showObject(value, kind, depth) {
    const named = (size) => `${kind ?? "[null prototype]"}(${size}) `;
    if (isArray(value)) return this.body(kind === "Array" ? "" : named(value.length), value, this.items(value, depth), "[]", depth);
    if (value instanceof Error || value instanceof DOMException) return this.body(depth === 0 ? describe(value) : `[${indent(describe(value))}]`, value, [], "{}", depth);
    if (value instanceof Date) return isNaN(value.getTime()) ? "Invalid Date" : value.toISOString();
    if (value instanceof RegExp) return String(value);
    if (value instanceof Map) return this.body(named(value.size), value, this.collect(value.size, value, ([key, item]) => `${this.show(key, depth + 1)} => ${this.show(item, depth + 1)}`), "{}", depth);
    if (value instanceof Set) return this.body(named(value.size), value, this.collect(value.size, value, (item) => this.show(item, depth + 1)), "{}", depth);
    if (value instanceof ArrayBuffer) return `${kind} { byteLength: ${value.byteLength} }`;
    if (value instanceof DataView) return `${kind} { byteLength: ${value.byteLength}, byteOffset: ${value.byteOffset} }`;
    if (isView(value)) return this.body(named(value.length), value, this.items(value, depth), "[]", depth);
    if (value instanceof Promise) return `${kind} { ${STATES[native.promiseState(value)]} }`;
    if (value instanceof Number || value instanceof String || value instanceof Boolean || value instanceof BigInt || value instanceof Symbol) return `[${kind}: ${this.show(value.valueOf(), depth)}]`;
    if (value instanceof URL) return `URL { ${quote(value.href)} }`;
    if (value instanceof URLSearchParams || value instanceof Headers) return `${kind} { ${join([...value].map(([name, item]) => `${quote(name)} => ${quote(item)}`), ", ")} }`;
    return this.body(kind === "Object" ? "" : `${kind ?? "[Object: null prototype]"} `, value, [], "{}", depth);
  }

  // The items of an array; holes are counted.
  items(array, depth) {
    const shown = [];
    let i = 0;
    while (i < array.length && shown.length < MOST_ITEMS && this.left > 0) {
      const hole = i;
      while (i < array.length && !(i in array) && i - hole < 1e6) i++;
      if (i > hole) push(shown, `<${i - hole} empty item${i - hole > 1 ? "s" : ""}>`);
      else push(shown, this.show(array[i++], depth + 1));
    }
    if (i < array.length) push(shown, `… ${array.length - i} more items`);
    return shown;
  }

  collect(size, values, show) {
    const shown = [];
    for (const value of values) {
      if (shown.length >= MOST_ITEMS || this.left <= 0) {
        push(shown, `… ${size - shown.length} more items`);
        break;
      }
      push(shown, show(value));
    }
    return shown;
  }

  property(value, key, depth) {
    const own = getOwnPropertyDescriptor(value, key);
    if (own === undefined || !own.enumerable) return null;
    const name = typeof key === "symbol" ? `[${String(key)}]` : isName(key) ? key : quote(key);
    const accessor = own.get === undefined ? "[Setter]" : own.set === undefined ? "[Getter]" : "[Getter/Setter]";
    return `${name}: ${"value" in own ? this.show(own.value, depth + 1) : accessor}`;
  }

  // What stands before the brackets, what is in them, and the properties of an object.
  body(head, value, parts, brackets, depth) {
    const all = ownKeys(value);
    const hasItems = brackets === "[]";
    for (let i = 0; i < all.length; i++) {
      if (hasItems && typeof all[i] === "string" && matches(/^\d+$/, all[i])) continue;
      if (parts.length > MOST_ITEMS || this.left <= 0) {
        push(parts, "…");
        break;
      }
      const shown = this.property(value, all[i], depth);
      if (shown !== null) push(parts, shown);
    }
    if (value instanceof Error && "cause" in value) push(parts, `[cause]: ${this.show(value.cause, depth + 1)}`);
    if (parts.length === 0) return typeof value === "function" || value instanceof Error || value instanceof DOMException ? head : `${head}${brackets}`;
    if (head !== "" && head[head.length - 1] !== " ") head += " ";
    const line = join(parts, ", ");
    const fits = line.length + head.length + depth * 2 <= WIDTH && matches(/\n/, line) === null;
    const inside = fits ? ` ${line} ` : `\n  ${indent(join(parts, ",\n"))}\n`;
    return `${head}${brackets[0]}${inside}${brackets[1]}`;
  }
}

function inspect(value) {
  try {
    return cut(new Inspector().show(value, 0), 10 * MOST_TEXT);
  } catch (error) {
    return `[cannot be shown: ${error instanceof Error ? String(error.message) : typeof error}]`;
  }
}

function show(value) {
  return typeof value === "string" ? value : inspect(value);
}

let groups = "";

function logger(level) {
  return (...values) => {
    if (!native.logEnabled(level)) return;
    const texts = [];
    for (let i = 0; i < values.length; i++) push(texts, show(values[i]));
    const text = join(texts, " ");
    native.log(level, groups === "" ? text : groups + replace(text, /\n/g, `\n${groups}`));
  };
}

const log = logger(2);

define("console", {
  trace: logger(0),
  debug: logger(1),
  log,
  info: log,
  dir: (value) => log(value),
  table: log,
  warn: logger(3),
  error: logger(4),
  assert(condition, ...values) {
    if (!condition) this.error("Assertion failed", ...values);
  },
  group(...values) {
    if (values.length) log(...values);
    if (groups.length < 80) groups += "  ";
  },
  groupEnd() {
    groups = slice(groups, 2);
  },
});

