"""Scripts in both languages, wherever a plugin can be used: refs, pools, processes, recordings,
harnesses.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import plugwasm
import plugwasm.recording
from plugwasm import (
    CompiledPlugin,
    FromEnvironment,
    IsolatedPlugin,
    Limits,
    MapBatches,
    ModuleError,
    OptionError,
    Plugin,
    PluginPool,
    PluginRef,
    ScriptError,
    TimeoutError,
    script,
)
from plugwasm.recording import Recorder
from plugwasm.testing import Harness
from tests.support.scripts import need_engine

JS = """
let count = 0;
export const greet = (name) => `${Config.get("word") ?? "Hi"}, ${name} ${++count}`;
export const spin = () => { for (;;); };
export const clock = () => Date.now() + Math.random();
greet.input = "text";
"""
PY = """
import extism, time, random
count = 0
def greet(name: str):
    global count
    count += 1
    return f"{extism.Config.get_str('word') or 'Hi'}, {name} {count}"
def spin():
    while True: pass
def clock():
    return time.time() + random.random()
"""
SOURCES = {"javascript": JS, "python": PY}
BORN_JS = """
export const born = (name) =>
  Memory.find(Host.getFunctions().lookup(Memory.fromString(name).offset)).readString();
born.input = "text";
"""
DECLARED = 'declare module "extism:host" { interface user { lookup(name: PTR): PTR; } }'
BORN_PY = """
import extism
@extism.import_fn("extism:host/user", "lookup")
def lookup(name: str) -> str: ...
def born(name: str):
    return lookup(name)
"""


@plugwasm.host_fn()
def lookup(name: str) -> str:
    return f"{name}: 1815"


@pytest.fixture(params=sorted(SOURCES))
def language(request: pytest.FixtureRequest) -> str:
    need_engine(request.param)
    return str(request.param)


@pytest.fixture
def file(language: str, tmp_path: Path) -> Path:
    path = tmp_path / f"rules.{'js' if language == 'javascript' else 'py'}"
    path.write_text(SOURCES[language])
    return path


@pytest.fixture
def born(language: str, tmp_path: Path) -> Path:
    """A script that imports a host function, and declares it."""
    path = tmp_path / f"born.{'js' if language == 'javascript' else 'py'}"
    path.write_text(BORN_JS if language == "javascript" else BORN_PY)
    (tmp_path / "born.d.ts").write_text(DECLARED)
    return path


def load(language: str, **options: object) -> CompiledPlugin:
    return script(language, SOURCES[language], **options)  # type: ignore[arg-type]


# ---- pools, threads, processes -------------------------------------------------------------------


def test_pool_of_scripts(language: str) -> None:
    """Plugins of a pool keep what they remember, and threads and `map` share them."""
    with PluginPool(load(language, config={"word": "Hello"}), size=2) as pool:
        assert pool.call("greet", "Ada") == b"Hello, Ada 1"
        assert len(list(pool.map("greet", ["a", "b", "c"]))) == 3
        failures: list[BaseException] = []

        def run() -> None:
            try:
                for _ in range(20):
                    assert pool.call("greet", "x").startswith(b"Hello, x ")
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures


def test_fresh_instance_of_script(language: str) -> None:
    """After a reset, a script is as it was when it had been loaded."""
    with Plugin(load(language)) as plugin:
        assert [plugin.call("greet", "a") for _ in range(2)] == [b"Hi, a 1", b"Hi, a 2"]
        plugin.reset()
        assert plugin.call("greet", "a") == b"Hi, a 1"


def test_awaited_script(language: str) -> None:
    """A call can be awaited, and cancelled while the script spins."""

    async def main() -> None:
        with Plugin(load(language)) as plugin:
            assert await plugin.call_async("greet", "a") == b"Hi, a 1"
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(plugin.call_async("spin"), 0.2)
            assert await plugin.call_async("greet", "a") == b"Hi, a 1"

    asyncio.run(main())


def test_script_in_another_process(language: str) -> None:
    """An `IsolatedPlugin` runs a script, with its limits and host functions."""
    source = BORN_JS if language == "javascript" else BORN_PY
    loaded = script(language, source, functions=[lookup])  # type: ignore[arg-type]
    with IsolatedPlugin(loaded) as plugin:
        assert plugin.call("born", "Ada") == b"Ada: 1815"
    with IsolatedPlugin(load(language, limits=Limits(timeout=0.3))) as plugin:
        with pytest.raises(TimeoutError):
            plugin.call("spin")
        assert plugin.call("greet", "a") == b"Hi, a 1"


# ---- refs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["path", "text"])
def test_ref_of_script(language: str, file: Path, by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ref carries the text: it is equal after a pickle, and runs where the file is gone."""
    monkeypatch.setenv("WORD", "Hello")
    config = {"word": FromEnvironment("WORD")}
    ref = (
        PluginRef(file, config=config)
        if by == "path"
        else PluginRef.script(
            language,  # type: ignore[arg-type]
            file.read_text(),
            name=file.name,
            config=config,
        )
    )
    file.unlink()
    sent = pickle.dumps(ref)
    assert len(sent) < 2000
    assert b"Hello" not in sent
    restored = pickle.loads(sent)
    assert restored == ref
    assert hash(restored) == hash(ref)
    assert restored.name == file.name
    with restored.plugin() as plugin:
        assert plugin.call("greet", "Ada") == b"Hello, Ada 1"
    assert restored.compiled() is ref.compiled()


