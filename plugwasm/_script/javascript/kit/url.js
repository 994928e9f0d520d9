// URLs and queries. A URL is its text: each part is read from it, or replaced in it, by the engine.
const PARTS = ["protocol", "username", "password", "host", "hostname", "port", "pathname", "search", "hash"];
const SEARCH = 7;
const HASH = 8;
const ORIGIN = 9;

function parseUrl(text, base) {
  const href = native.urlParse(`${text}`, base === undefined ? undefined : `${base}`);
  if (href === null) throw new TypeError(`Invalid URL: ${cut(`${text}`, 200)}${base === undefined ? "" : `, with the base ${cut(`${base}`, 200)}`}`);
  return href;
}

let readSearch, watch; // of a URLSearchParams

class URL {
  #href;
  #query = null;
  static {
    for (let i = 0; i < PARTS.length; i++) {
      defineProperty(this.prototype, PARTS[i], {
        get() {
          return native.urlPart(this.#href, i);
        },
        set(value) {
          this.#href = native.urlSet(this.#href, i, `${value}`);
          if (i === SEARCH) this.#reread();
        },
        enumerable: true,
        configurable: true,
      });
    }
  }
  constructor(url, base) {
    this.#href = parseUrl(url, base);
  }
  #reread() {
    if (this.#query !== null) readSearch(this.#query, this.search);
  }
  get href() {
    return this.#href;
  }
  set href(value) {
    this.#href = parseUrl(value);
    this.#reread();
  }
  get origin() {
    return native.urlPart(this.#href, ORIGIN);
  }
  get searchParams() {
    if (this.#query === null) {
      this.#query = new URLSearchParams(this.search);
      watch(this.#query, (text) => {
        this.#href = native.urlSet(this.#href, SEARCH, text);
      });
    }
    return this.#query;
  }
  toString() {
    return this.#href;
  }
  toJSON() {
    return this.#href;
  }
  static canParse(url, base) {
    return native.urlParse(`${url}`, base === undefined ? undefined : `${base}`) !== null;
  }
  static parse(url, base) {
    return URL.canParse(url, base) ? new URL(url, base) : null;
  }
}

class URLSearchParams {
  #pairs = []; // names and values, one after the other
  #changed = null;
  static {
    readSearch = (query, text) => {
      query.#pairs = native.queryParse(text[0] === "?" ? slice(text, 1) : text);
    };
    watch = (query, changed) => {
      query.#changed = changed;
    };
  }
  constructor(init = "") {
    if (typeof init !== "object" || init === null) {
      readSearch(this, `${init}`);
    } else if (typeof init[Symbol.iterator] === "function") {
      for (const pair of init) {
        const [name, value, ...more] = pair;
        if (value === undefined || more.length) throw new TypeError("URLSearchParams: expected pairs of a name and a value");
        push(this.#pairs, `${name}`, `${value}`);
      }
    } else {
      for (const name of keys(init)) push(this.#pairs, name, `${init[name]}`);
    }
  }
  // The number of the first pair from `from` on with this name, and with this value if one is given.
  #find(name, value, from = 0) {
    for (let i = from; i < this.#pairs.length; i += 2) if (this.#pairs[i] === name && (value === undefined || this.#pairs[i + 1] === value)) return i;
    return -1;
  }
  #update() {
    if (this.#changed !== null) this.#changed(this.toString());
  }
  get size() {
    return this.#pairs.length / 2;
  }
  append(name, value) {
    push(this.#pairs, `${name}`, `${value}`);
    this.#update();
  }
  delete(name, value) {
    this.#remove(`${name}`, value === undefined ? undefined : `${value}`, 0);
    this.#update();
  }
  #remove(name, value, from) {
    for (let i = from; (i = this.#find(name, value, i)) >= 0; ) insert(this.#pairs, i, 2);
  }
  get(name) {
    const i = this.#find(`${name}`);
    return i < 0 ? null : this.#pairs[i + 1];
  }
  getAll(name) {
    const found = [];
    for (let i = -2; (i = this.#find(`${name}`, undefined, i + 2)) >= 0; ) push(found, this.#pairs[i + 1]);
    return found;
  }
  has(name, value) {
    return this.#find(`${name}`, value === undefined ? undefined : `${value}`) >= 0;
  }
  set(name, value) {
    const i = this.#find(`${name}`);
    if (i < 0) {
      push(this.#pairs, `${name}`, `${value}`);
    } else {
      this.#pairs[i + 1] = `${value}`;
      this.#remove(`${name}`, undefined, i + 2);
    }
    this.#update();
  }
  sort() {
    const pairs = [...this].sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
    this.#pairs = pairs.flat();
    this.#update();
  }
  forEach(callback, receiver) {
    for (const [name, value] of this) callback.call(receiver, value, name, this);
  }
  *entries() {
    for (let i = 0; i < this.#pairs.length; i += 2) yield [this.#pairs[i], this.#pairs[i + 1]];
  }
  *keys() {
    for (let i = 0; i < this.#pairs.length; i += 2) yield this.#pairs[i];
  }
  *values() {
    for (let i = 0; i < this.#pairs.length; i += 2) yield this.#pairs[i + 1];
  }
  [Symbol.iterator]() {
    return this.entries();
  }
  toString() {
    return native.queryText(this.#pairs);
  }
}

define("URL", URL);
define("URLSearchParams", URLSearchParams);

