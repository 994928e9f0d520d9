"""The plugins of an application: found, asked by hooks, replaced while calls run, described; and what a hostile one cannot do."""

from __future__ import annotations

import contextvars
import gc
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import plugwasm
import plugwasm.aio
from plugwasm import CompiledPlugin, Egress, IsolatedPlugin, Limits, ProcessLimits, host_fn
from plugwasm._host.event_loop import CoroutineRequest
from plugwasm._plugin_set import discovery, plugin_set
from plugwasm._plugin_set.discovery import FileSource
from plugwasm._plugin_set.isolated_plugin import Apart
from plugwasm._plugin_set.metadata import About, parse_plugin_file
from plugwasm.errors import (
    CancelledError,
    ClosedError,
    EgressDeniedError,
    FunctionNotFoundError,
    GuestError,
    HostFunctionError,
    ManifestError,
    OptionError,
    PoolTimeoutError,
    SourceError,
    TrapError,
    WorkerError,
)
from plugwasm.plugin_set import PluginSet, Result
from tests.support.guests import LOOP, export, guest
from tests.support.paths import ROOT
from tests.support.threads import InThread
from tests.support.waiting import soon

SAYS = "(call $give <<{}>>)"
FAILS = '(func (export "hook") (result i32) (call $error_set <<not today>>) (i32.const 1))'
ENTRY = '(import "extism:host/user" "enter" (func $enter))'
WASI = '(import "wasi_snapshot_preview1" "fd_prestat_get" (func $prestat (param i32 i32) (result i32)))'


def says(text: str, hook: str = "hook") -> str:
    return guest(export(hook, SAYS.format(text)))


def appends(letter: str, hook: str = "hook") -> str:
    """A plugin whose output is its input and that letter."""
    return guest(
        f"""(func (export "{hook}") (local $block i64) (local $n i64) (local $i i64)
          (local.set $n (call $input_length))
          (local.set $block (call $alloc (i64.add (local.get $n) (i64.const 1))))
          (block $done (loop $next
            (br_if $done (i64.eq (local.get $i) (local.get $n)))
            (call $store_u8 (i64.add (local.get $block) (local.get $i)) (call $input_load_u8 (local.get $i)))
            (local.set $i (i64.add (local.get $i) (i64.const 1)))
            (br $next)))
          (call $store_u8 (i64.add (local.get $block) (local.get $n)) (i32.const {ord(letter)}))
          (call $output_set (local.get $block) (i64.add (local.get $n) (i64.const 1))))"""
    )


SILENT = guest(export("hook", ""))
FAILING = guest(FAILS)
TRAPS = guest(export("hook", "unreachable"))
COUNTS = guest(
    "(global $n (mut i64) (i64.const 0))"
    + export(
        "hook",
        "(global.set $n (i64.add (global.get $n) (i64.const 1))) (call $answer (global.get $n))",
    )
)
CONFIG = guest(export("hook", "(call $give (call $config_get <<k>>))"))


def wat(*names_and_texts: str) -> dict[str, bytes]:
    return {
        name: text.encode()
        for name, text in zip(names_and_texts[::2], names_and_texts[1::2], strict=True)
    }


def put(path: Path, text: str | bytes) -> Path:
    """Writes a file as an installer does: all at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(text.encode() if isinstance(text, str) else text)
    new.replace(path)
    return path


def folder(path: Path, about: str, module: str | None = None, name: str = "plugin.toml") -> Path:
    put(path / name, textwrap.dedent(about))
    if module is not None:
        put(path / "plugin.wasm", module)
    return path


def described(plugins: PluginSet, name: str) -> plugin_set.Description:
    (found,) = [description for description in plugins.describe() if description.name == name]
    return found


def error_of(plugins: PluginSet, name: str) -> str:
    found = described(plugins, name)
    assert found.error is not None
    assert not found.loaded
    return found.error


# Where plugins come from


def test_a_directory_gives_its_modules_and_folders_by_their_names(tmp_path: Path) -> None:
    put(tmp_path / "zebra.wasm", says("z"))
    folder(tmp_path / "ant", "[plugin]\n", says("a"))
    folder(tmp_path / "bee", '{"wasm": [{"path": "code/b.wasm"}]}', name="manifest.json")
    put(tmp_path / "bee" / "code" / "b.wasm", says("b"))
    for ignored in ("notes.txt", ".hidden.wasm", "__pycache__/x.wasm", "folder/x.wasm"):
        put(tmp_path / ignored, says("x"))
    with PluginSet.from_directory(tmp_path) as plugins:
        assert plugins.hooks == {"hook": ("ant", "bee", "zebra")}
        assert [result.get() for result in plugins.all("hook")] == [b"a", b"b", b"z"]


def test_a_list_gives_names_by_what_is_in_it(tmp_path: Path) -> None:
    file = put(tmp_path / "file.wasm", says("1"))
    put(tmp_path / "spell" / "manifest.toml", '[[wasm]]\npath = "x.wasm"\n')
    put(tmp_path / "spell" / "x.wasm", says("2"))
    made = CompiledPlugin(says("3"), name="made")
    values = [
        file,
        str(tmp_path / "spell" / "manifest.toml"),
        made,
        {"wasm": [{"data": says("4").encode()}]},
        says("5"),
        tmp_path / "spell",
    ]
    with PluginSet(values) as plugins:
        assert plugins.hooks["hook"] == ("file", "spell", "made", "plugin-4", "plugin-5")
        assert "another plugin `spell`" in str(plugins.describe()[-1].error)
        assert b"".join(result.get() for result in plugins.all("hook")) == b"12345"


def test_names_can_be_given() -> None:
    with PluginSet(wat("b", says("1"), "a", says("2"))) as plugins:
        assert plugins.hooks == {"hook": ("b", "a")}
    with pytest.raises(OptionError, match="cannot be the name of a plugin: it is empty"):
        PluginSet({"": says("x")})


def test_entry_points_of_packages_give_paths_manifests_or_functions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(
        tmp_path / "set_of_a_test.py",
        f"""
from pathlib import Path
HERE = Path(__file__).parent
path = str(HERE / "m.wasm")
manifest = {{"wasm": [{{"data": {says("2").encode()!r}}}]}}
def function():
    return HERE / "m.wasm"
def broken():
    raise KeyError("no such thing")
