// Source maps: where a script was made of other sources, such as TypeScript, places in it are told as
// places in those. The map is in the last line of the script, as bundlers write it; it is read when
// an error is described.
const MAP_LINE = "\n//# sourceMappingURL=data:application/json";
const charCodeAt = uncurry(String.prototype.charCodeAt);
const lastIndexOf = uncurry(String.prototype.lastIndexOf);
const split = uncurry(String.prototype.split);
const COMMA = 44;
const SEMICOLON = 59;
const DIGITS = new Uint8Array(128);
for (let i = 0; i < 64; i++) DIGITS[charCodeAt("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", i)] = i;

let map = null; // the name of the script, the names of its sources, and their places, encoded

// Takes the map out of a script, and returns the script without it.
function takeMap(source, name) {
  const at = lastIndexOf(source, MAP_LINE);
  if (at < 0) return source;
  const found = matches(/^[^,\n]*;base64,([\w+/=]+)\s*$/, slice(source, at + MAP_LINE.length));
  if (found === null) return source;
  try {
    const { version, sources, mappings } = parse(native.decode(Uint8Array.fromBase64(found[1]), false));
    if (version === 3 && isArray(sources) && typeof mappings === "string") {
      const names = [];
      for (let i = 0; i < sources.length; i++) push(names, String(sources[i]));
      map = { name, names, mappings };
    }
  } catch {
    return source; // what cannot be read is no map
  }
  return slice(source, 0, at + 1);
}

// Finds the places in the sources that these places, which are counted from 0, were made of.
function findSources(places) {
  let last = -1;
  for (let i = 0; i < places.length; i++) if (places[i].line > last) last = places[i].line;
  const { mappings } = map;
  const at = [0, 0, 0, 0]; // a column, and the source, line and column that it was made of
  let line = 0;
  let field = 0;
  let value = 0;
  let scale = 1;
  for (let i = 0; i <= mappings.length && line <= last; i++) {
    const code = i < mappings.length ? charCodeAt(mappings, i) : SEMICOLON;
    if (code === COMMA || code === SEMICOLON) {
      if (field >= 4)
        for (let k = 0; k < places.length; k++)
          if (places[k].line === line && at[0] <= places[k].column) places[k].found = { name: map.names[at[1]], line: at[2], column: at[3] };
      field = 0;
      if (code === SEMICOLON) {
        line++;
        at[0] = 0;
      }
      continue;
    }
    value += (DIGITS[code] & 31) * scale;
    scale *= 32;
    if (DIGITS[code] & 32) continue;
    if (field < 4) at[field] += value % 2 ? -(value - 1) / 2 : value / 2;
    field++;
    value = 0;
    scale = 1;
  }
}

// A stack with places in the sources.
function mapStack(stack) {
  if (map === null) return stack;
  const lines = split(stack, "\n");
  const places = [];
  for (let i = 0; i < lines.length; i++) {
    const frame = matches(/^(\s+at (?:.* \()?)(.*?):(\d+):(\d+)(\)?)$/, lines[i]);
    if (frame !== null && frame[2] === map.name) push(places, { number: i, frame, line: frame[3] - 1, column: frame[4] - 1, found: null });
  }
  findSources(places);
  for (let i = 0; i < places.length; i++) {
    const { number, frame, found } = places[i];
    if (found !== null) lines[number] = `${frame[1]}${found.name}:${found.line + 1}:${found.column + 1}${frame[5]}`;
  }
  return join(lines, "\n");
}

