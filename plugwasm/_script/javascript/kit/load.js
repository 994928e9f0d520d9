// What the engine calls.


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
    return stringify({ __proto__: null, exports: addExports(run(takeMap(source, name), name), input, output) });
  } catch (error) {
    const text = slice(describe(error), 0, MOST_ERROR);
    return stringify({ __proto__: null, error: toWellFormed(text), isSyntax: error instanceof SyntaxError });
  }
}

return { load, describe, runTimer, dropTimers };