nothing = None
""",
    )
    put(tmp_path / "m.wasm", says("1"))
    names = "path manifest function broken nothing missing".split()
    lines = "\n".join(f"{name} = set_of_a_test:{name}" for name in names)
    put(
        tmp_path / "set_of_a_test-1.dist-info" / "entry_points.txt",
        f"[plugwasm.plugins]\n{lines}\n",
    )
    put(
        tmp_path / "set_of_a_test-1.dist-info" / "METADATA",
        "Metadata-Version: 2.1\nName: set-of-a-test\nVersion: 1\n",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with PluginSet.from_entry_points(disabled=["path"]) as plugins:
        assert plugins.hooks == {"hook": ("function", "manifest")}
        assert "raised KeyError: 'no such thing'" in error_of(plugins, "broken")
        assert "AttributeError" in error_of(plugins, "missing")
        assert "expected a manifest" in error_of(plugins, "nothing")
        plugins.enable("path")
        assert plugins.call("path", "hook") == b"1"
        assert not plugins.reload()
        put(tmp_path / "m.wasm", says("new"))
        assert set(plugins.reload().changed) == {"path", "function"}
        assert plugins.call("function", "hook") == b"new"
    sys.modules.pop("set_of_a_test")


def test_the_package_of_a_disabled_entry_point_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "never_imported.py", "raise SystemExit")
    put(
        tmp_path / "never-1.dist-info" / "entry_points.txt",
        "[some.group]\nnever = never_imported:x\n",
    )
    put(
        tmp_path / "never-1.dist-info" / "METADATA",
        "Metadata-Version: 2.1\nName: never\nVersion: 1\n",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with PluginSet.from_entry_points("some.group", disabled=["never"]) as plugins:
        assert not described(plugins, "never").enabled
        assert "never_imported" not in sys.modules


def test_a_directory_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"cannot read the directory .*missing: No such file"):
        PluginSet.from_directory(tmp_path / "missing")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"plugins": "a.wasm"}, "plugins: expected a list, got str"),
        (
            {"plugins": {"wasm": [{"path": "a.wasm"}]}},
            "plugins: expected a list, or plugins by their names, got one manifest",
        ),
        ({"hooks": "save"}, "hooks: expected a list, got str"),
        ({"instances": -1}, "instances: expected a number of at least 0"),
        ({"instances": 0, "isolated": True}, "instances: expected a number of at least 1"),
        ({"isolated": 1}, "isolated: expected True, False or ProcessLimits, got int"),
        ({"limits": {"timeout": 1}}, "limits: expected Limits, got dict"),
        ({"egress": ["*"]}, "egress: expected an Egress"),
        ({"config": {"a": {"k": 1}}}, "config: keys and values must be text"),
    ],
)
def test_a_wrong_argument_is_the_applications_error_and_not_a_plugins(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        PluginSet(**arguments)


# Hooks


def test_the_exports_of_a_plugin_decide_which_hooks_it_serves() -> None:
    body = (
        export("save", "")
        + '(func (export "with") (param i32)) (func (export "_private")) (func (export "a\\1bb"))'
    )
    with PluginSet({"a": guest(body + export("render", "")), "b": guest(body)}) as plugins:
        assert plugins.hooks == {"render": ("a",), "save": ("a", "b")}
        assert plugins.all("with") == []


def test_declared_hooks_are_all_there_are() -> None:
    with PluginSet(
        {"a": guest(export("_save", "") + export("other", ""))}, hooks=["_save", "render"]
    ) as plugins:
        plugins.configure("a", {"k": "v"})
        assert plugins.hooks == {"_save": ("a",)}
        assert plugins.first("render") is None
        with pytest.raises(
            FunctionNotFoundError, match="there is no hook `rendr`: did you mean `render`"
        ):
            plugins.first("rendr")


def test_the_first_answer_that_is_not_empty_is_taken_and_the_rest_is_not_asked() -> None:
    entered: list[str] = []

    @plugwasm.host_fn()
    def enter() -> None:
        entered.append("last")

    last = guest(export("hook", "(call $enter)"), ENTRY)
    with PluginSet(
        {"silent": SILENT, "fails": FAILING, "traps": TRAPS, "one": says("1"), "last": last},
        functions=[enter],
    ) as plugins:
        assert plugins.first("hook") == b"1"
        assert not entered
        plugins.disable("one")
        assert plugins.first("hook") is None
        assert entered == ["last"]
        assert plugins.first("nobody serves this") is None


def test_an_empty_output_is_no_answer_whatever_it_would_be_made_into() -> None:
    with PluginSet({"silent": SILENT, "null": says("null"), "five": says("5")}) as plugins:
        assert plugins.first("hook", parse=json.loads) == 5
        assert plugins.first("hook", returns=int | None) == 5
        assert plugins.first("hook", returns=str) == "null"
        assert not any(description.last_failure for description in plugins.describe())
        assert plugins.first("hook", returns=int) == 5
        assert "null" in str(described(plugins, "null").last_failure)


def test_all_gives_what_each_made_of_the_same_input_be_it_an_error() -> None:
    with PluginSet(
        {"a": appends("a"), "fails": FAILING, "b": appends("b"), "silent": SILENT}
    ) as plugins:
        a, fails, b, silent = plugins.all("hook", "x")
        assert (a, b, silent) == (Result("a", b"xa"), Result("b", b"xb"), Result("silent", b""))
        assert a.ok
        assert not fails.ok
        assert isinstance(fails.error, GuestError)
        assert fails.error.plugin == fails.plugin == "fails"
        with pytest.raises(GuestError, match="not today"):
            fails.get()


def test_a_chain_passes_the_output_of_one_to_the_next_and_leaves_out_those_that_fail() -> None:
    with PluginSet(
        {"a": appends("a"), "fails": FAILING, "traps": TRAPS, "b": appends("b")}
    ) as plugins:
        assert plugins.chain("hook", "x") == b"xab"
        assert plugins.chain("hook", "x", parse=bytes.decode) == "xab"
        assert plugins.chain("nobody serves this", "x") == "x"
    with PluginSet({"a": appends("a"), "silent": SILENT, "b": appends("b")}) as plugins:
        assert plugins.chain("hook", "x") == b"b"


def test_a_chain_can_be_of_values() -> None:
    with PluginSet({"a": appends("0"), "not an int": says("x"), "b": appends("7")}) as plugins:
        assert plugins.chain("hook", 4, returns=int) == 407


@pytest.mark.parametrize("ask", ["first", "all", "chain"])
def test_an_error_stops_the_others_only_when_that_is_asked(ask: str) -> None:
    with PluginSet({"fails": FAILING, "a": says("a")}) as plugins:
        getattr(plugins, ask)("hook")
        with pytest.raises(GuestError, match="not today"):
            getattr(plugins, ask)("hook", stop_on_error=True)


def test_what_a_host_function_raises_is_the_plugins_error_and_an_interrupt_is_not() -> None:
    reason: list[BaseException] = [ValueError("wrong")]

    @plugwasm.host_fn()
    def enter() -> None:
        raise reason[0]

    with PluginSet(
        {"calls": guest(export("hook", "(call $enter)"), ENTRY), "a": says("a")}, functions=[enter]
    ) as plugins:
        failed, a = plugins.all("hook")
        assert a.ok
        assert isinstance(failed.error, HostFunctionError)
        assert isinstance(failed.error.__cause__, ValueError)
        reason[0] = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            plugins.all("hook")
        reason[0] = ValueError("again")
        assert [result.ok for result in plugins.all("hook")] == [False, True]


def test_what_parse_raises_is_the_plugins_error_and_it_itself() -> None:
    with PluginSet({"text": says("x"), "number": says("5")}) as plugins:
        text, number = plugins.all("hook", parse=json.loads)
        assert number.output == 5
        assert isinstance(text.error, json.JSONDecodeError)
        assert "its output cannot be parsed: JSONDecodeError" in str(
            described(plugins, "text").last_failure
        )
        with pytest.raises(json.JSONDecodeError):
            plugins.call("text", "hook", parse=json.loads)


def test_what_the_application_does_wrong_is_raised() -> None:
    with PluginSet({"a": appends("a")}) as plugins:
        with pytest.raises(TypeError, match="cannot be sent"):
            plugins.all("hook", object())
        with pytest.raises(TypeError, match="unexpected keyword"):
            plugins.first("hook", colour="red")
        with pytest.raises(OptionError, match="gives no views"):
            plugins.first("hook", parse=None)


def test_one_plugin_can_be_called_by_name() -> None:
    with PluginSet(
        {"a": says("1"), "b": says("2"), "broken": "(module"}, disabled=["b"]
    ) as plugins:
        assert plugins.call("a", "hook") == b"1"
        for name, message in (("b", "it is disabled"), ("broken", "it could not be loaded: ")):
            with pytest.raises(FunctionNotFoundError, match=message):
                plugins.call(name, "hook")
        with pytest.raises(
            FunctionNotFoundError, match="exports no function `hok`: did you mean `hook`"
        ):
            plugins.call("a", "hok")
        with pytest.raises(
            OptionError, match="there is no plugin `brokn` in the set: did you mean `broken`"
        ):
            plugins.call("brokn", "hook")


def test_plugins_are_asked_in_the_applications_order_then_in_their_own_then_as_they_were_found(
    tmp_path: Path,
) -> None:
    for name, place in (("a", 0), ("b", -5), ("c", 0), ("d", 7), ("e", 9)):
        folder(tmp_path / name, f"[plugin]\norder = {place}\n", says(name))
    with PluginSet.from_directory(tmp_path) as plugins:
        assert plugins.hooks["hook"] == tuple("bacde")
        folder(tmp_path / "a", "[plugin]\norder = 7\n")
        plugins.enable("a")
        assert plugins.hooks["hook"] == tuple("bcade")
        folder(tmp_path / "b", "[plugin]\norder = 7\n")
        plugins.enable("b")
        assert plugins.hooks["hook"] == tuple("cabde")
    folder(tmp_path / "b", "[plugin]\norder = -5\n")
    folder(tmp_path / "a", "[plugin]\n")
    with PluginSet(
        wat("x", says("x")), directories=[tmp_path], order=["e", "nobody", "c"]
    ) as plugins:
        assert plugins.hooks["hook"] == tuple("ecbxad")


# Instances


def test_instances_are_kept_for_the_next_calls_unless_they_shall_be_fresh() -> None:
    with PluginSet({"a": COUNTS}) as plugins:
        assert [plugins.first("hook")[0] for _ in range(3)] == [1, 2, 3]
    for options in ({"fresh": True}, {"instances": 0}):
        with PluginSet({"a": COUNTS}, **options) as plugins:
            assert [plugins.first("hook")[0] for _ in range(3)] == [1, 1, 1]


class Doors:
    """A host function in which calls wait until they are let go."""

    def __init__(self) -> None:
        self.inside = 0
        self.go = threading.Event()
        self._lock = threading.Lock()

    def enter(self) -> None:
        with self._lock:
            self.inside += 1
        assert self.go.wait(30)


def waits_then_says(text: str) -> str:
    return guest(export("hook", f"(call $enter) {SAYS.format(text)}"), ENTRY)


@pytest.fixture
def doors() -> Doors:
    return Doors()


def functions_of(doors: Doors) -> list[plugwasm.Function]:
    return [
        plugwasm.Function(
            "extism:host/user", "enter", [], [], lambda plugin, params, results: doors.enter()
        )
    ]


def test_calls_at_once_have_an_instance_each_and_no_more_than_asked_are_kept(doors: Doors) -> None:
    with PluginSet(
        {"a": waits_then_says("a")}, functions=functions_of(doors), instances=2
    ) as plugins:
        calls = [InThread(plugins.first, "hook") for _ in range(6)]
        assert soon(lambda: doors.inside == 6, 20)
        doors.go.set()
        assert [call.result() for call in calls] == [b"a"] * 6
        loaded = plugins._state.entries["a"].loaded
        assert loaded is not None
        assert len(loaded._idle) == 2


def test_a_plugin_can_ask_the_set_it_is_in_from_a_host_function() -> None:
    depth: list[int] = []

    def enter(*_: Any) -> None:
        depth.append(len(depth))
        if len(depth) < 4:
            assert plugins.first("hook") == b"a"

    with PluginSet(
        {"a": waits_then_says("a")},
        functions=[plugwasm.Function("extism:host/user", "enter", [], [], enter)],
    ) as plugins:
        assert plugins.first("hook") == b"a"
        assert depth == [0, 1, 2, 3]


# Changes


def test_files_that_are_new_changed_or_gone_are_found_by_reload(tmp_path: Path) -> None:
    put(tmp_path / "same.wasm", COUNTS)
    put(tmp_path / "changes.wasm", says("old"))
    put(tmp_path / "goes.wasm", says("gone"))
    with PluginSet.from_directory(tmp_path) as plugins:
        assert plugins.first("hook") == b"old"
        assert plugins.call("same", "hook")[0] == 1
        assert not plugins.reload()
        put(tmp_path / "changes.wasm", says("new"))
        put(tmp_path / "comes.wasm", says("new"))
        (tmp_path / "goes.wasm").unlink()
        assert plugins.reload() == (("comes",), ("changes",), ("goes",), ())
        assert plugins.hooks["hook"] == ("changes", "comes", "same")
        assert plugins.first("hook") == b"new"
        assert plugins.call("same", "hook")[0] == 2, "its instance was kept"


def test_a_change_of_the_same_size_within_a_tick_of_the_clock_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path / "a.wasm", says("0"))
    tick = time.time_ns()
    monkeypatch.setattr(discovery, "_stamp", lambda path: (1, 1, 1, tick, tick))
    with PluginSet.from_directory(tmp_path) as plugins:
        put(path, says("1"))
        assert plugins.reload().changed == ("a",)
        assert plugins.first("hook") == b"1"


def test_a_file_that_was_left_alone_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path / "a.wasm", says("0"))
    monkeypatch.setattr(plugin_set, "_SETTLED_NS", 0)
    read: list[str] = []
    load = FileSource.load

    def counted(source: FileSource, about: Any, module_bytes: int) -> Any:
        read.append(source.name)
        return load(source, about, module_bytes)

    monkeypatch.setattr(FileSource, "load", counted)
    with PluginSet.from_directory(tmp_path) as plugins:
        for _ in range(3):
            plugins.reload()
        assert len(read) == 1
        put(path, says("0"))
        assert not plugins.reload(), "it was written anew, but says the same"
        assert len(read) == 2


def test_a_call_under_way_ends_on_the_plugin_it_began_with(tmp_path: Path, doors: Doors) -> None:
    path = put(tmp_path / "a.wasm", waits_then_says("old"))
    with PluginSet.from_directory(tmp_path, functions=functions_of(doors)) as plugins:
        entry = plugins._state.entries["a"].loaded
        assert entry is not None
        old = weakref.ref(entry.compiled._plan)
        del entry
        call = InThread(plugins.first, "hook")
        assert soon(lambda: doors.inside, 20)
        put(path, says("new"))
        assert plugins.reload().changed == ("a",)
        assert plugins.first("hook") == b"new"
        assert old() is not None
        doors.go.set()
        assert call.result() == b"old"
        del call
        gc.collect()
        assert old() is None, "nothing is left of it"


def test_what_was_replaced_keeps_no_instance_also_while_a_call_is_under_way(
    tmp_path: Path, doors: Doors
) -> None:
    put(tmp_path / "a.wasm", waits_then_says("a"))
    with PluginSet.from_directory(tmp_path, functions=functions_of(doors)) as plugins:
        doors.go.set()
        assert plugins.first("hook") == b"a"
        old = plugins._state.entries["a"].loaded
        assert old is not None
        call = InThread(plugins.first, "hook")
        call.result()
        assert len(old._idle) == 1
        plugins.disable("a")
        assert not old._idle
        plugins.enable("a")
        old = plugins._state.entries["a"].loaded
        assert old is not None
        doors.go.clear()
        call = InThread(plugins.first, "hook")
        assert soon(lambda: doors.inside == 3, 20)
        plugins.disable("a")
        doors.go.set()
        assert call.result() == b"a"
        assert not old._idle


def test_a_new_file_that_is_broken_keeps_the_old_plugin_and_says_why(tmp_path: Path) -> None:
    path = put(tmp_path / "a.wasm", says("old"))
    with PluginSet.from_directory(tmp_path) as plugins:
        for broken in (b"\0asm\1\0\0\0\xff", "(module (import", b"text", b""):
            put(path, broken)
            assert plugins.reload().failed == ("a",)
            assert plugins.first("hook") == b"old"
            found = described(plugins, "a")
            assert found.loaded
            assert found.error
            assert not plugins.reload(), "the same error is told once"
        put(path, says("new"))
        assert plugins.reload().changed == ("a",)
        assert plugins.first("hook") == b"new"
        assert described(plugins, "a").error is None


def test_a_directory_that_cannot_be_read_any_more_changes_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "plugins"
    put(directory / "a.wasm", says("a"))
    with PluginSet.from_directory(directory) as plugins:
        directory.rename(tmp_path / "elsewhere")
        with pytest.raises(SourceError, match="cannot read the directory"):
            plugins.reload()
        assert plugins.first("hook") == b"a"


def test_each_part_of_a_folder_is_watched(tmp_path: Path) -> None:
    path = folder(tmp_path / "a", '[plugin]\nversion = "1"\n[[manifest.wasm]]\npath = "x/m.wasm"\n')
    put(path / "x" / "m.wasm", says("old"))
    with PluginSet.from_directory(tmp_path) as plugins:
        assert plugins.first("hook") == b"old"
        put(path / "x" / "m.wasm", says("new"))
        assert plugins.reload().changed == ("a",)
        assert plugins.first("hook") == b"new"
        folder(path, '[plugin]\nversion = "2"\n[[manifest.wasm]]\npath = "x/m.wasm"\n')
        assert plugins.reload().changed == ("a",)
        assert described(plugins, "a").version == "2"


def test_a_file_can_become_a_folder_and_back(tmp_path: Path) -> None:
    put(tmp_path / "a.wasm", says("file"))
    with PluginSet.from_directory(tmp_path) as plugins:
        (tmp_path / "a.wasm").unlink()
        folder(tmp_path / "a", "[plugin]\nversion = '2'", says("folder"))
        assert plugins.reload().changed == ("a",)
        assert plugins.first("hook") == b"folder"
        (tmp_path / "a" / "plugin.toml").unlink()
        put(tmp_path / "a.wasm", says("file"))
        assert plugins.reload().changed == ("a",)
        assert (plugins.first("hook"), described(plugins, "a").version) == (b"file", "")


def test_a_watch_reloads_by_itself_and_tells(tmp_path: Path) -> None:
    path = put(tmp_path / "a.wasm", says("old"))
    told: list[plugin_set.Changes] = []

    def on_change(changes: plugin_set.Changes) -> None:
        told.append(changes)
        raise RuntimeError("is logged")

    with PluginSet.from_directory(tmp_path) as plugins:
        stop = plugins.watch(0.01, on_change)
        put(path, says("new"))
        assert soon(lambda: plugins.first("hook") == b"new", 20)
        put(tmp_path / "b.wasm", says("b"))
        assert soon(lambda: len(told) >= 2, 20)
        assert [changes.added for changes in told][-1] == ("b",)
        stop()
        stop()


def test_a_watch_ends_with_its_set(tmp_path: Path) -> None:
    before = set(threading.enumerate())  # of other tests, perhaps

    def watching() -> int:
        return sum(
            thread.name == "plugwasm-plugin-set" for thread in set(threading.enumerate()) - before
        )

    closed = PluginSet.from_directory(tmp_path)
    closed.watch(600)
    dropped = PluginSet.from_directory(tmp_path)
    dropped.watch(0.01)
    assert watching() == 2
    closed.close()
    assert soon(lambda: watching() == 1, 60)
    del dropped
    assert soon(lambda: watching() == 0, 60)


def test_calls_from_many_threads_see_old_or_new_while_plugins_change(tmp_path: Path) -> None:
    path = put(tmp_path / "b.wasm", appends("0"))
    put(tmp_path / "a.wasm", appends("a"))
    end = threading.Event()

    def ask() -> int:
        calls = 0
        while not end.is_set():
            answer = plugins.chain("hook", "x", stop_on_error=True)
            assert answer[:2] in (b"xa", b"x0", b"x1", b"x"), answer
            calls += 1
        return calls

    with PluginSet.from_directory(tmp_path, instances=1) as plugins:
        threads = [InThread(ask) for _ in range(4)]
        try:
            for i in range(12):
                put(path, appends("01"[i % 2]))
                plugins.reload()
                plugins.disable("a")
                plugins.enable("a")
        finally:
            end.set()
        assert all(thread.result() for thread in threads)


def test_a_plugin_that_is_disabled_is_not_asked_and_not_loaded(tmp_path: Path) -> None:
    put(tmp_path / "a.wasm", says("a"))
    put(tmp_path / "b.wasm", b"never looked at")
    folder(tmp_path / "c", "[plugin]\nenabled = false\ntitle = 'See'\n", says("c"))
    with PluginSet.from_directory(tmp_path, disabled=["b", "d"]) as plugins:
        assert plugins.hooks == {"hook": ("a",)}
        assert [(d.name, d.enabled, d.loaded, d.error) for d in plugins.describe()] == [
            ("a", True, True, None),
            ("b", False, False, None),
            ("c", False, False, None),
        ]
        assert described(plugins, "c").title == "See"
        plugins.enable("c")
        plugins.disable("a")
        assert plugins.hooks == {"hook": ("c",)}
        put(tmp_path / "a.wasm", says("new"))
        put(tmp_path / "d.wasm", says("new"))
        plugins.reload()
        assert plugins.hooks == {"hook": ("c",)}, "what the application said holds on"
        with pytest.raises(plugwasm.ModuleError, match="is not a Wasm module"):
            plugins.enable("b")
        assert described(plugins, "b").enabled
        put(tmp_path / "b.wasm", says("b"))
        plugins.reload()
        assert plugins.hooks == {"hook": ("b", "c")}


def test_configuration_is_for_one_plugin_and_can_change(tmp_path: Path) -> None:
    folder(tmp_path / "a", "[plugin.settings.k]\ndefault = 'theirs'\n", CONFIG)
    both = "[plugin.settings.k]\ndefault = 'of the setting'\n[manifest]\nwasm = [{path = 'plugin.wasm'}]\nconfig = {k = 'of the manifest'}\n"
    folder(tmp_path / "b", both, CONFIG)
    with PluginSet.from_directory(tmp_path) as plugins:
        assert [result.output for result in plugins.all("hook")] == [b"theirs", b"of the manifest"]
        folder(tmp_path / "a", "[plugin.settings.k]\ndefault = 'also theirs'\n")
        assert plugins.reload().changed == ("a",)
        assert plugins.first("hook") == b"also theirs"
        plugins.configure("a", {"k": "mine"})
        assert [result.output for result in plugins.all("hook")] == [b"mine", b"of the manifest"]
        folder(tmp_path / "a", "[plugin.settings.k]\ndefault = 'other'\n", CONFIG)
        plugins.reload()
        assert plugins.first("hook") == b"mine"
        assert described(plugins, "a").configured == ("k",)
        with pytest.raises(OptionError, match="keys and values must be text"):
            plugins.configure("a", {"k": 5})  # type: ignore[dict-item]
        with pytest.raises(OptionError, match="no plugin `c`"):
            plugins.configure("c", {})


def test_a_set_that_was_closed_says_so_and_calls_under_way_end(doors: Doors) -> None:
    plugins = PluginSet({"a": waits_then_says("a")}, functions=functions_of(doors))
    call = InThread(plugins.first, "hook")
    assert soon(lambda: doors.inside, 20)
    plugins.close()
    plugins.close()
    uses: list[Callable[[], object]] = [
        lambda: plugins.first("hook"),
        lambda: plugins.call("a", "hook"),
        plugins.reload,
        plugins.describe,
        plugins.watch,
        lambda: plugins.enable("a"),
    ]
    for use in uses:
        with pytest.raises(ClosedError, match="the plugin set was closed"):
            use()
    doors.go.set()
    assert call.result() == b"a"


FORKING = """
import os, signal, sys, threading
from plugwasm.plugin_set import PluginSet
directory, new = sys.argv[1:]
plugins = PluginSet.from_directory(directory)
def reload(held):
    plugins._changing(lambda: (held.set(), threading.Event().wait(30)))
