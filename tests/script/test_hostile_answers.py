"""What an engine says of a script is a claim: the script runs in the same memory, and can forge it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from plugwasm import (
    FunctionNotFoundError,
    GuestError,
    Limits,
    OptionError,
    ScriptError,
    SourceError,
    script,
)
from plugwasm._script import standalone
from plugwasm._script.host_imports import read_declarations
from plugwasm._script.spec import read_script_spec
from plugwasm.testing import Harness
from tests.script.hostile import LIMITS, victim_beside
from tests.support.scripts import make_plugin, make_python, need_engine

FORGED = {
    "no list": '{"exports": 5}',
    "no names": '{"exports": [5]}',
    "null": "null",
    "a list": "[]",
    "twice": '{"exports": ["f", "f"]}',
    "half a character": r'{"exports": ["\ud800"]}',
    "deep": "[" * 100_000,
    "deep where nobody looks": '{"exports": ["f"], "x": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "cut off": '{"exports": ["f"',
    "an error that is no text": '{"error": {"a": 1}}',
    "a line of many digits": '{"error": "x", "line": 1' + "0" * 10_000 + "}",
    "a type that is none": '{"exports": ["f"], "imports": [{"namespace": "a", "name": "b", "type": "zz"}]}',
    "too many parameters": '{"exports": ["f"], "imports": [{"namespace": "a", "name": "b", "type": "%s:"}]}'
    % ("i" * 17),
    "a long name": '{"exports": ["f"], "imports": [{"namespace": "a", "name": "%s", "type": ":"}]}'
    % ("b" * 2000),
    "imports that are none": '{"exports": ["f"], "imports": [1]}',
    "large": '{"exports": ["f"], "x": "' + "x" * 5_000_000 + '"}',
}
_FORGE = """
import extism
class Forged:
    def dumps(self, *a, **b): return ANSWER
    def loads(self, *a): return {}
extism.json = Forged()
def f(): pass
"""


@pytest.mark.parametrize("answer", FORGED.values(), ids=FORGED)
@pytest.mark.parametrize("builds", [False, True], ids=["loaded", "built"])
def test_a_forged_answer_is_an_error(answer: str, builds: bool) -> None:
    """Whatever a script makes the engine answer, the error says that the script did it."""
    need_engine("python")
    if '"x": [[' in answer:
        expression = f"{answer[:24]!r} + '[' * 100000 + ']' * 100000 + '}}'"
    elif len(answer) > 10**6:
        expression = f"{answer[:30]!r} + 'x' * 5000000 + {answer[-2:]!r}"
    else:
        expression = repr(answer)
    source = _FORGE.replace("ANSWER", expression)
    load = standalone.build_script if builds else script
    with pytest.raises(ScriptError, match="the script has changed the interpreter") as caught:
        load("python", source, name="forged.py", limits=Limits(timeout=10))
    assert len(caught.value.message) < 400
    assert caught.value.file == "forged.py"


def test_a_forged_answer_that_fits() -> None:
    """An export that the script's list has and the script has not is an error when it is called."""
    source = _FORGE.replace("ANSWER", repr('{"exports": ["f", "h"]}'))
    with make_python(source) as plugin:
        assert plugin.call("f") == b""
        with pytest.raises(GuestError, match="IndexError"):
            plugin.call("h")
        assert plugin.call("f") == b""


TAMPERED = {
    "toJSON of objects": "Object.prototype.toJSON = () => ({ exports: ['evil'] });",
    "toJSON of lists": "Array.prototype.toJSON = () => 5;",
    "toJSON of texts": "String.prototype.toJSON = () => 5;",
    "setters of indexes": "Object.defineProperty(Array.prototype, '0', { set() {}, get: () => 'evil' });",
    "push and length": "Array.prototype.push = () => {}; Object.prototype.length = 7;",
    "getters of descriptors": "Object.prototype.get = () => 1; Object.prototype.enumerable = false;",
    "iterators": "Array.prototype[Symbol.iterator] = function* () { yield 'evil'; };",
    "names of properties": "Object.getOwnPropertyNames = Reflect.ownKeys = () => ['evil'];",
    "frozen globals": "Object.freeze(globalThis); Object.freeze(Object.prototype);",
}


