// What the engine calls.
// ---- what the engine calls

const MODES = { json: 1, text: 2, bytes: 3 };

function modeOf(exported, name, mode) {
  const own = exported.input;
  if (own !== undefined && MODES[own] === undefined)
    throw new TypeError(`${name}.input must be "json", "text" or "bytes"`);
  if (own !== undefined) return MODES[own];
  const takesNothing = exported.length === 0 && matches(/^(async\b)?\s*(function\b)?\s*\*?\s*[^\s()]*\s*\(\s*\)/, sourceOf(exported));
  return takesNothing ? 0 : MODES[mode];
}

function addExports(exported, mode, output) {
  const found = [];
  const names = getOwnPropertyNames(exported);
  for (let i = 0; i < names.length; i++) {
    const name = names[i];
    const value = exported[name];
    if (typeof value !== "function" || matches(/^class\b/, sourceOf(value))) continue;
    native.addExport(value, modeOf(value, name, mode), output === "json");
    push(found, name);
  }
  return found;
}

// What `module.exports` has, or the exports of a module.
function run(source, name) {
  const module = { exports: {} };
  define("module", module);
  define("exports", module.exports);
  define("require", (path) => {
    throw new ReferenceError(`cannot require '${path}': a script is one file; bundle it with what it requires`);
  });
  const exported = native.run(source, name, matches(/^[ \t]*(import|export)\b/m, source) !== null);
  delete globalThis.module;
  delete globalThis.exports;
  delete globalThis.require;
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
  try {
    return stringify({ exports: addExports(run(takeMap(source, name), name), input, output) });
  } catch (error) {
    return stringify({ error: describe(error), isSyntax: error instanceof SyntaxError });
  }
}

return { load, describe, runTimer, dropTimers };