held = threading.Event()
threading.Thread(target=reload, args=(held,), daemon=True).start()  # a thread that reloads, and that the child will not have
held.wait(30)
pid = os.fork()
if not pid:
    signal.alarm(30)
    status = 1
    try:
        os.replace(new, directory + "/a.wasm")
        plugins.reload()
        status = 0 if plugins.first("hook") == b"new" else 2
    finally:
        os._exit(status)
os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_child_can_reload_though_another_thread_was_at_it(tmp_path: Path) -> None:
    put(tmp_path / "plugins" / "a.wasm", says("old"))
    new = put(tmp_path / "new.wasm", says("new"))
    command = [sys.executable, "-W", "ignore", "-c", FORKING, str(tmp_path / "plugins"), str(new)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# Descriptions


ABOUT = """
[plugin]
title = "Spell checker"
version = "1.2.0"
description = "Finds words\\nthat are none."
author = "Ada"
homepage = "https://example.com/spell"
order = 3

[plugin.settings.language]
description = "Which dictionary"
default = "en"

[plugin.settings.token]
secret = true

[manifest]
wasm = [{path = "plugin.wasm"}]
timeout_ms = 100
allowed_hosts = ["api.example.com"]
config = {key = "hidden-in-manifest"}

[extra]
category = "text"
"""


def test_a_description_has_what_a_settings_page_shows(tmp_path: Path) -> None:
    module = guest(export("hook", "(call $enter)"), ENTRY)
    path = folder(tmp_path / "spell", ABOUT, module)
    functions = [
        plugwasm.Function("extism:host/user", name, [], [], lambda *_: None)
        for name in ("enter", "other")
    ]
    egress = Egress(allowed_hosts=["*.example.com"])
    with PluginSet.from_directory(
        tmp_path, config={"spell": {"token": "hidden-by-app"}}, egress=egress, functions=functions
    ) as plugins:
        (found,) = plugins.describe()
        assert (found.name, found.title, found.version, found.author) == (
            "spell",
            "Spell checker",
            "1.2.0",
            "Ada",
        )
        assert (found.homepage, found.description) == (
            "https://example.com/spell",
            "Finds words\nthat are none.",
        )
        assert found.source == str(path)
        assert found.hooks == ("hook",)
        assert found.settings["language"].default == "en"
        assert found.settings["token"].secret
        assert found.configured == ("token",)
        assert found.extra == {"category": "text"}
        assert found.imports == ("extism:host/user.enter",)
        assert found.grants == plugin_set.Grants(
            hosts=("api.example.com",),
            hosts_asked=("api.example.com",),
            functions=("enter",),
            timeout=0.1,
            memory_bytes=2**30,
        )
        shown = (
            msgspec.json.encode(plugins.describe()).decode()
            + repr(plugins.describe())
            + repr(plugins)
        )
        assert "hidden" not in shown


def test_a_failure_of_a_call_can_be_seen_until_the_plugin_changes(tmp_path: Path) -> None:
    path = put(tmp_path / "a.wasm", FAILING)
    with PluginSet.from_directory(tmp_path) as plugins:
        plugins.first("hook")
        assert "not today" in str(described(plugins, "a").last_failure)
        put(path, says("a"))
        plugins.reload()
        assert described(plugins, "a").last_failure is None


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ("[plugin]\ntitle = 5", "plugin.title`: expected a string, got an integer"),
        ("[plugin]\ntitel = 'x'", "plugin.titel`: unknown field; did you mean `title`"),
        ("[plugn]\n", "plugn`: unknown field; did you mean `plugin`"),
        (
            "[plugin]\ntitle = 'a\\u001b[2J'".replace("'", '"'),
            "plugin.title`: expected text that can be seen",
        ),
        (
            '[plugin]\ndescription = "\\u202egnp.exe"',
            "plugin.description`: expected text that can be seen",
        ),
        (
            f"[plugin]\ntitle = '{'x' * 101}'",
            "plugin.title`: expected at most 100 characters, got 101",
        ),
        (
            "[plugin]\nhomepage = 'javascript:alert(1)'",
            "plugin.homepage`: expected an address that begins with https://",
        ),
        (
            "[plugin]\nhomepage = 'https://a/\" onclick=x'",
            "plugin.homepage`: expected an address that begins with https://",
        ),
        ("[plugin]\norder = 10000000000000000000000", "plugin.order`: "),
        ("[plugin.settings.x]\ndefault = 5", "plugin.settings"),
        ('[plugin.settings."a\\nb"]\n', "plugin.settings`: expected names that can be shown"),
        (
            "\n".join(f"[plugin.settings.s{i}]" for i in range(101)),
            "plugin.settings`: expected at most 100, got 101",
        ),
        ("[manifest]\nwasm = 5", "manifest field `wasm`: expected a list, got an integer"),
        ("[plugin", "plugin.toml: "),
        ("x = " + "[" * 100_000, "nested too deeply"),
        (".".join("a" * 100_000) + " = 1", "too many parts"),
        ("# " + "x" * 2**20, "larger than the limit of 1048576 bytes"),
    ],
)
def test_what_is_wrong_with_a_plugins_file_is_said_and_stops_nobody_else(
    tmp_path: Path, about: str, message: str
) -> None:
    folder(tmp_path / "bad", about, says("bad"))
    put(tmp_path / "good.wasm", says("good"))
    with PluginSet.from_directory(tmp_path) as plugins:
        assert plugins.hooks == {"hook": ("good",)}
        assert message in error_of(plugins, "bad")
        assert "plugin.toml" in error_of(plugins, "bad")