def test_ref_with_host_function(language: str, born: Path) -> None:
    """Host functions of a ref's script are named, and the script finds them."""
    with PluginRef(born, functions=[f"{__name__}:lookup"]).plugin() as plugin:
        assert plugin.call("born", "Ada") == b"Ada: 1815"


def test_rows_of_a_table(language: str, file: Path) -> None:
    """A script maps the rows of a table, each row in a fresh instance if that is wanted."""
    pa = pytest.importorskip("pyarrow")
    greet = MapBatches(
        PluginRef(file), "greet", column="name", into="text", returns=str, instance_per="row"
    )
    table = greet(pa.table({"name": ["Ada", None, "Grace"]}))
    assert table.column("text").to_pylist() == ["Hi, Ada 1", None, "Hi, Grace 1"]


def test_refs_of_scripts_differ(language: str, file: Path) -> None:
    """Refs are equal only if language, name, input and text are."""
    refs = {
        PluginRef(file),
        PluginRef(file, limits=Limits(timeout=1)),
        PluginRef.script("javascript", file, input="text"),
        PluginRef.script("python", file, input="text"),
        PluginRef.script("python", file, input="bytes"),
        PluginRef.script("python", file, name="other.py", input="bytes"),
        PluginRef.script("python", b"x" + file.read_bytes(), input="bytes"),
    }
    assert len(refs) == 7


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: PluginRef.script("python", b"\xff"), ScriptError, "script.py:1: .* not UTF-8"),
        (lambda: PluginRef.script("ruby", "x"), OptionError, "language: "),  # type: ignore[arg-type]
        (lambda: PluginRef("none.js"), plugwasm.SourceError, "no such file: none.js"),
        (lambda: PluginRef(load("python")), OptionError, r"use PluginRef\.script\(…\)"),  # type: ignore[arg-type]
        (lambda: PluginRef.script("python", "def f(").compiled(), ScriptError, "script.py:2:1: "),
        (lambda: PluginRef.script("python", "x", limits={}), OptionError, "limits: "),  # type: ignore[arg-type]
        (lambda: PluginRef.script("python", "x", allowed_hosts="a"), OptionError, "allowed_hosts"),
    ],
)
def test_wrong_refs_of_scripts(make: Callable[[], object], kind: type, message: str) -> None:
    """What cannot be a ref is a typed error that says why."""
    need_engine("python")
    with pytest.raises(kind, match=message):
        make()


# ---- recordings, harnesses, messages -------------------------------------------------------------


def test_script_is_recorded(language: str, file: Path, tmp_path: Path) -> None:
    """A recording replays with the script, by path or loaded, and notices that it does something
    else.
    """
    recorder = Recorder()
    loaded = load(language, observe=recorder, config={"word": "Hello"})
    with Plugin(loaded) as plugin:
        plugin.call("greet", "Ada")
        plugin.call("clock")
    recorder.recording.save(tmp_path / "calls.json")
    recording = plugwasm.recording.load(tmp_path / "calls.json")
    assert len(recording.replay(file).calls) == 2
    assert len(recording.replay(load(language), strict=True).calls) == 2
    with pytest.raises(plugwasm.RecordingError, match="say which plugin is to be replayed"):
        recording.replay()
    file.write_text(SOURCES[language].replace("Hi", "Hello"))
    with pytest.raises(plugwasm.RecordingError, match="main"):
        recording.replay(file, strict=True)
    file.write_text(file.read_text().replace("}, ", "}; "))
    with pytest.raises(plugwasm.ReplayError, match="greet"):
        recording.replay(file)


def test_replay_answers_host_functions(language: str, born: Path) -> None:
    """Host functions that a script declares are answered from the recording."""
    recorder = Recorder()
    source = born.read_text()
    loaded = script(language, source, functions=[lookup], observe=recorder)  # type: ignore[arg-type]
    with Plugin(loaded) as plugin:
        assert plugin.call("born", "Ada") == b"Ada: 1815"
    (call,) = recorder.recording.replay(born).calls
    assert call.output == b"Ada: 1815"


def test_harness_of_script(language: str, file: Path) -> None:
    """A harness takes the path of a script, with its own clock and a count of fuel."""
    with Harness(file, config={"word": "Hello"}) as harness, harness.plugin() as plugin:
        assert plugin.call("greet", "Ada") == b"Hello, Ada 1"
        first = plugin.call("clock", returns=float)
        plugin.reset()
        assert plugin.call("clock", returns=float) == first
        assert 0 < harness.calls[0].fuel < 10**6


def test_harness_fakes_declared_functions(language: str, born: Path) -> None:
    """The functions that a script declares can be faked, with the types that it declares."""
    with Harness(born) as harness:
        harness.host("lookup", str, returns=lambda name: f"{name}?")
        with harness.plugin() as plugin:
            assert plugin.call("born", "Ada") == b"Ada?"
        assert harness.host_calls[0].args == ("Ada",)


@pytest.mark.parametrize("kind", [Plugin, CompiledPlugin, PluginPool, IsolatedPlugin])
def test_path_of_script_as_a_module(language: str, file: Path, kind: type) -> None:
    """Where a module is expected, the error says how a script is loaded."""
    message = (
        rf"rules\.(js|py) is not a Wasm module, but a script: .*plugwasm\.script\(\"{language}"
    )
    with pytest.raises(ModuleError, match=message):
        kind(os.fspath(file))
