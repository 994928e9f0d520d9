"""Scripts that are no plugins, that shadow the kit, or that would differ from load to load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from plugwasm import CompiledPlugin, Limits, Plugin, ScriptError, SourceError, script
from plugwasm._script.spec import read_script_spec
from plugwasm._script.standalone import build_script
from tests.support.scripts import need_engine

LANGUAGES = ["javascript", "python"]


@pytest.fixture(scope="module", autouse=True)
def _engines() -> None:
    for language in LANGUAGES:
        need_engine(language)


def load(language: str, source: Any, **options: Any) -> CompiledPlugin:
    return script(language, source, **options)  # type: ignore[arg-type]


def suffix(language: str) -> str:
    return "js" if language == "javascript" else "py"


@pytest.mark.parametrize(
    "shadow",
    [
        "const Host = 1;",
        "var Config = 1, Var = 2, Http = 3, Memory = 4;",
        "function console() {}",
        "globalThis.JSON = null;",
        "JSON.stringify = JSON.parse = () => 'evil';",
        "TextEncoder.prototype.encode = TextDecoder.prototype.decode = () => 'evil';",
        "Array.prototype.map = Array.prototype.push = Array.prototype[Symbol.iterator] = null;",
        "Function.prototype.call = Function.prototype.apply = Function.prototype.bind = null;",
        "Promise.prototype.then = null;",
        "Object.freeze(globalThis);",
        "var exports = 5, module = 6;",
        "globalThis.Host = globalThis.Error = globalThis.TypeError = null;",
    ],
)
def test_javascript_shadows_the_kit(shadow: str) -> None:
    """Names of the kit are the script's own, and what it does with them the kit does not notice."""
    with Plugin(load("javascript", f"{shadow}\nexport const f = (x) => ({{ x }});")) as plugin:
        assert json.loads(plugin.call("f", {"a": [1]})) == {"x": {"a": [1]}}


@pytest.mark.parametrize(
    "shadow",
    [
        "extism = json = 5",
        "import extism; extism.Config = extism.Var = extism.plugin_fn = None",
        "import builtins; builtins.isinstance = builtins.len = builtins.str = None",
        "str = int = len = isinstance = dict = list = print = type = None",
        "__name__ = 5",
        "import sys; sys.modules.clear()",
        "def extism(x): return 1",
    ],
)
def test_python_shadows_the_kit(shadow: str) -> None:
    """Names of the kit are the script's own, and what it does with them the kit does not notice."""
    with Plugin(load("python", f"{shadow}\ndef f(x):\n    return {{'x': x}}\n")) as plugin:
        assert json.loads(plugin.call("f", {"a": [1]})) == {"x": {"a": [1]}}