def test_the_file_can_be_json_and_two_files_are_one_too_many(tmp_path: Path) -> None:
    folder(
        tmp_path / "a",
        '{"plugin": {"title": "A"}, "extra": {"x": [1]}}',
        says("a"),
        name="plugin.json",
    )
    folder(tmp_path / "b", "{}", says("b"), name="plugin.json")
    folder(tmp_path / "b", "[plugin]")
    folder(tmp_path / "c", "[manifest]\nwasm = [{path = 'plugin.wasm'}]", says("c"))
    folder(tmp_path / "c", "wasm = [{path = 'plugin.wasm'}]", name="manifest.toml")
    folder(tmp_path / "d", "[plugin]\nversion = '4'")
    folder(tmp_path / "d", '{"wasm": [{"path": "plugin.wasm"}]}', says("d"), name="manifest.json")
    folder(tmp_path / "e", "[plugin]\ntitle = 'Half installed'")
    with PluginSet.from_directory(tmp_path) as plugins:
        assert plugins.hooks == {"hook": ("a", "d")}
        assert described(plugins, "a").extra == {"x": [1]}
        assert "has both plugin.toml and plugin.json" in error_of(plugins, "b")
        assert "has two manifests" in error_of(plugins, "c")
        assert described(plugins, "d").version == "4"
        assert "no such file" in error_of(plugins, "e")
        assert described(plugins, "e").title == "Half installed"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(st.characters()) | st.sampled_from(["title", "default"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)
TABLE = (
    st.dictionaries(st.sampled_from([*About.__struct_fields__, "x"]), VALUES, max_size=6) | VALUES
)
FILES = st.dictionaries(st.sampled_from(["plugin", "manifest", "extra", "x"]), TABLE).map(
    lambda file: json.dumps(file).encode()
)


@settings(max_examples=150, deadline=None)
@given(FILES | st.binary() | st.text().map(lambda text: text.encode("utf-8", "replace")))
def test_any_plugins_file_can_be_shown_or_is_an_error_that_can(content: bytes) -> None:
    try:
        msgspec.json.encode(parse_plugin_file(content))
    except ManifestError as error:
        assert error.message.isprintable()


# What a plugin of a directory cannot do


def manifest_folder(path: Path, module: str | None = None, **fields: Any) -> Path:
    fields.setdefault("wasm", [{"path": "plugin.wasm"}])
    return folder(path, json.dumps(fields), module, name="manifest.json")


def test_no_link_is_followed(tmp_path: Path) -> None:
    outside = put(tmp_path / "outside" / "plugin.wasm", says("outside"))
    directory = tmp_path / "plugins"
    manifest_folder(tmp_path / "linked", says("x"))
    manifest_folder(directory / "module")
    manifest_folder(directory / "middle", wasm=[{"path": "down/plugin.wasm"}])
    (directory / "file.wasm").symlink_to(outside)
    (directory / "nowhere.wasm").symlink_to(tmp_path / "missing")
    (directory / "itself.wasm").symlink_to("itself.wasm")
    (directory / "folder").symlink_to(tmp_path / "linked")
    (directory / "module" / "plugin.wasm").symlink_to(outside)
    (directory / "middle" / "down").symlink_to(tmp_path / "outside")
    (directory / "about").mkdir()
    (directory / "about" / "plugin.toml").symlink_to(tmp_path / "linked" / "manifest.json")
    with PluginSet.from_directory(directory) as plugins:
        assert plugins.hooks == {}
        assert len(plugins.describe()) == 7
        for description in plugins.describe():
            assert "is a symbolic link, which is not followed" in str(description.error)


@pytest.mark.parametrize(
    "path",
    [
        "../secret.wasm",
        "{}/plugins/secret.wasm",
        "x/../../secret.wasm",
        "./../secret.wasm",
        "../a/plugin.wasm",
    ],
)
def test_a_folder_names_no_file_outside_of_it(tmp_path: Path, path: str) -> None:
    put(tmp_path / "plugins" / "secret.wasm", says("secret"))
    (tmp_path / "plugins" / "a" / "x").mkdir(parents=True)
    manifest_folder(tmp_path / "plugins" / "a", says("a"), wasm=[{"path": path.format(tmp_path)}])
    with PluginSet.from_directory(tmp_path / "plugins") as plugins:
        assert "a plugin's files lie in its folder" in error_of(plugins, "a")


@pytest.mark.parametrize("path", ["a\0b", "", ".", "x" * 5000, "plugin.wasm/x", "\u202e.wasm"])
def test_a_path_that_is_none_is_an_error_that_can_be_shown(tmp_path: Path, path: str) -> None:
    manifest_folder(tmp_path / "a", says("a"), wasm=[{"path": path}])
    with PluginSet.from_directory(tmp_path) as plugins:
        assert "manifest.json" in error_of(plugins, "a")
        assert error_of(plugins, "a").isprintable()


def test_a_folders_path_is_not_looked_up_in_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "other.wasm", says("not mine"))
    monkeypatch.chdir(tmp_path)
    manifest_folder(tmp_path / "plugins" / "a", wasm=[{"path": "other.wasm"}])
    with PluginSet.from_directory("plugins") as plugins:
        assert "no such file" in error_of(plugins, "a")


