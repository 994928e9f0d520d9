// Timers, and signals to abort. A timer runs while a call waits for a promise, in the order of time:
// the engine sleeps until the next one. What is left when the call ends is dropped.
const insert = uncurry(Array.prototype.splice);
const shift = uncurry(Array.prototype.shift);
const timersById = new Map();
let timers = []; // in the order of time
let lastTimer = 0;
let reached = 0; // the time of the last timer that ran: a clock may stand still

function now() {
  const time = native.clock();
  return time > reached ? time : reached;
}

function schedule(timer) {
  timer.time = now() + timer.delay;
  let at = timers.length;
  while (at > 0 && timers[at - 1].time > timer.time) at--;
  insert(timers, at, 0, timer);
}

function addTimer(what, repeats, callback, delay, values) {
  native.noteTimer(what);
  if (typeof callback !== "function") throw new TypeError(`${what}: the callback must be a function, not ${typeof callback}`);
  delay |= 0;
  const timer = { id: ++lastTimer, callback, values, repeats, delay: delay > 0 ? delay : 0, time: 0 };
  timersById.set(timer.id, timer);
  schedule(timer);
  return timer.id;
}

// Runs the next timer, and returns whether there was one.
function runTimer() {
  let timer;
  do {
    if (timers.length === 0) return false;
    timer = shift(timers);
  } while (!timersById.has(timer.id));
  const left = timer.time - now();
  if (left > 0) native.sleep(left);
  reached = timer.time;
  if (timer.repeats) schedule(timer);
  else timersById.delete(timer.id);
  timer.callback(...timer.values);
  return true;
}

function dropTimers() {
  timers = [];
  timersById.clear();
  reached = 0;
}

function clearTimeout(id) {
  timersById.delete(id);
}

define("setTimeout", (callback, delay, ...values) => addTimer("setTimeout", false, callback, delay, values));
define("setInterval", (callback, delay, ...values) => addTimer("setInterval", true, callback, delay, values));
define("clearTimeout", clearTimeout);
define("clearInterval", clearTimeout);

let abort;

class AbortSignal {
  #aborted = false;
  #reason;
  #listeners = new Set();
  onabort = null;
  static {
    abort = (signal, reason = new DOMException("the operation was aborted", "AbortError")) => {
      if (signal.#aborted) return;
      signal.#aborted = true;
      signal.#reason = reason;
      const event = { type: "abort", target: signal };
      signal.onabort?.(event);
      for (const listener of [...signal.#listeners]) (listener.handleEvent ?? listener).call(signal, event);
    };
  }
  get aborted() {
    return this.#aborted;
  }
  get reason() {
    return this.#reason;
  }
  throwIfAborted() {
    if (this.#aborted) throw this.#reason;
  }
  addEventListener(type, listener) {
    if (type === "abort" && !this.#aborted) this.#listeners.add(listener);
  }
  removeEventListener(type, listener) {
    if (type === "abort") this.#listeners.delete(listener);
  }
  static abort(reason) {
    const signal = new AbortSignal();
    abort(signal, reason);
    return signal;
  }
  static timeout(delay) {
    const signal = new AbortSignal();
    addTimer("AbortSignal.timeout", false, () => abort(signal, new DOMException("the time is up", "TimeoutError")), delay, []);
    return signal;
  }
}

class AbortController {
  #signal = new AbortSignal();
  get signal() {
    return this.#signal;
  }
  abort(reason) {
    abort(this.#signal, reason);
  }
}

define("AbortSignal", AbortSignal);
define("AbortController", AbortController);

