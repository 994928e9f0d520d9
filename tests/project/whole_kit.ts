// Uses what the kit declares, in the types that it declares; `whole` writes what those types are
// when it runs. `tests/project/test_typescript.py` checks and runs it.
import type { Named } from "./names";
import { type Other, nameOf } from "./names";
import words from "./words.json";

enum Kind {
  Small = 1,
  Large = "large",
}
const enum Flag {
  On = 1 << 2,
}

function logged<T extends (...values: any[]) => any>(method: T, context: ClassMethodDecoratorContext) {
  return function (this: unknown, ...values: any[]): ReturnType<T> {
    console.debug(String(context.name));
    return method.apply(this, values);
  };
}

abstract class Shape {
  constructor(protected readonly side: number) {}
  abstract area(): number;
}

class Square extends Shape implements Named {
  #name = "square";
  @logged area(): number {
    return this.side ** 2;
  }
  get name(): string {
    return this.#name;
  }
}

export default function language(input: { side: number }): object {
  const other: Other = nameOf(new Square(input.side));
  return [Kind.Large, Kind.Small, Flag.On, new Square(input.side).area(), other, words.hello];
}

export async function whole(): Promise<void> {
  const text: string = Host.inputString();
  const bytes: ArrayBuffer = Host.inputBytes();
  const base64: string = Host.arrayBufferToBase64(Host.base64ToArrayBuffer("aGk="));
  const config: string | null = Config.get("key");
  const none: string | null = Config.get("none");
  Var.set("text", "a");
  Var.set("bytes", new Uint8Array([104, 105]));
  const variable: string | null = Var.getString("text");
  const raw: ArrayBuffer | null = Var.getBytes("bytes");
  Var.delete("text");
  const block: MemoryHandle = Memory.fromJsonObject({ a: 1 });
  const value = Memory.find(block.offset).readJsonObject<{ a: number }>();
  const length: I64 = block.len;
  const large: bigint = Memory.allocUInt64(2n ** 63n).readUInt64();
  const float: number = Memory.allocFloat32(0.5).readFloat32() + Memory.allocFloat64(0.5).readFloat64();
  block.free();
  const { twice } = Host.getFunctions();
  const doubled: number = twice(21);
  const counted: unknown = Host.getFunctions("the:namespace").count?.(1);
  const response: HttpResponse = Http.request({ url: "https://a.test/1", headers: { a: 1 } }, null);
  const status: number = response.status + response.bytes().byteLength + response.body.length;
  const request = new Request("https://a.test/2", { method: "POST", body: new URLSearchParams({ q: "1" }) });
  const answer: Response = await fetch(request, { signal: new AbortController().signal });
  const json: { b: number } = await answer.json();
  const headers: Headers = new Headers([["a", "b"]]);
  const url: URL = new URL("../c?d=1#e", "https://a.test/b/");
  const query: string[] = url.searchParams.getAll("d");
  const parsed: URL | null = URL.parse("no");
  const encoded: Uint8Array = new TextEncoder().encode("ä");
  const decoded: string = new TextDecoder("utf-8", { fatal: true }).decode(encoded);
  const random: Uint8Array = crypto.getRandomValues(new Uint8Array(2));
  const clone: Map<string, number> = structuredClone(new Map([["a", 1]]));
  const waited: number = await new Promise<number>((done) => {
    const timer: number = setTimeout((n: number) => done(n), 1, 7);
    clearTimeout(timer + 1000);
  });
  queueMicrotask(() => console.info("soon", performance.now() >= 0, atob(btoa("x"))));
  const types: Record<string, string> = Object.fromEntries(
    Object.entries({
      text, bytes, base64, config, none, variable, raw, value, length, large, float, doubled, counted,
      status, answer, json, headers, url, query, parsed, encoded, decoded, random, clone, waited,
    }).map(([name, one]) => [name, one === null ? "null" : one?.constructor.name ?? "undefined"]),
  );
  const written: boolean = Host.outputString(JSON.stringify(types));
  if (!written) Host.fail("nothing was written", 2);
}