def test_a_folder_makes_the_host_fetch_nothing(tmp_path: Path) -> None:
    manifest_folder(tmp_path / "a", wasm=[{"url": "http://127.0.0.1:9/x.wasm"}])
    with PluginSet.from_directory(tmp_path) as plugins:
        assert (
            "wasm[0].url`: a plugin in a folder has its modules there, and fetches none"
            in error_of(plugins, "a")
        )


def test_a_module_file_that_holds_a_manifest_is_no_module(tmp_path: Path) -> None:
    put(tmp_path / "a.wasm", '{"wasm": [{"path": "/etc/passwd"}]}')
    with PluginSet.from_directory(tmp_path) as plugins:
        assert "is not a Wasm module" in error_of(plugins, "a")


def test_huge_files_pipes_and_too_many_modules_are_refused(tmp_path: Path) -> None:
    with open(tmp_path / "huge.wasm", "wb") as file:
        file.truncate(2**40)
    os.mkfifo(tmp_path / "pipe.wasm")
    manifest_folder(
        tmp_path / "many",
        says("x"),
        wasm=[{"path": "plugin.wasm", "name": f"m{i}"} for i in range(65)],
    )
    manifest_folder(
        tmp_path / "together",
        says("x") + " " * 1500,
        wasm=[{"path": "plugin.wasm", "name": f"m{i}"} for i in range(3)],
    )
    with PluginSet.from_directory(tmp_path, limits=Limits(module_bytes=5000)) as plugins:
        assert "is larger than the limit of 5000 bytes" in error_of(plugins, "huge")
        assert "is not a regular file" in error_of(plugins, "pipe")
        assert "expected at most 64 modules, got 65" in error_of(plugins, "many")
        assert "is larger than the limit" in error_of(plugins, "together")


def test_a_wrong_hash_is_found(tmp_path: Path) -> None:
    manifest_folder(tmp_path / "a", says("a"), wasm=[{"path": "plugin.wasm", "hash": "0" * 64}])
    with PluginSet.from_directory(tmp_path) as plugins:
        assert "it is not the module that was pinned" in error_of(plugins, "a")


@pytest.mark.parametrize(
    "name",
    ["a\x1b[31m.wasm", "a\nb.wasm", "\u202eexe.wasm", " a.wasm", "x" * 120 + ".wasm", b"\xff.wasm"],
)
def test_a_file_whose_name_cannot_be_shown_is_listed_and_not_loaded(
    tmp_path: Path, name: str | bytes
) -> None:
    os.mkdir(tmp_path / "plugins")
    with open(os.path.join(os.fsencode(tmp_path / "plugins"), os.fsencode(name)), "w") as file:
        file.write(says("x"))
    with PluginSet.from_directory(tmp_path / "plugins") as plugins:
        assert plugins.hooks == {}
        for description in plugins.describe():
            assert "cannot be the name of a plugin" in str(description.error)
            assert (description.name + description.source + str(description.error)).isprintable()
            msgspec.json.encode(description)


