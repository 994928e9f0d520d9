export function greet(name: string): string {
  if (!name) Host.fail("no name was given", 2);
  return `${Config.get("greeting") ?? "Hello"}, ${name}!`;
}
greet.input = "text";
