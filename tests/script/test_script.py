"""Scripts as plugins: what they export, what they get and return, and their errors."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

import plugwasm
from plugwasm import CompiledPlugin, GuestError, Limits, OptionError, Plugin, ScriptError, script
from tests.support.scripts import make_plugin

ADD = "export function add({ a, b }) { return a + b; }"


def test_function_gets_and_returns_json() -> None:
    """A function gets what the application passed, and what it returns becomes JSON."""
    with make_plugin(
        "export const double = ({ list }) => ({ list: list.map((n) => n * 2) });"
    ) as p:
        assert p.call("double", {"list": [1, 2.5]}, returns=dict) == {"list": [2, 5]}


@pytest.mark.parametrize("data", ["42", "null", '{"a": 1}', "", "aé€😀", "a\0b"])
def test_text_is_never_read_as_json(data: str) -> None:
    """With `input="text"`, a function gets text, whatever it looks like."""
    with make_plugin("export const f = (text) => typeof text + text;", input="text") as plugin:
        assert plugin.call("f", data, returns=str) == "string" + data


def test_function_says_what_it_gets() -> None:
    """The property `input` of a function wins over the argument."""
    source = """
        export function text(x) { return typeof x; }
        text.input = "text";
        export function bytes(x) { return x; }
        bytes.input = "bytes";
        export function value(x) { return typeof x; }
    """
    with make_plugin(source) as plugin:
        assert plugin.call("text", "42", returns=str) == "string"
        assert plugin.call("value", "42", returns=str) == "number"
        assert plugin.call("bytes", b"\xff\0\1") == b"\xff\0\1"


@pytest.mark.parametrize("data", [b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80"])
@pytest.mark.parametrize("mode", ["json", "text"])
def test_bytes_that_are_no_text(mode: str, data: bytes) -> None:
    """Input that is not UTF-8 is an error, and never changed into other text."""
    plugin = make_plugin("export const f = (x) => x;", input=mode)
    with plugin, pytest.raises(GuestError, match="TypeError: the input is not UTF-8"):
        plugin.call("f", data)


def test_input_that_is_no_json() -> None:
    """Text where JSON is expected is an error that says what to do."""
    with make_plugin(ADD) as plugin:
        with pytest.raises(GuestError, match=r"the input is not JSON: .*`name.input = "):
            plugin.call("add", "hello")
        assert plugin.call("add", {"a": 1, "b": 2}, returns=int) == 3


@pytest.mark.parametrize(
    ("returned", "output"),
    [
        ("'text'", b"text"),
        ("''", b""),
        ("undefined", b""),
        ("null", b"null"),
        ("0", b"0"),
        ("true", b"true"),
        ("[1, 'a']", b'[1,"a"]'),
        ("new Uint8Array([255, 0]).subarray(1)", b"\0"),
        ("new Uint8Array([1, 2]).buffer", b"\1\2"),
        ("new Date(0)", b'"1970-01-01T00:00:00.000Z"'),
        ("'a\\ud800b'", "a\ufffdb".encode()),
        ("Promise.resolve(1).then((n) => n + 1)", b"2"),
    ],
)
def test_outputs(returned: str, output: bytes) -> None:
    """Text and bytes are the output as they are, other values as JSON, promises when they settle."""
    with make_plugin(f"export const f = () => {returned};") as plugin:
        assert plugin.call("f") == output


@pytest.mark.parametrize("returned", ["1n", "() => 1", "Symbol('x')", "new Promise(() => {})"])
def test_results_without_encoding(returned: str) -> None:
    """What JSON does not have is an error, not an empty output."""
    plugin = make_plugin(f"export const f = () => ({returned});")
    with plugin, pytest.raises(GuestError, match="TypeError"):
        plugin.call("f")


@pytest.mark.parametrize(
    "source",
    [
        "module.exports = { f() { return 1; } };",
        "exports.f = () => 1;",
        "module.exports.f = function () { return 1; };",
        "export function f() { return 1; }",
        "const f = () => 1; export { f };",
        "await null; export const f = async () => 1;",
        "\ufeffexport const f = () => 1;",
    ],
)
def test_forms_of_exports(source: str) -> None:
    """Modules and CommonJS export functions."""
    with make_plugin(source) as plugin:
        assert plugin.call("f", returns=int) == 1


def test_exports_of_compiled_plugin() -> None:
    """The compiled plugin has the script's exports, and nothing of the engine."""
    compiled = script("javascript", "export const a = 1; export function b() {}\nexport class C {}")
    assert [item.name for item in compiled.exports] == ["b"]
    with Plugin(compiled) as plugin, pytest.raises(plugwasm.FunctionNotFoundError):
        plugin.call("load")