@pytest.mark.parametrize("source", TAMPERED.values(), ids=TAMPERED)
def test_tampering_changes_no_exports(source: str) -> None:
    """A script that replaces what makes the answer has the exports that it exports."""
    with victim_beside(f"{source}\nexport const f = () => 'ok';") as plugin:
        assert plugin.call("f", returns=str) == "ok"
        with pytest.raises(FunctionNotFoundError, match=r"it exports `f`$"):
            plugin.call("evil")


NAMES = {
    "half a character": (r"module.exports = { '\ud800': () => 1 };", "is not valid Unicode"),
    "a long name": (
        "module.exports = { ['x'.repeat(1e5)]: () => 1 };",
        "has more than 1000 characters",
    ),
    "many": ("for (let i = 0; i < 1001; i++) exports['f' + i] = () => 1;", "up to 1000 functions"),
    "none": ("module.exports = { f: 1, g: class {} };", "exports no function"),
    "of the host": ("exports._initialize = () => 1;", "which hosts run by themselves"),
    "null": ("module.exports = null;", "TypeError"),
    "a proxy that says two": (
        "module.exports = new Proxy({}, { ownKeys: () => ['a', 'a'] });",
        "TypeError",
    ),
    "an input from a prototype": (
        "const f = () => 1; f.input = '__proto__'; exports.f = f;",
        "must be",
    ),
    "an input that is inherited": (
        "Object.prototype.evil = 99; const f = () => 1; f.input = 'evil'; exports.f = f;",
        "must be",
    ),
}


@pytest.mark.parametrize(("source", "reason"), NAMES.values(), ids=NAMES)
def test_exports_that_cannot_be(source: str, reason: str) -> None:
    """Exports that a plugin cannot have are an error that says what is wrong."""
    with pytest.raises(ScriptError, match=reason) as caught:
        script("javascript", source, limits=LIMITS)
    assert len(caught.value.message) < 500


def test_strange_names_can_be_called() -> None:
    """Empty names, those of the host and those with any characters are called like others."""
    names = ["", "__proto__", "constructor", "memory", "call", "load", "a\0b", "\u202e", "é" * 500]
    listed = "".join(f"[{name!r}]: () => {i}, " for i, name in enumerate(names))
    with make_plugin(f"module.exports = {{ {listed} }};") as plugin:
        for i, name in enumerate(names):
            assert plugin.call(name, returns=int) == i


def test_too_many_functions_in_python() -> None:
    """A script in Python has at most as many functions as one in JavaScript."""
    need_engine("python")
    source = "\n".join(f"def f{i}(): pass" for i in range(1001))
    with pytest.raises(ScriptError, match="exports 1001 functions, and can export 1000"):
        script("python", source)


STACKS = {
    "digits without end": "    at f (script.js:" + "9" * 5000 + ":1)",
    "a line that is too large": "    at f (script.js:99999999999999:1)",
    "brackets": "    at ((((" * 50_000,
    "brackets and spaces": "    at " + " (" * 100_000,
    "colons": "    at " + ":1" * 100_000,
    "spaces": " " * 500_000 + "at",
    "frames": "    at f (other.js:1:1)\n" * 10_000,
    "another file": "    at f (/etc/script.js:1:1)",
    "digits of other alphabets": "    at f (script.js:١:٢)",
}


@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
def test_stacks_that_are_made_up(stack: str) -> None:
    """A stack that the script made up names no place, and keeps the host no longer than another."""
    source = f"const e = new TypeError('x');\ne.stack = {stack!r};\nthrow e;"
    with pytest.raises(
        ScriptError, match=r"^script\.js: the script failed .*TypeError: x$"
    ) as caught:
        script("javascript", source)
    assert (caught.value.line, caught.value.column) == (None, None)
    assert len(caught.value.stack) <= 65536


