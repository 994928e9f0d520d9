// `fetch`: the requests of the host as promises. A request is answered before `fetch` returns.
const trimSpace = (text) => replace(text, /^[\t\n\r ]+|[\t\n\r ]+$/g, "");

class Headers {
  #values = new Map(); // by names in lower case
  constructor(init = {}) {
    if (typeof init !== "object" || init === null) throw new TypeError("Headers: expected an object, or pairs of a name and a value");
    const pairs = typeof init[Symbol.iterator] === "function" ? init : Object.entries(init);
    for (const [name, value] of pairs) this.append(name, value);
  }
  #check(name) {
    if (!matches(/^[!#$%&'*+\-.^_`|~0-9a-z]+$/i, `${name}`)) throw new TypeError(`Headers: ${inspect(`${name}`)} is not the name of a header`);
    return lower(`${name}`);
  }
  #checkValue(name, value) {
    value = trimSpace(`${value}`);
    if (matches(/[\0\r\n]/, value)) throw new TypeError(`Headers: the value of ${name} has a line break or a null character`);
    return value;
  }
  append(name, value) {
    const key = this.#check(name);
    value = this.#checkValue(key, value);
    this.#values.set(key, this.#values.has(key) ? `${this.#values.get(key)}, ${value}` : value);
  }
  set(name, value) {
    const key = this.#check(name);
    this.#values.set(key, this.#checkValue(key, value));
  }
  get(name) {
    return this.#values.get(this.#check(name)) ?? null;
  }
  has(name) {
    return this.#values.has(this.#check(name));
  }
  delete(name) {
    this.#values.delete(this.#check(name));
  }
  forEach(callback, receiver) {
    for (const [name, value] of this) callback.call(receiver, value, name, this);
  }
  entries() {
    return this[Symbol.iterator]();
  }
  *keys() {
    for (const [name] of this) yield name;
  }
  *values() {
    for (const [, value] of this) yield value;
  }
  *[Symbol.iterator]() {
    for (const name of [...this.#values.keys()].sort()) yield [name, this.#values.get(name)];
  }
}

let contentOf; // what a Request or a Response has as its body: text, bytes or null
let answer; // makes a Response of what the host answered

class Body {
  #content = null;
  #isUsed = false;
  static {
    contentOf = (body) => body.#content;
  }
  constructor(content, headers) {
    let type = null;
    if (content === undefined || content === null) return;
    if (content instanceof URLSearchParams) type = "application/x-www-form-urlencoded;charset=UTF-8";
    else if (typeof content === "string") type = "text/plain;charset=UTF-8";
    if (type !== null) content = `${content}`;
    else if (content instanceof ArrayBuffer) content = content.slice(0);
    else if (isView(content)) content = new Uint8Array(content.buffer, content.byteOffset, content.byteLength).slice();
    else throw new TypeError("a body must be text, an ArrayBuffer, a typed array or URLSearchParams");
    if (type !== null && !headers.has("content-type")) headers.set("content-type", type);
    this.#content = content;
  }
  get bodyUsed() {
    return this.#isUsed;
  }
  #take() {
    if (this.#isUsed) throw new TypeError("the body was read before");
    this.#isUsed = this.#content !== null;
    return this.#content ?? "";
  }
  async text() {
    const content = this.#take();
    const text = typeof content === "string" ? content : native.decode(content, false);
    return startsWith(text, "\uFEFF") ? slice(text, 1) : text;
  }
  async json() {
    return parse(await this.text());
  }
  async bytes() {
    const content = this.#take();
    return typeof content === "string" ? new Uint8Array(native.encode(content)) : new Uint8Array(content);
  }
  async arrayBuffer() {
    return (await this.bytes()).buffer;
  }
}

const METHODS = /^(delete|get|head|options|post|put)$/i;

function toMethod(method) {
  if (!matches(/^[!#$%&'*+\-.^_`|~0-9a-z]+$/i, method)) throw new TypeError(`${inspect(method)} is not a method of HTTP`);
  if (matches(/^(connect|trace|track)$/i, method)) throw new TypeError(`the method ${method} cannot be used`);
  return matches(METHODS, method) ? upper(method) : method;
}

class Request extends Body {
  #url;
  #method;
  #headers;
  #signal;
  constructor(input, init = {}) {
    const from = input instanceof Request ? input : null;
    const url = from ? from.url : parseUrl(input);
    const headers = new Headers(init.headers ?? from?.headers);
    const method = init.method === undefined ? (from?.method ?? "GET") : toMethod(`${init.method}`);
    const content = init.body ?? (from && contentOf(from));
    if (content !== undefined && content !== null && (method === "GET" || method === "HEAD")) throw new TypeError(`a request with the method ${method} cannot have a body`);
    super(content, headers);
    this.#url = url;
    this.#method = method;
    this.#headers = headers;
    this.#signal = init.signal ?? from?.signal ?? new AbortSignal();
  }
  get url() {
    return this.#url;
  }
  get method() {
    return this.#method;
  }
  get headers() {
    return this.#headers;
  }
  get signal() {
    return this.#signal;
  }
  clone() {
    if (this.bodyUsed) throw new TypeError("the body was read before");
    return new Request(this);
  }
}

class Response extends Body {
  #status;
  #statusText;
  #headers;
  #url = "";
  static #answer(url, { status, headers, bytes }) {
    // The status of a host's answer may be any number.
    const response = new Response(bytes, { headers });
    response.#status = status;
    response.#url = url;
    return response;
  }
  static {
    answer = Response.#answer;
  }
  constructor(body, init = {}) {
    const status = init.status ?? 200;
    if (status !== (status | 0) || status < 200 || status > 599) throw new RangeError(`Response: the status must be an integer from 200 to 599`);
    const headers = new Headers(init.headers);
    super(body, headers);
    this.#status = status;
    this.#statusText = `${init.statusText ?? ""}`;
    this.#headers = headers;
  }
  get status() {
    return this.#status;
  }
  get statusText() {
    return this.#statusText;
  }
  get ok() {
    return this.#status >= 200 && this.#status < 300;
  }
  get headers() {
    return this.#headers;
  }
  get url() {
    return this.#url;
  }
  get redirected() {
    return false;
  }
  get type() {
    return "default";
  }
  clone() {
    if (this.bodyUsed) throw new TypeError("the body was read before");
    const copy = new Response(contentOf(this), this);
    copy.#url = this.#url;
    return copy;
  }
  static json(value, init = {}) {
    const headers = new Headers(init.headers);
    if (!headers.has("content-type")) headers.set("content-type", "application/json");
    const text = stringify(value);
    if (text === undefined) throw new TypeError("Response.json: JSON does not have such a value");
    return new Response(text, { ...init, headers });
  }
}

async function fetch(input, init) {
  const request = new Request(input, init);
  request.signal.throwIfAborted();
  if (request.bodyUsed || (input instanceof Request && input.bodyUsed)) throw new TypeError("the body was read before");
  const { protocol } = new URL(request.url);
  if (protocol !== "http:" && protocol !== "https:") throw new TypeError(`fetch: ${protocol} is neither http: nor https:`);
  const headers = {};
  for (const [name, value] of request.headers) headers[name] = value;
  return answer(request.url, send(native.urlSet(request.url, HASH, ""), request.method, headers, contentOf(request) ?? undefined));
}

define("Headers", Headers);
define("Request", Request);
define("Response", Response);
define("fetch", fetch);