def test_scripts_share_their_engine() -> None:
    """The module of the engine is one object for all scripts."""
    one, other = script("javascript", ADD), script("javascript", "export const f = () => 1;")
    assert one._plan.units[0].module is other._plan.units[0].module
    assert len(one._spec.modules[1].wasm) < 30_000


def test_scripts_from_files(tmp_path: Path) -> None:
    """A Path is a file; text is a source, also when it is the path of a file."""
    file = tmp_path / "rules.js"
    file.write_text(ADD)
    compiled = script("javascript", file)
    assert compiled.name == "rules.js"
    with Plugin(compiled) as plugin:
        assert plugin.call("add", {"a": 1, "b": 2}, returns=int) == 3
    with pytest.raises(ScriptError, match="a file is a `Path`"):
        script("javascript", str(file))
    with pytest.raises(ScriptError, match=r"rules is not defined$"):
        script("javascript", "rules")
    with pytest.raises(plugwasm.SourceError, match=r"no such file: .*missing\.js"):
        script("javascript", tmp_path / "missing.js")


def test_script_can_be_loaded_twice() -> None:
    """The same script gives the same module, so nothing in it depends on the time or on chance."""
    source = (
        "export const f = () => [started, dice]; const started = Date.now(), dice = Math.random();"
    )
    one, other = script("javascript", source), script("javascript", source)
    assert one._spec.modules[1].wasm == other._spec.modules[1].wasm


def test_state_of_instances_is_their_own() -> None:
    """Each instance starts from the state after loading; calls of one see what others left."""
    compiled = script("javascript", "let n = 10; export const f = () => ++n;")
    with Plugin(compiled) as one, Plugin(compiled) as other:
        assert [one.call("f", returns=int), one.call("f", returns=int)] == [11, 12]
        assert other.call("f", returns=int) == 11


def test_random_numbers_differ_between_instances() -> None:
    """Random numbers are those of each instance, not of the state that all start from."""
    source = "Math.random(); export const f = () => [Math.random(), ...crypto.getRandomValues(new Uint32Array(2))];"
    compiled = script("javascript", source)
    drawn = set()
    for _ in range(3):
        with Plugin(compiled) as plugin:
            drawn.add(plugin.call("f"))
    assert len(drawn) == 3


def test_script_without_clock_and_chance() -> None:
    """With `wasi=False` each instance sees the same time and the same random numbers."""
    compiled = script(
        "javascript", "export const f = () => [Date.now(), Math.random()];", wasi=False
    )
    with Plugin(compiled) as one, Plugin(compiled) as other:
        assert one.call("f") == other.call("f")
        assert json.loads(one.call("f"))[0] == 0


def test_errors_have_the_scripts_stack() -> None:
    """An exception is a GuestError with its message and the script's own frames."""
    source = "function inner() {\n  null.x;\n}\nexport function f() {\n  inner();\n}"
    with make_plugin(source, name="rules.js") as plugin:
        with pytest.raises(GuestError) as caught:
            plugin.call("f")
        assert caught.value.guest_message == (
            "TypeError: cannot read property 'x' of null\n"
            "    at inner (rules.js:2:3)\n"
            "    at f (rules.js:5:3)"
        )
        assert caught.value.code == 1
        assert "kit" not in str(caught.value)


@pytest.mark.parametrize(
    ("thrown", "message"),
    [
        ("'text'", "text"),
        ("null", "null"),
        ("Symbol('x')", "Symbol(x)"),
        ("{ a: 1 }", '{"a":1}'),
        ("new Proxy(new Error('x'), { get() { throw 1; } })", "no text"),
        ("Object.defineProperty(new Error('x'), 'stack', { get() { throw 1; } })", "no text"),
        ("Object.assign(new Error('x'), { name: 'Own', code: 7 })", "Own: x"),
    ],
)
def test_anything_can_be_thrown(thrown: str, message: str) -> None:
    """Whatever a script throws becomes a GuestError with a text, and the next call works."""
    with make_plugin(f"export function f(x) {{ if (x) throw {thrown}; return 1; }}") as plugin:
        with pytest.raises(GuestError) as caught:
            plugin.call("f", True)
        assert message in str(caught.value.guest_message)
        assert caught.value.code == (7 if "code" in thrown else 1)
        assert plugin.call("f", False, returns=int) == 1