def test_errors_are_cut() -> None:
    """The text of an error of loading has a bound, in both languages."""
    need_engine("python")
    for language, source in (
        ("javascript", "throw new Error('x'.repeat(1e6));"),
        ("python", "raise ValueError('x' * 10**6)"),
    ):
        with pytest.raises(ScriptError) as caught:
            script(language, source)  # type: ignore[arg-type]
        assert len(caught.value.stack) == 65536
        assert len(caught.value.message) < 700


@pytest.mark.parametrize("language", ["javascript", "python"])
def test_data_that_loading_leaves_is_bounded(language: str) -> None:
    """A script that leaves more data than a module may have is refused, and built neither."""
    need_engine("python")
    large = {
        "javascript": "const a = new Uint8Array(3e6).fill(7); export const f = () => a.length;",
        "python": "a = bytearray(b'7' * 3000000)\ndef f(): return len(a)\n",
    }[language]
    plugin = make_plugin(large) if language == "javascript" else make_python(large)
    with plugin:
        assert plugin.call("f") == b"3000000"
    limits = Limits(module_bytes=2 * 2**20)
    with pytest.raises(ScriptError, match=r"leaves more than 2097152 bytes.*module_bytes"):
        script(language, large, limits=limits)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_plugin_of_too_much_data_is_not_built() -> None:
    """A script that leaves more than hosts take is not built."""
    source = "const a = new Uint8Array(8e7).fill(7); export const f = () => a.length;"
    with pytest.raises(ScriptError, match="leaves more than 67108864 bytes"):
        standalone.build_script("javascript", source)


@pytest.mark.parametrize(
    "name", ["\ud800.js", "a\0b.js", "\x1b[2J.js", "x" * 5000, "../../etc/passwd"]
)
def test_names_of_scripts(name: str) -> None:
    """A script may have any name; it is shown in messages, and escaped there."""
    for source in ("export const f = () => 1;", "export {", "throw new Error('x');", ""):
        try:
            script("javascript", source, name=name)
        except (ScriptError, OptionError) as error:
            assert error.message.isprintable()
            assert len(error.message) < 800


def test_a_file_whose_name_is_no_text(tmp_path: Path) -> None:
    """A script in a file whose name is not UTF-8 is loaded, however it is named."""
    path = tmp_path / os.fsdecode(b"\xff.js")
    path.write_text("export const f = () => null.x;")
    assert script("javascript", path).name
    harness = Harness(path)
    with harness, harness.plugin() as plugin, pytest.raises(GuestError, match=r"\(\\udcff\.js:1:"):
        plugin.call("f")


def test_a_file_that_never_ends(tmp_path: Path) -> None:
    """A pipe and a device in the place of a script, or beside it, are not waited for."""
    source = tmp_path / "rules.js"
    os.mkfifo(source)
    for read in (lambda: script("javascript", source), lambda: read_script_spec(source, 10_000)):
        with pytest.raises(SourceError, match="not a regular file"):
            read()
    with pytest.raises(SourceError, match="not a regular file"):
        standalone.build_script_file(source)
    source.unlink()
    source.symlink_to("/dev/zero")
    with pytest.raises(SourceError, match="not a regular file"):
        script("javascript", source)


_HOST_MODULE = 'declare module "extism:host" { '
DECLARATIONS = {
    "comments that do not end": ("/* " * 300_000, 0),
    "modules in modules": ('declare module "main" { ' * 40_000 + "}" * 40_000, 0),
    "interfaces": (_HOST_MODULE + "interface user { f(): I32; } " * 100_000 + "}", 1),
    "methods": (_HOST_MODULE + "interface user {" + "f(): I32; " * 200_000 + "}}", 1),
    "functions": ('declare module "a" { ' + "function f(): I32; " * 100_000 + "}", 1),
    "spaces": (("declare" + " " * 1000) * 2000, 0),
}


@pytest.mark.parametrize(("text", "count"), DECLARATIONS.values(), ids=DECLARATIONS)
def test_declarations_without_number(text: str, count: int) -> None:
    """Declarations are read in one pass: those that take each part again need hours for these."""
    assert len(read_declarations(text, "plugin.d.ts")) == count
