/// <reference path="../pdk/plugwasm.d.ts" />

export function greet(name) {
  if (!name) Host.fail("no name was given", 2);
  return `${Config.get("greeting") ?? "Hello"}, ${name}!`;
}
greet.input = "text";