AT_LOAD = {
    "javascript": """
        const loaded = [Date.now(), Math.random()];
        let count = 0;
        export const at = () => loaded;
        export const now = () => [Date.now(), Math.random()];
        export const next = () => ++count;
    """,
    "python": """
import time, random
loaded = [time.time(), random.random()]
count = 0
def at():
    return loaded
def now():
    return [time.time(), random.random()]
def next():
    global count
    count += 1
    return count
""",
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_loading_is_the_same_each_time(language: str) -> None:
    """What loading a script leaves does not depend on when, where or by whom it is loaded: not on
    the clock, on random numbers, on config, or on other scripts.
    """
    first = load(language, AT_LOAD[language], config={"a": "1"})
    other = f"export const {'x' * 50} = () => 1;" if language == "javascript" else "def x(): pass"
    load(language, other)
    second = load(language, AT_LOAD[language], config={"a": "2"}, limits=Limits(timeout=20))
    assert first._spec.modules[-1].wasm == second._spec.modules[-1].wasm
    assert build_script(language, AT_LOAD[language]) == build_script(language, AT_LOAD[language])


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("is_built", [False, True])
def test_calls_have_their_own_time(language: str, is_built: bool) -> None:
    """Date and random numbers are those of the call, and a counter begins in each instance where
    loading has left it: the same, whether the script was loaded or built.
    """
    compiled = (
        CompiledPlugin(build_script(language, AT_LOAD[language]), wasi=True)
        if is_built
        else load(language, AT_LOAD[language])
    )
    found = []
    for _ in range(2):
        with Plugin(compiled) as plugin:
            then, now = plugin.call("at", returns=list), plugin.call("now", returns=list)
            assert [plugin.call("next", returns=int) for _ in range(2)] == [1, 2]
            found.append((then, now))
    (at_first, first), (at_second, second) = found
    assert at_first == at_second
    assert at_first[0] == 0
    assert first[0] > 10**9
    assert first[1] != second[1]


@pytest.mark.parametrize(
    ("at_load", "is_same"),
    [
        ("import random", False),
        ("import random; random.random()", False),
        ("import random; random.seed()", False),
        ("import random; random.seed(42)", True),
        ("import random; random.seed(42); random.random()", True),
        ("import random; random.seed(42); random.seed()", False),
        ("def f():\n    import random\n    return random.random()\n", False),
    ],
)
def test_random_numbers_of_instances(at_load: str, is_same: bool) -> None:
    """Instances have the same random numbers only if the script has set a seed by itself."""
    call = "" if "def f" in at_load else "\ndef f():\n    return random.random()\n"
    compiled = load("python", at_load + call)
    found = set()
    for _ in range(3):
        with Plugin(compiled) as plugin:
            found.add((plugin.call("f"), plugin.call("f")))
    assert len(found) == (1 if is_same else 3)
    assert all(first != second for first, second in found)


@pytest.mark.parametrize(
    ("language", "source", "place"),
    [
        ("javascript", "const a = 1;\nconst k = Config.get('k');\nexport const f = () => k;", 2),
        ("javascript", "export const f = () => 1;\nHttp.request({ url: 'http://a.b' });", 2),
        ("python", "import extism\nk = extism.Config.get_str('k')\ndef f(): return k", 2),
        ("python", "import extism\ndef f(): pass\n\nextism.Var.set('k', 'v')", 4),
    ],
)
def test_host_at_load(language: str, source: str, place: int) -> None:
    """A script that asks the host while it is loaded is refused, with the line: whoever loads or
    builds it is not who runs it.
    """
    for make in load, build_script:
        with pytest.raises(ScriptError, match="while the script is loaded") as caught:
            make(language, source)
        assert caught.value.line == place


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("content", [b"\xff\xfe1", "ä = 1".encode("latin-1"), b"\n\n\xed\xa0\x80"])
def test_script_that_is_not_utf8(language: str, content: bytes, tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are refused with the line, wherever they come from."""
    path = tmp_path / f"rules.{suffix(language)}"
    path.write_bytes(content)
    line = content[: content.find(b"\xed") + 1].count(b"\n") + 1 if b"\xed" in content else 1
    for source in (content, path):
        with pytest.raises(ScriptError, match="the script is not UTF-8, at offset") as caught:
            load(language, source)
        assert caught.value.line == line
        with pytest.raises(ScriptError, match="not UTF-8"):
            build_script(language, source)
    with pytest.raises(ScriptError, match="not UTF-8"):
        read_script_spec(path, 1000)


@pytest.mark.parametrize("language", LANGUAGES)
def test_script_that_is_too_large(language: str, tmp_path: Path) -> None:
    """A script with more bytes than a module may have is refused before it is read on."""
    path = tmp_path / f"rules.{suffix(language)}"
    with path.open("wb") as file:
        file.truncate(2**40)  # a file with a hole
    with pytest.raises(ScriptError, match=r"more than 10000 bytes .`Limits\.module_bytes`"):
        load(language, b" " * 10_001, limits=Limits(module_bytes=10_000))
    with pytest.raises(SourceError, match="larger than the limit of 10000 bytes"):
        load(language, path, limits=Limits(module_bytes=10_000))
    with pytest.raises(SourceError, match="larger than"):
        read_script_spec(path, 10_000)


@pytest.mark.parametrize(
    ("language", "source"),
    [
        ("javascript", ""),
        ("javascript", "const f = () => 1;"),
        ("javascript", "export const f = 1;"),
        ("javascript", "module.exports = 5;"),
        ("javascript", "export class F {}"),
        ("python", ""),
        ("python", "f = 1"),
        ("python", "def _f(): pass"),
        ("python", "class F: pass"),
        ("python", "def f(): pass\ndel f"),
    ],
)
def test_script_that_exports_nothing(language: str, source: str) -> None:
    """A script without functions for others is refused, and the error says how to write one."""
    for make in load, build_script:
        with pytest.raises(ScriptError, match=r"^script\.(js|py): the script exports no function"):
            make(language, source)


def test_interpreter_takes_nothing_of_the_limits() -> None:
    """Limits on compiling are for what strangers write, and the interpreter is not."""
    need_engine()
    limits = Limits(code_bytes=2**19)
    with Plugin(script("javascript", "export const f = () => 1;", limits=limits)) as plugin:
        assert plugin.call("f") == b"1"