def test_a_plugin_cannot_take_the_name_of_another_nor_what_is_configured_for_it(
    tmp_path: Path,
) -> None:
    folder(tmp_path / "victim", "[plugin]\ntitle = 'Victim'\n", CONFIG)
    folder(tmp_path / "attacker", "[plugin]\ntitle = 'Victim'\n", CONFIG)
    put(tmp_path / "victim.wasm", CONFIG)
    with PluginSet.from_directory(tmp_path, config={"victim": {"k": "secret"}}) as plugins:
        assert plugins.all("hook") == [Result("attacker", b""), Result("victim", b"secret")]
        assert [d.name for d in plugins.describe()] == ["attacker", "victim", "victim"]
        assert "another plugin `victim`" in str(plugins.describe()[2].error)


def test_a_manifest_exceeds_no_limit_also_where_the_application_said_nothing(
    tmp_path: Path,
) -> None:
    manifest_folder(
        tmp_path / "greedy",
        says("x"),
        timeout_ms=10**9,
        memory={"max_pages": 65536, "max_var_bytes": 2**40},
    )
    with PluginSet.from_directory(tmp_path) as plugins:
        grants = described(plugins, "greedy").grants
        assert grants is not None
        assert (grants.timeout, grants.memory_bytes) == (Limits().timeout, Limits().memory_bytes)
    with PluginSet.from_directory(tmp_path, limits=Limits(timeout=0.05)) as plugins:
        grants = described(plugins, "greedy").grants
        assert grants is not None
        assert grants.timeout == 0.05


def test_a_host_is_granted_by_the_application_and_the_manifest_or_not_at_all(
    tmp_path: Path,
) -> None:
    request = """<<{"url": "http://127.0.0.1:9/"}>>"""
    module = guest(export("hook", f"(drop (call $http_request {request} (i64.const 0)))"))
    manifest_folder(tmp_path / "a", module, allowed_hosts=["*", "127.0.0.1"])
    for egress in (None, Egress(), Egress(allowed_hosts=["example.com"])):
        with PluginSet.from_directory(tmp_path, egress=egress) as plugins:
            (result,) = plugins.all("hook")
            assert isinstance(result.error, EgressDeniedError)
            grants = described(plugins, "a").grants
            assert grants is not None
            assert grants.hosts_asked == ("*", "127.0.0.1")
            assert grants.hosts == (grants.hosts_asked if egress and egress.allowed_hosts else ())


def test_a_manifest_picks_among_the_applications_directories(tmp_path: Path) -> None:
    for name in ("read", "write", "secret", "write/below"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    module = guest(
        export("hook", "(drop (call $prestat (i32.const 3) (i32.const 0)))"),
        WASI,
        memory='(memory (export "memory") 1)',
    )
    asks = {
        "both": {f"{tmp_path}/read": "/r", f"{tmp_path}/write": "/w"},
        "modest": {f"ro:{tmp_path}/write/../write": "/w"},
        "none": {},
        "greedy": {f"{tmp_path}/secret": "/s"},
        "above": {f"{tmp_path}": "/t"},
        "below": {f"{tmp_path}/write/below": "/b"},
        "linked": {f"{tmp_path}/link": "/l"},
        "odd": {"\0": "/o"},
        "twice": {f"ro:{tmp_path}/write": "/1", f"ro:{tmp_path}/write/.": "/2"},
    }
    directory = tmp_path / "plugins"
    for name, paths in asks.items():
        manifest_folder(directory / name, module, allowed_paths=paths)
    granted = [f"ro:{tmp_path}/read", f"{tmp_path}/write"]
    with PluginSet.from_directory(directory, wasi=True, allowed_paths=granted) as plugins:
        paths_of = {d.name: d.grants.paths for d in plugins.describe() if d.grants is not None}
        assert paths_of == {
            "both": {f"ro:{tmp_path}/read": "/r", f"{tmp_path}/write": "/w"},
            "modest": {f"ro:{tmp_path}/write": "/w"},
            "none": {},
        }
        for name in ("greedy", "above", "below", "linked"):
            assert "which the application grants to no plugin" in error_of(plugins, name)
        assert "expected paths, got one with a zero byte" in error_of(plugins, "odd")
        assert "twice" in error_of(plugins, "twice").replace("plugins/twice", "")
        assert all(result.ok for result in plugins.all("hook"))
    for name in ("greedy", "modest"):
        put(directory / name / "plugin.wasm", says("no WASI"))
    with PluginSet.from_directory(directory, allowed_paths=granted) as plugins:
        assert [
            (d.grants.paths, d.grants.wasi) for d in plugins.describe() if d.grants is not None
        ] == [({}, False)] * 2


def test_a_compiled_plugin_is_used_as_it_is() -> None:
    compiled = CompiledPlugin(says("x"), limits=Limits(timeout=5), name="mine")
    with pytest.raises(
        OptionError,
        match=r"^limits: it would not be used here; all plugins of the set are CompiledPlugins",
    ):
        PluginSet([compiled], limits=Limits(timeout=1))
    with PluginSet([compiled, says("y")], limits=Limits(timeout=1)) as plugins:
        grants = described(plugins, "mine").grants
        assert grants is not None
        assert grants.timeout == 5


def test_plugins_that_cannot_be_loaded_stop_no_other(tmp_path: Path) -> None:
    hostile: dict[str, str | bytes] = {
        "imports": guest(
            export("hook", "(call $nobody)"), '(import "env" "nobody" (func $nobody))'
        ),
        "memory": "(module (memory 65536))",
        "garbage": b"\0asm\1\0\0\0" + bytes(range(256)),
        "empty": b"",
        "wasi": guest(export("hook", ""), WASI),
    }
    for name, content in hostile.items():
        put(tmp_path / f"{name}.wasm", content)
    put(tmp_path / "good.wasm", says("good"))
    with PluginSet.from_directory(tmp_path) as plugins:
        assert plugins.hooks == {"hook": ("good",)}
        for name in hostile:
            assert error_of(plugins, name)
        assert "nobody" in error_of(plugins, "imports")


def test_a_plugin_that_traps_does_so_alone_and_can_be_asked_again() -> None:
    with PluginSet({"traps": TRAPS, "a": says("a")}) as plugins:
        for _ in range(3):
            traps, a = plugins.all("hook")
            assert isinstance(traps.error, TrapError)
            assert a.output == b"a"


# In event loops


both = pytest.mark.parametrize("backend", ["asyncio", "trio"])
SPINS = guest(export("hook", LOOP))


def in_loop(backend: str, main: Callable[[], Awaitable[Any]]) -> Any:
    return anyio.run(main, backend=backend)


async def until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(20):
        while not condition():
            await anyio.sleep(0.005)


def function(enter: Callable[[], Any]) -> plugwasm.Function:
    """`enter`, which may be `async def`, as the host function of that name."""
    enter.__annotations__["return"] = None
    return host_fn(name="enter")(enter)


def outcome(result: Any) -> Any:
    """What can be compared of a result or an error."""
    if isinstance(result, list):
        return [(one.plugin, one.output, outcome(one.error)) for one in result]
    return (type(result), str(result)) if isinstance(result, Exception) else result


QUESTIONS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("first", ("hook", b"in"), {}),
    ("first", ("hook", b"in"), {"parse": bytes.decode}),
    ("first", ("hook", b"in"), {"returns": int}),
    ("first", ("hook", b"in"), {"stop_on_error": True}),
    ("first", ("nobody",), {}),
    ("first", ("hook",), {"parse": None}),
    ("first", ("hook",), {"nonsense": 1}),
    ("all", ("hook", b"in"), {}),
    ("all", ("hook", b"in"), {"returns": str}),
    ("all", ("hook", b"in"), {"stop_on_error": True}),
    ("chain", ("hook", b"in"), {}),
    ("chain", ("hook", b"in"), {"parse": int}),
    ("call", ("fails", "hook"), {}),
    ("call", ("y", "hook", b"in"), {}),
    ("call", ("y", "hooks"), {}),
    ("call", ("broken", "hook"), {}),
    ("call", ("nobody", "hook"), {}),
]
ASKED = {
    "silent": SILENT,
    "fails": FAILING,
    "y": appends("y"),
    "traps": TRAPS,
    "broken": b"no module",
    "z": appends("z"),
}


