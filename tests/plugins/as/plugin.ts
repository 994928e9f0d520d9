// A plugin written the way the official AssemblyScript PDK wants it, to test the host with code that is not ours: how strings,
// memory, config and vars reach the contract here is the PDK's business. Where the PDK has no wrapper (errors, HTTP), its raw
// imports are used.

import { Config, Host, LogLevel, Memory, Var } from "@extism/as-pdk";
import { error_set, http_request, length } from "@extism/as-pdk/lib/env";

@external("extism:host/user", "greet")
declare function user_greet(name: u64): u64;

@external("extism:host/env", "http_status_code")
declare function http_status_code(): i32;

function myAbort(message: string | null, fileName: string | null, line: u32, column: u32): void {
  unreachable();
}

function fail(message: string): i32 {
  error_set(Memory.allocateString(message).offset);
  return 1;
}

// Host.outputString measures UTF-16 code units, so what may not be ASCII goes out as bytes.
function output(text: string): i32 {
  Host.output(Uint8Array.wrap(String.UTF8.encode(text)));
  return 0;
}

// Config and vars: {"count":3,"total":3,"vowels":"aeiouAEIOU"}. The var holds the total as decimal text.
export function count_vowels(): i32 {
  const configured = Config.get("vowels");
  const vowels = configured === null ? "aeiouAEIOU" : configured;
  const text = Host.inputString();
  let count = 0;
  for (let i = 0; i < text.length; i++) {
    if (vowels.includes(text.charAt(i))) count++;
  }
  const before = Var.getString("total");
  const total = count + (before === null ? 0 : I32.parseInt(before));
  Var.set("total", Uint8Array.wrap(String.UTF8.encode(total.toString())));
  return output('{"count":' + count.toString() + ',"total":' + total.toString() + ',"vowels":"' + vowels + '"}');
}

// Forgets the total.
export function forget(): i32 {
  Var.remove("total");
  return 0;
}

export function echo(): i32 {
  Host.output(Host.input());
  return 0;
}

// A host function of the application.
export function greet(): i32 {
  const greeting = user_greet(Memory.allocateString(Host.inputString()).offset);
  Host.outputMemory(new Memory(greeting, length(greeting)));
  return 0;
}

// Input: a URL. Output: the body.
export function http_get(): i32 {
  const request = Memory.allocateString('{"method":"GET","url":"' + Host.inputString() + '"}');
  const body = http_request(request.offset, 0);
  const status = http_status_code();
  if (status != 200) return fail("expected status 200, got " + status.toString());
  if (body != 0) Host.outputMemory(new Memory(body, length(body)));
  return 0;
}

// The input as the error message.
export function error(): i32 {
  return fail(Host.inputString());
}

// An error of the language: it aborts, and the host sees a trap.
export function throws(): i32 {
  throw new Error(Host.inputString());
}

export function log(): i32 {
  const text = Host.inputString();
  Host.log(LogLevel.Debug, text);
  Host.log(LogLevel.Info, text);
  Host.log(LogLevel.Warn, text);
  Host.log(LogLevel.Error, text);
  return 0;
}
