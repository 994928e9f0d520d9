"""The kit inside of scripts: host functions, blocks, config, vars, HTTP, the log, text as bytes."""

from __future__ import annotations

import logging
from typing import Any

import pytest

import plugwasm
from plugwasm import GuestError, OptionError, Plugin, ScriptError, ValType, host_fn, script
from plugwasm._script.host_imports import HostImport, read_declarations
from tests.support.http_server import Server, reply
from tests.support.scripts import make_plugin


@host_fn()
def greet(name: str) -> str:
    return f"Hello, {name}!"


@host_fn(namespace="my:math", name="add", signature=([ValType.F64, ValType.I32], [ValType.F32]))
def add(plugin: Any, inputs: Any, outputs: Any) -> None:
    outputs[0] = plugwasm.Val(ValType.F32, inputs[0].value + inputs[1].value)


@host_fn(signature=([ValType.I64], [ValType.I64]))
def same(plugin: Any, inputs: Any, outputs: Any) -> None:
    outputs[0] = inputs[0]


@host_fn(signature=([], []))
def fail(plugin: Any, inputs: Any, outputs: Any) -> None:
    raise KeyError("broken")


CALLS = """
export const hello = (name) => {
  const block = Memory.fromString(name);
  const answer = Memory.find(Host.getFunctions().greet(block.offset));
  const text = answer.readString();
  answer.free();
  return [text, block.len, answer.offset];
};
export const sum = ([a, b]) => Host.getFunctions("my:math").add(a, b);
export const big = (text) => typeof Host.getFunctions().same(BigInt(text)) + Host.getFunctions().same(BigInt(text));
big.input = "text";
export const names = () => Object.keys(Host.getFunctions());
export const broken = () => Host.getFunctions().fail();
"""


def test_host_functions_of_all_types() -> None:
    """A script calls the host functions that it was given, with numbers, blocks and namespaces."""
    with make_plugin(CALLS, functions=[greet, add, same, fail]) as plugin:
        assert plugin.call("hello", '"Ada"', returns=list) == ["Hello, Ada!", 3, 0]
        assert plugin.call("sum", [1.25, 2], returns=float) == 3.25
        assert plugin.call("names", returns=list) == ["greet", "same", "fail"]
        for text, kind in [("5", "number"), ("-1", "number"), ("9007199254740993", "bigint")]:
            assert plugin.call("big", text, returns=str) == kind + text
        with pytest.raises(plugwasm.HostFunctionError, match="broken"):
            plugin.call("broken")
        assert plugin.call("hello", '"Ada"', returns=list)[0] == "Hello, Ada!"


def test_registered_functions_are_not_given(own_registry: None) -> None:
    """A script gets what it is passed, and not what is registered in the process."""
    with make_plugin(CALLS) as plugin:
        assert plugin.call("names", returns=list) == []
        with pytest.raises(GuestError, match="not a function"):
            plugin.call("broken")


def test_host_function_while_loading() -> None:
    """A script cannot call a host function while it is loaded."""
    with pytest.raises(
        ScriptError, match="a host function cannot be used while the script is loaded"
    ):
        script("javascript", "Host.getFunctions().greet(0);", functions=[greet])


def test_functions_that_scripts_cannot_call() -> None:
    """A host function of too many parameters or results is refused where it is passed."""
    many = host_fn(name="many", signature=([ValType.I32] * 17, []))(lambda *_: None)
    two = host_fn(name="two", signature=([], [ValType.I32, ValType.I32]))(lambda *_: None)
    for function in (many, two):
        with pytest.raises(OptionError, match=f"`{function.name}`"):
            script("javascript", CALLS, functions=[function])


def test_arguments_that_are_no_numbers() -> None:
    """Arguments are converted as the language does, or are errors of the script."""
    source = "export const f = (x) => Host.getFunctions().same(x);"
    with make_plugin(source, functions=[same]) as plugin:
        assert plugin.call("f", "12", returns=int) == 12
        assert plugin.call("f", True, returns=int) == 1
        assert plugin.call("f", {}, returns=int) == 0
    with (
        make_plugin(
            "export const f = () => Host.getFunctions().same(Symbol());", functions=[same]
        ) as plugin,
        pytest.raises(GuestError, match="TypeError"),
    ):
        plugin.call("f")