def asked(plugins: PluginSet, method: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    try:
        return outcome(getattr(plugins, method)(*args, **options))
    except Exception as error:
        return outcome(error)


@both
def test_a_task_gets_what_a_thread_gets(backend: str) -> None:
    with PluginSet(ASKED) as plugins:

        async def main() -> None:
            for method, args, options in QUESTIONS:
                expected = asked(plugins, method, args, options)
                try:
                    found = outcome(await getattr(plugins, f"{method}_async")(*args, **options))
                except Exception as error:
                    found = outcome(error)
                assert found == expected, (method, args, options)

        in_loop(backend, main)
    with pytest.raises(ClosedError):
        in_loop(backend, lambda: plugins.first_async("hook"))


@both
def test_the_event_loop_goes_on_while_plugins_run(backend: str, doors: Doors) -> None:
    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            results: list[Any] = []

            async def ask() -> None:
                results.append(await plugins.all_async("hook"))

            for _ in range(3):
                tasks.start_soon(ask)
            await until(lambda: doors.inside == 3)
            doors.go.set()
        assert [result.get() for one in results for result in one] == [b"a", b"b"] * 3

    with PluginSet(
        {"a": waits_then_says("a"), "b": says("b")}, functions=functions_of(doors)
    ) as plugins:
        in_loop(backend, main)


@both
def test_host_functions_that_are_async_run_in_the_task_also_those_that_ask_the_set_again(
    backend: str,
) -> None:
    variable = contextvars.ContextVar("variable", default=0)
    depth: list[int] = []

    async def enter() -> None:
        depth.append(variable.get())
        await anyio.sleep(0)
        if len(depth) < 3:
            variable.set(variable.get() + 1)
            assert await plugins.first_async("hook", limiter=limiter) == b"a"

    limiter: Any = None

    async def main() -> None:
        nonlocal limiter
        limiter = anyio.CapacityLimiter(1)
        assert await plugins.first_async("hook", limiter=limiter) == b"a"
        assert variable.get() == 2

    with PluginSet({"a": waits_then_says("a")}, functions=[function(enter)]) as plugins:
        in_loop(backend, main)
        assert depth == [0, 1, 2]
        with pytest.raises(HostFunctionError):
            plugins.first("hook", stop_on_error=True)


@both
@pytest.mark.parametrize("isolated", [False, True])
def test_a_task_that_is_cancelled_cancels_the_plugin_that_runs_and_no_other_is_asked(
    backend: str, isolated: bool, caplog: pytest.LogCaptureFixture
) -> None:
    entered: list[int] = []
    plugin = guest(export("hook", f"(call $enter) {LOOP}"), ENTRY)

    async def main() -> None:
        for method in ("first", "all", "chain"):
            entered.clear()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(getattr(plugins, f"{method}_async"), "hook")
                await until(lambda: entered)
                before = time.monotonic()
                tasks.cancel_scope.cancel()
            assert time.monotonic() - before < 20
            assert entered == [1]

    with PluginSet(
        [plugin, plugin], functions=[function(lambda: entered.append(1))], isolated=isolated
    ) as plugins:
        in_loop(backend, main)
        assert [description.last_failure for description in plugins.describe()] == [None, None]
    assert not caplog.records


@both
def test_a_task_that_is_cancelled_in_a_coroutine_of_a_host_function_asks_no_other_plugin(
    backend: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered: list[int] = []
    answer = CoroutineRequest._answer

    def answer_early(self: CoroutineRequest, *outcome: Any) -> None:
        answer(self, *outcome)
        time.sleep(0.02)

    monkeypatch.setattr(
        CoroutineRequest, "_answer", answer_early
    )  # so that the thread hears of it before the task has ended

    async def enter() -> None:
        entered.append(1)
        await anyio.sleep(60)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(plugins.all_async, "hook")
            await until(lambda: entered)
            tasks.cancel_scope.cancel()
        assert entered == [1]

    with PluginSet(
        {"a": waits_then_says("a"), "b": waits_then_says("b")}, functions=[function(enter)]
    ) as plugins:
        in_loop(backend, main)
        assert [description.last_failure for description in plugins.describe()] == [None, None]
    assert not caplog.records


@both
def test_a_task_that_is_cancelled_between_two_plugins_asks_no_other(backend: str) -> None:
    parsing, go = threading.Event(), threading.Event()
    entered: list[int] = []

    def parse(output: bytes) -> bytes:
        parsing.set()
        assert go.wait(30)
        return output

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(plugins.all_async, "hook", parse=parse))
            await until(parsing.is_set)
            tasks.cancel_scope.cancel()
            threading.Timer(0.2, go.set).start()

    with PluginSet(
        {"a": says("a"), "b": waits_then_says("b")}, functions=[function(lambda: entered.append(1))]
    ) as plugins:
        in_loop(backend, main)
        assert not entered
        assert plugins.call("b", "hook") == b"b"


@both
def test_a_cancelled_error_that_a_host_function_raises_itself_is_the_plugins_as_in_a_thread(
    backend: str,
) -> None:
    async def enter() -> None:
        raise CancelledError("of something else")

    async def main() -> None:
        failed, b = await plugins.all_async("hook")
        assert failed.error is not None
        assert b.get() == b"b"

    with PluginSet(
        {"a": waits_then_says("a"), "b": says("b")}, functions=[function(enter)]
    ) as plugins:
        in_loop(backend, main)
        assert described(plugins, "a").last_failure


@both
def test_a_plugin_whose_time_is_up_is_passed_over(backend: str) -> None:
    with PluginSet({"spins": SPINS, "a": says("a")}, limits=Limits(timeout=0.05)) as plugins:
        assert in_loop(backend, lambda: plugins.first_async("hook")) == b"a"
        assert "time" in str(described(plugins, "spins").last_failure)


@both
def test_an_event_loop_loads_and_reloads_in_threads(backend: str, tmp_path: Path) -> None:
    put(tmp_path / "a.wasm", says("old"))

    async def main() -> PluginSet:
        async with await plugwasm.aio.run(lambda: PluginSet.from_directory(tmp_path)) as plugins:
            assert await plugins.first_async("hook") == b"old"
            put(tmp_path / "a.wasm", says("newer"))
            assert (await plugwasm.aio.run(plugins.reload)).changed == ("a",)
            assert await plugins.first_async("hook") == b"newer"
        return plugins

    with pytest.raises(ClosedError):
        in_loop(backend, main).first("hook")


# In processes of their own


def processes(plugins: PluginSet, name: str) -> set[int]:
    """The numbers of a plugin's processes."""
    loaded = plugins._state.entries[name].loaded
    assert isinstance(loaded, Apart)
    found = loaded._slots.plugins()
    assert all(isinstance(plugin, IsolatedPlugin) for plugin in found)
    return {plugin._worker.pid for plugin in found}  # type: ignore[attr-defined]


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_isolated_plugins_do_what_others_do_and_nothing_of_them_is_compiled_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def say(plugins: PluginSet) -> list[Any]:
        found = [
            asked(plugins, *question) for question in QUESTIONS if "nonsense" not in question[2]
        ]
        return [
            found,
            plugins.hooks,
            [msgspec.to_builtins(description) for description in plugins.describe()],
        ]

    more = {"config": CONFIG, "wants": guest(export("hook", "(call $enter)"), ENTRY)}
    options: dict[str, Any] = {
        "config": {"config": {"k": "v"}},
        "functions": [function(lambda: None)],
        "limits": Limits(timeout=20),
    }
    with PluginSet(ASKED | more, **options) as plugins:
        expected = say(plugins)
    monkeypatch.setattr("plugwasm._runtime.compiled_plugin.Plan", None)
    with PluginSet(ASKED | more, **options, isolated=True) as plugins:
        assert say(plugins) == expected
        assert plugins.call("config", "hook") == b"v"
        plugins.configure("config", {"k": "another"})
        assert plugins.call("config", "hook") == b"another"
    with PluginSet([SILENT]) as plugins:
        assert "NoneType" in error_of(plugins, "plugin-1")


def test_an_isolated_plugin_has_a_process_when_it_is_loaded_and_no_more_than_asked(
    doors: Doors,
) -> None:
    with PluginSet(
        {"a": waits_then_says("a")}, functions=functions_of(doors), isolated=True, instances=2
    ) as plugins:
        (first,) = processes(plugins, "a")
        calls = [InThread(plugins.first, "hook") for _ in range(4)]
        assert soon(lambda: doors.inside == 2, 20)
        time.sleep(0.1)
        assert doors.inside == 2
        doors.go.set()
        assert [call.result() for call in calls] == [b"a"] * 4
        assert doors.inside == 4
        assert first in processes(plugins, "a")
        assert len(processes(plugins, "a")) == 2


def test_a_call_waits_for_a_process_as_long_as_it_may_take_itself_also_for_one_that_it_holds() -> (
    None
):
    def enter() -> None:
        found.append(plugins.all("hook")[0].error)

    found: list[Any] = []
    options: dict[str, Any] = {"functions": [function(enter)], "limits": Limits(timeout=0.2)}
    with PluginSet({"a": waits_then_says("a")}, **options, isolated=True, instances=1) as plugins:
        plugins.all("hook")
        assert type(found[0]) is PoolTimeoutError
        assert "(`instances`)" in str(found[0])
        assert found[0].plugin == "a"


@both
def test_a_task_that_waits_for_a_process_can_be_cancelled(backend: str, doors: Doors) -> None:
    async def main() -> None:
        with anyio.move_on_after(0.2) as scope:
            await plugins.first_async("hook")
        assert scope.cancelled_caught
        assert doors.inside == 1
        waiting = plugins.first_async("hook")
        doors.go.set()
        assert await waiting == b"a"

    with PluginSet(
        {"a": waits_then_says("a")}, functions=functions_of(doors), isolated=True, instances=1
    ) as plugins:
        holds = InThread(plugins.first, "hook")
        assert soon(lambda: doors.inside == 1, 20)
        in_loop(backend, main)
        assert holds.result() == b"a"
        assert described(plugins, "a").last_failure is None
        assert plugins.first("hook") == b"a"


@both
def test_a_task_that_is_cancelled_cancels_no_call_of_others_in_a_process_that_it_had(
    backend: str, doors: Doors
) -> None:
    a = guest(
        export("hook", SAYS.format("a")) + export("slow", f"(call $enter) {SAYS.format('slow')}"),
        ENTRY,
    )

    async def main() -> InThread:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(plugins.all_async, "hook")
            await until(lambda: waiting() == 1)
            slow = InThread(plugins.call, "a", "slow")
            await until(lambda: doors.inside == 2)
            tasks.cancel_scope.cancel()
        return slow

    def waiting() -> int:
        loaded = plugins._state.entries["b"].loaded
        assert isinstance(loaded, Apart)
        return loaded._slots.stats().waiting

    options: dict[str, Any] = {"functions": functions_of(doors), "isolated": True, "instances": 1}
    with PluginSet({"a": a, "b": waits_then_says("b")}, **options) as plugins:
        holds = InThread(plugins.call, "b", "hook")
        assert soon(lambda: doors.inside == 1, 20)
        slow = in_loop(backend, main)
        doors.go.set()
        assert (slow.result(), holds.result()) == (b"slow", b"b")


@both
def test_tasks_take_turns_with_processes(backend: str) -> None:
    async def enter() -> None:
        inside.append(len(inside) - len(left))
        await anyio.sleep(0.01)
        left.append(1)

    inside: list[int] = []
    left: list[int] = []

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(plugins.first_async, "hook")

    with PluginSet(
        {"a": waits_then_says("a")}, functions=[function(enter)], isolated=True, instances=2
    ) as plugins:
        in_loop(backend, main)
        assert len(left) == 8
        assert max(inside) <= 1
        assert len(processes(plugins, "a")) == 2


def test_processes_end_with_what_is_replaced_disabled_or_closed_and_calls_in_them_first(
    tmp_path: Path, doors: Doors
) -> None:
    put(tmp_path / "a.wasm", waits_then_says("old"))
    put(tmp_path / "b.wasm", says("b"))
    with PluginSet.from_directory(
        tmp_path, functions=functions_of(doors), isolated=True
    ) as plugins:
        call = InThread(plugins.first, "hook")
        assert soon(lambda: doors.inside == 1, 20)
        (old,), (b,) = processes(plugins, "a"), processes(plugins, "b")
        kept = [
            entry.loaded for entry in plugins._state.entries.values()
        ]  # so that it is not the garbage collector that ends them
        put(tmp_path / "a.wasm", says("new"))
        assert plugins.reload().changed == ("a",)
        assert plugins.first("hook") == b"new"
        assert processes(plugins, "b") == {b}
        assert not is_gone(old)
        doors.go.set()
        assert call.result() == b"old"
        assert soon(lambda: is_gone(old), 20)
        (new,) = processes(plugins, "a")
        put(tmp_path / "a.wasm", b"half")
        assert plugins.reload().failed == ("a",)
        assert processes(plugins, "a") == {new}
        plugins.disable("a")
        assert soon(lambda: is_gone(new), 20)
        assert not is_gone(b)
    assert soon(lambda: is_gone(b), 20)
    assert len(kept) == 2


def test_processes_end_with_a_set_that_nobody_closed() -> None:
    plugins = PluginSet({"a": says("a")}, isolated=True)
    assert plugins.first("hook") == b"a"
    (pid,) = processes(plugins, "a")
    gc.disable()
    try:
        del plugins
        assert soon(lambda: is_gone(pid), 20)
    finally:
        gc.enable()


def test_a_process_that_was_killed_is_replaced() -> None:
    with PluginSet({"a": says("a"), "b": says("b")}, isolated=True) as plugins:
        (pid,) = processes(plugins, "a")
        os.kill(pid, signal.SIGKILL)
        assert soon(lambda: is_gone(pid), 20)
        killed, b = plugins.all("hook")
        assert isinstance(killed.error, WorkerError)
        assert b.get() == b"b"
        assert plugins.first("hook", stop_on_error=True) == b"a"
        assert processes(plugins, "a") != {pid}


def test_a_fresh_isolated_plugin_is_another_instance_in_the_same_process() -> None:
    for fresh, counted in ((False, [1, 2, 3]), (True, [1, 1, 1])):
        with PluginSet({"a": COUNTS}, isolated=True, fresh=fresh) as plugins:
            before = processes(plugins, "a")
            assert [plugins.call("a", "hook")[0] for _ in range(3)] == counted
            assert processes(plugins, "a") == before


def test_a_compiled_plugin_is_isolated_as_well_and_keeps_its_own_settings() -> None:
    compiled = CompiledPlugin(says("x"), limits=Limits(timeout=5), name="mine")
    with PluginSet([compiled], isolated=ProcessLimits(memory_bytes=2**29)) as plugins:
        before = processes(plugins, "mine")
        assert len(before) == 1
        assert plugins.first("hook") == b"x"
        assert processes(plugins, "mine") == before
        grants = described(plugins, "mine").grants
        assert grants is not None
        assert grants.timeout == 5


def test_a_process_that_cannot_start_is_why_a_plugin_is_not_loaded() -> None:
    with PluginSet({"a": says("a")}, isolated=ProcessLimits(python="/nowhere/python")) as plugins:
        assert "cannot start a worker" in error_of(plugins, "a")
        assert plugins.first("hook") is None


def test_what_cannot_be_isolated_is_the_applications_error() -> None:
    with pytest.raises(OptionError, match="cannot be recorded"):
        PluginSet([SILENT], isolated=True, observe=plugwasm.recording.Recorder())


FORKING_ISOLATED = """
import os, sys
from plugwasm.plugin_set import PluginSet
plugins = PluginSet([sys.argv[1]], isolated=True, instances=1)
assert plugins.first("hook") == b"a"
pid = os.fork()
if not pid:
    status = 1
    try:
        status = 0 if plugins.first("hook") == b"a" else 2
        plugins.close()
    finally:
        os._exit(status)
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
assert plugins.first("hook", stop_on_error=True) == b"a"
os._exit(status)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_child_has_processes_of_its_own(tmp_path: Path) -> None:
    file = put(tmp_path / "a.wasm", says("a"))
    command = [sys.executable, "-W", "ignore", "-c", FORKING_ISOLATED, str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# Imports


def test_the_module_is_not_imported_before_a_set_is_used() -> None:
    code = "import sys, plugwasm; sys.exit('plugwasm._plugin_set.plugin_set' in sys.modules or 'importlib.metadata' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


# The example


def test_the_example_shows_what_it_says() -> None:
    command = [sys.executable, str(ROOT / "examples" / "plugin_set.py")]
    done = subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "Vowels of English 1.0 serves count_vowels (on)" in done.stdout
    assert "Vowels of English 1.0 serves nothing (off)" in done.stdout
    assert "('latin',) came" in done.stdout


def test_a_manifest_beside_a_module_need_not_name_it(tmp_path: Path) -> None:
    folder = tmp_path / "slow"
    folder.mkdir()
    (folder / "plugin.toml").write_text("[manifest]\ntimeout_ms = 50\n")
    put(folder / "plugin.wasm", guest(export("spin", LOOP)))
    with (
        PluginSet(directories=[tmp_path], functions=[]) as plugins,
        pytest.raises(plugwasm.TimeoutError, match="50 ms"),
    ):
        plugins.call("slow", "spin")


def test_what_cannot_observe_is_refused_before_any_plugin_is_loaded(tmp_path: Path) -> None:
    put(tmp_path / "echo.wasm", says("x"))
    for wrong in ("text", 1, [print], iter([])):
        for isolated in (False, True):
            with pytest.raises(plugwasm.OptionError, match=r"^observe: expected"):
                PluginSet(directories=[tmp_path], functions=[], observe=wrong, isolated=isolated)  # type: ignore[arg-type]
