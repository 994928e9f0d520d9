// The test plugin of the conformance suite in JavaScript.

/** The first lines of a text, and what follows them. */
function split(text, count) {
  const fields = [];
  for (let rest = text; ; ) {
    const end = rest.indexOf("\n");
    if (fields.length === count || end < 0) return [...fields, rest];
    fields.push(rest.slice(0, end));
    rest = rest.slice(end + 1);
  }
}

const describe = (value) => (value === null ? "unset" : `=${value}`);

export const echo = () => Host.outputBytes(Host.inputBytes());

export function utf8() {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(Host.inputBytes());
    Host.outputString(String([...text].length));
  } catch {
    Host.fail("not UTF-8");
  }
}

export function count_vowels() {
  const vowels = Config.get("vowels") ?? "aeiouAEIOU";
  const count = [...Host.inputString()].filter((character) => vowels.includes(character)).length;
  const before = Var.getBytes("total");
  const total = new BigInt64Array(before ?? new ArrayBuffer(8));
  total[0] += BigInt(count);
  Var.set("total", total.buffer);
  Host.outputString(JSON.stringify({ count, total: Number(total[0]), vowels }));
}

export const config_get = () => Host.outputString(describe(Config.get(Host.inputString())));

export const var_get = () => Host.outputString(describe(Var.getString(Host.inputString())));

export function var_set() {
  const [name, value] = split(Host.inputString(), 1);
  Var.set(name, value);
}

export const var_delete = () => Var.delete(Host.inputString());

export function fail() {
  const [code, message] = split(Host.inputString(), 1);
  Host.fail(message, Number(code));
}

export function panic() {
  throw new Error("as it was asked to");
}

export function log_message() {
  const [level, message] = split(Host.inputString(), 1);
  console[level](message);
}

/** A plain function: JSON in, JSON out. */
export function add({ a, b }) {
  if (!Number.isInteger(a) || !Number.isInteger(b)) Host.fail("not two integers");
  return { sum: a + b };
}

export function http() {
  const [method, url, rest] = split(Host.inputString(), 2);
  const headers = {};
  let body = rest;
  for (;;) {
    const [line, after] = split(body, 1);
    body = after ?? "";
    if (line === "") break;
    const [name, value] = line.split(": ");
    headers[name] = value;
  }
  const response = Http.request({ method, url, headers }, body);
  Host.outputString(`${response.status}\n${response.headers["x-answer"] ?? "-"}\n${response.body}`);
}

/** What a host function returns for a number. */
function callNumber(name, parse) {
  const value = Host.getFunctions()[name](parse(Host.inputString()));
  Host.outputString(String(value));
}

export const call_i32 = () => callNumber("host_i32", Number);
export const call_i64 = () => callNumber("host_i64", BigInt);
export const call_f32 = () => callNumber("host_f32", Number);
export const call_f64 = () => callNumber("host_f64", Number);

/** What a host function returns for a block. */
function callBlock(name, given) {
  const block = Memory.fromBuffer(given);
  const answer = Memory.find(Host.getFunctions()[name](block.offset));
  Host.outputBytes(answer.readBytes());
  answer.free();
  block.free();
}

export const call_text = () => callBlock("host_text", Host.inputString());
export const call_bytes = () => callBlock("host_bytes", Host.inputBytes());
export const call_json = () => callBlock("host_json", Host.inputBytes());

export function call_other() {
  Host.getFunctions("conformance:host").host_other();
}

export function churn() {
  const count = Number(Host.inputString());
  const content = new Uint8Array(65536);
  for (let i = 0; i < count; i++) Memory.fromBuffer(content).free();
  Host.outputString(String(count));
}