def test_config_and_vars() -> None:
    """Config and vars are those of the plugin; what is not there is null."""
    source = """
        export const config = (key) => [Config.get(key), Config.get("none")];
        export const swap = (value) => {
          const before = Var.get("v");
          if (value === null) Var.delete("v");
          else Var.set("v", value);
          return [before, Var.getString("v"), Var.getBytes("v")?.byteLength ?? null];
        };
    """
    with make_plugin(source, config={"key": "aé😀"}) as plugin:
        assert plugin.call("config", '"key"', returns=list) == ["aé😀", None]
        assert plugin.call("swap", '"é"', returns=list) == [None, "é", 2]
        assert plugin.vars["v"] == "é".encode()
        assert plugin.call("swap", "null", returns=list) == ["é", None, None]


def test_http_requests() -> None:
    """A script sends requests to hosts that are allowed, with headers and a body."""
    source = """
        export const f = (url) => {
          const answer = Http.request({ url, method: "POST", headers: { "X-Test": "é".length } }, new Uint8Array([65, 66]));
          return [answer.status, answer.body, answer.bytes().byteLength];
        };
        f.input = "text";
    """
    with (
        Server({"/": reply("héllo".encode())}) as server,
        make_plugin(source, allowed_hosts=["127.0.0.1"]) as plugin,
    ):
        assert plugin.call("f", f"{server.url}/", returns=list) == [200, "héllo", 6]
        (request,) = server.requests
        assert (request.method, request.body) == ("POST", b"AB")
        assert request.headers["x-test"] == "1"


def test_log_lines(caplog: pytest.LogCaptureFixture) -> None:
    """`console` writes to the plugin's log, values as a reader wants them."""
    source = """
        export function f() {
          console.log("a", 1, { b: [2] }, null, undefined, 3n, f);
          console.warn(new TypeError("no"));
          console.error("é");
        }
    """
    with caplog.at_level(logging.INFO), make_plugin(source, name="rules.js") as plugin:
        plugin.call("f")
    lines = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert lines[0] == ("INFO", "a 1 { b: [ 2 ] } null undefined 3n [Function: f]")
    assert lines[1][0] == "WARNING"
    assert lines[1][1].startswith("TypeError: no")
    assert lines[2] == ("ERROR", "é")


def test_texts_as_bytes() -> None:
    """TextEncoder and TextDecoder do UTF-8, and refuse what they do not."""
    source = """
        export const f = () => {
          const bytes = new TextEncoder().encode("aé😀\\ud800");
          const text = new TextDecoder().decode(bytes);
          const marked = new Uint8Array([0xef, 0xbb, 0xbf, 65]);
          const failures = [];
          for (const attempt of [
            () => new TextDecoder("utf-8", { fatal: true }).decode(new Uint8Array([0xff])),
            () => new TextDecoder("latin1"),
            () => new TextDecoder().decode("text", { stream: true }),
            () => crypto.getRandomValues(new Float64Array(1)),
          ]) try { failures.push(attempt()); } catch (error) { failures.push(error.name); }
          const into = new Uint8Array(4);
          const done = new TextEncoder().encodeInto("aé😀", into);
          return [[...bytes], text, new TextDecoder().decode(marked), new TextDecoder("utf8", { ignoreBOM: true }).decode(marked).length, failures, done];
        };
    """
    with make_plugin(source) as plugin:
        assert plugin.call("f", returns=list) == [
            [97, 195, 169, 240, 159, 152, 128, 239, 191, 189],
            "aé😀\ufffd",
            "A",
            2,
            ["TypeError", "RangeError", "TypeError", "TypeError"],
            {"read": 2, "written": 3},
        ]


