// The plugin of the round-trip tests in AssemblyScript.

import { Box, Circle, Everything, Expression, Fruit, Scores, Shape, Tree, fail, host } from "./bindings";

export function echoEverything(input: Everything): Everything {
  return input;
}

export function echoShape(input: Shape): Shape {
  if (input.value instanceof Circle) {
    const circle = new Circle();
    circle.radius = (input.value as Circle).radius;
    return new Shape(circle);
  }
  return input;
}

export function echoTree(input: Tree): Tree {
  return input;
}

export function echoExpression(input: Expression): Expression {
  return input;
}

export function echoText(input: string): string {
  return input;
}

export function echoBytes(input: ArrayBuffer): ArrayBuffer {
  return input;
}

export function echoJsonText(input: string): string {
  return input;
}

export function echoJsonBytes(input: Uint8Array): Uint8Array {
  return input;
}

export function echoList(input: Array<Fruit>): Array<Fruit> {
  return input;
}

export function echoMap(input: Scores): Scores {
  return input;
}

export function fruitToJson(input: Fruit): Fruit {
  return input;
}

export function fruitToText(input: Fruit): Fruit {
  return input;
}

export function negate(input: bool): bool {
  return !input;
}

export function double(input: i32): i64 {
  return <i64>input * 2;
}

export function maybe(input: Box<f64> | null): Box<f64> | null {
  return input;
}

export function nothing(): void {
  host.ping();
}

export function callHost(input: Everything): Everything {
  return host.visit(input);
}

export function callHostText(input: string): string {
  return host.translate(input);
}

export function callHostFruit(input: Fruit): bool {
  return host.eatFruit(input);
}

export function callHostBytes(input: ArrayBuffer): ArrayBuffer {
  return host.mixBytes(input);
}

export function callHostNumber(input: i64): i64 {
  return host.addOne(input);
}

export function fail_(input: string): void {
  fail("failed: " + input, 7);
}