@pytest.mark.parametrize(
    ("source", "line", "column", "words"),
    [
        ("export function f() {\n  return 1 +;\n}", 2, 13, "is not valid JavaScript: SyntaxError"),
        ("module.exports = {\n a: }", 2, 5, "is not valid JavaScript: SyntaxError"),
        ("function g() {\n null.x;\n}\ng();", 2, 2, "failed while it was loaded: TypeError"),
        ("throw 'x'", None, None, "failed while it was loaded: x"),
        ("import x from './y.js';", None, None, "cannot import"),
        ("const fs = require('fs');", 1, None, "cannot require 'fs'"),
        ("const a = 1;", None, None, "exports no function"),
        ("", None, None, "exports no function"),
        ("export const a = 1;", None, None, "exports no function"),
        ("export function _start() {}", None, None, "exports `_start`"),
        ("module.exports = { _initialize() {} };", None, None, "exports `_initialize`"),
        (
            "Host.inputString(); export function f() {}",
            1,
            5,
            "cannot be used while the script is loaded",
        ),
        (
            "export const secret = Config.get('key');",
            1,
            None,
            "cannot be used while the script is loaded",
        ),
        ("export function f() {}\nf.input = 'xml';", None, None, "f.input must be"),
    ],
)
def test_scripts_that_are_wrong(source: str, line: int, column: int, words: str) -> None:
    """A script that cannot be a plugin is an error that says where and why."""
    with pytest.raises(ScriptError, match=words) as caught:
        script("javascript", source, name="wrong.js")
    error = caught.value
    assert (error.file, error.line) == ("wrong.js", line)
    assert column is None or error.column == column
    assert "wrong.js" in error.message
    assert pickle.loads(pickle.dumps(error)).line == line


def test_source_that_is_not_utf8() -> None:
    """A source that is not UTF-8, or too long, is an error that says where."""
    with pytest.raises(ScriptError, match=r"script\.js:2: the script is not UTF-8, at offset 3"):
        script("javascript", b"a;\n\xff")
    with pytest.raises(ScriptError, match="that UTF-8 has not"):
        script("javascript", "'\ud800'")
    with pytest.raises(ScriptError, match=r"more than 1000 bytes \(`Limits.module_bytes`\)"):
        script("javascript", " " * 1001, limits=Limits(module_bytes=1000))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"language": "ruby"}, 'language: expected "javascript" or "typescript" or "python", got'),
        ({"source": 5}, "source: expected the text of a script or a Path, got int"),
        ({"input": "xml"}, 'input: expected "json" or "text" or "bytes"'),
        ({"allowed_hosts": "example.com"}, "allowed_hosts: expected a list"),
        ({"config": {"a": 1}}, "config"),
        ({"wasi": 5}, "wasi"),
    ],
)
def test_invalid_options(options: dict[str, Any], words: str) -> None:
    """Options of the wrong type are errors that name them."""
    with pytest.raises(OptionError, match=words):
        script(**({"language": "javascript", "source": ADD} | options))


def test_large_script() -> None:
    """A script of a megabyte is loaded; its data adds pages to the engine's memory."""
    words = ",".join(f"'word{i}'" for i in range(100_000))
    with make_plugin(f"const words = [{words}]; export const f = () => words.length;") as plugin:
        assert plugin.call("f", returns=int) == 100_000


def test_script_in_pool_and_fresh_instances() -> None:
    """Scripts run in pools, and with a fresh instance for each call."""
    compiled: CompiledPlugin = script("javascript", "let n = 0; export const f = () => ++n;")
    with plugwasm.PluginPool(compiled, size=2) as pool:
        assert sorted(pool.call("f", returns=int) for _ in range(3)) == [1, 2, 3]
    with Plugin(compiled, recycle=plugwasm.Recycle(calls=1)) as plugin:
        assert [plugin.call("f", returns=int) for _ in range(6)] == [1] * 6