def test_style_of_official_kit() -> None:
    """A function that uses the kit's input or output returns its code, and nothing else."""
    source = """
        export function greet() { Host.outputString(`Hello, ${Host.inputString()}!`); return 0; }
        export function silent() { Host.inputBytes(); return 0; }
        export function coded() { Host.outputString("x"); return 5; }
        export function failed() { Host.fail("exactly this", -3); }
        module.exports = { greet, silent, coded, failed };
    """.replace("export function", "function")
    with make_plugin(source) as plugin:
        assert plugin.call("greet", "Ada") == b"Hello, Ada!"
        assert plugin.call("silent", "Ada") == b""
        with pytest.raises(GuestError) as caught:
            plugin.call("coded")
        assert caught.value.code == 5
        with pytest.raises(GuestError) as caught:
            plugin.call("failed")
        assert (caught.value.code, caught.value.guest_message) == (-3, "exactly this")


def test_wrong_arguments_of_the_kit() -> None:
    """What the kit cannot take is a TypeError that says which argument and what it was."""
    for call, words in {
        "Host.outputString(5)": "Host.outputString: the argument must be text, not number",
        "Host.outputBytes({})": "Host.outputBytes: the argument must be text, an ArrayBuffer",
        "Config.get()": "Config.get: the key must be text, not undefined",
        "Var.set('a', null)": "Var.set: the value must be text",
        "Http.request('http://x')": "Http.request: the request must be an object",
        "Host.fail('x', 0)": "the code must be an integer other than 0",
    }.items():
        plugin = make_plugin(f"export const f = () => {call};")
        with plugin, pytest.raises(GuestError, match=words):
            plugin.call("f")


DECLARED = """
// The exports, which are not imports.
declare module "main" { export function greet(): I32; }
declare module 'extism:host' {
  interface user {
    a(x: I64, y: F32): F64; /* with a comment { */
    b(): void
    $c(x: PTR): PTR;
  }
}
declare module "my:own" {
  export function d(): I32;
  function a(n: i32): void;
}
"""


def test_declarations_are_read() -> None:
    """Declarations of the official kit's form are imports, with their types."""
    user = "extism:host/user"
    assert read_declarations(DECLARED, "x.d.ts") == (
        HostImport(user, "a", ("i64", "f32"), ("f64",)),
        HostImport(user, "b", (), ()),
        HostImport(user, "$c", ("i64",), ("i64",)),
        HostImport("my:own", "d", (), ("i32",)),
        HostImport("my:own", "a", ("i32",), ()),
    )


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('declare module "extism:host" {\n', 1, "not closed"),
        ('declare module "extism:host" {\n type X = I32;\n}', 2, "expected `interface user"),
        (
            'declare module "extism:host" {\n interface user {\n  f: I32;\n }\n}',
            3,
            "expected `name",
        ),
        (
            'declare module "extism:host" {\n interface user { f(x: string): I32; }\n}',
            2,
            "not `string`",
        ),
        (
            'declare module "extism:host" {\n interface user { f(x): I32; }\n}',
            2,
            "expected `name: type`",
        ),
        ('declare module "extism:host" { interface user { f(): boolean; } }', 1, "not `boolean`"),
        ('declare module "a" {\n\n const x: I32;\n}', 3, "expected `function name"),
        (
            f'declare module "a" {{ function f({", ".join(["x: I32"] * 17)}): void; }}',
            1,
            "more than 16",
        ),
    ],
)
def test_declarations_that_are_wrong(text: str, line: int, words: str) -> None:
    """A declaration that is not understood is an error with its line, and never left out."""
    with pytest.raises(ScriptError, match=words) as caught:
        read_declarations(text, "x.d.ts")
    assert caught.value.line == line
    assert caught.value.message.startswith(f"x.d.ts:{line}:")


def test_reading_declarations_takes_no_time() -> None:
    """Long text that is no declaration is read in linear time."""
    for text in (
        "{" * 50_000,
        "declare module " * 20_000,
        "/*" * 50_000,
        'declare module "a" {' + " " * 50_000,
    ):
        try:
            read_declarations(text, "x.d.ts")
        except ScriptError:
            pass
    assert Plugin(script("javascript", "export const f = () => 1;")).call("f") == b"1"
