"""Whatever names strangers choose, a log record is one record, and an error message is one line
of bounded length."""

from __future__ import annotations

import io
import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import plugwasm
from plugwasm import (
    Error,
    GuestError,
    HostFunctionError,
    IsolatedPlugin,
    Manifest,
    OptionError,
    Plugin,
    PluginPool,
    PluginRef,
    PluginSet,
    host_fn,
    observing,
)
from plugwasm._runtime import code_cache
from plugwasm.errors import escape_line, truncate
from tests.support.guests import export, guest

FORGED = "\n2024-01-01 CRITICAL root: forged\r\x1b[2J\u2028\u202e\x85\udcff"
"""Ends a line in each way there is, clears a terminal, turns the direction, and cannot be encoded."""
ECHO = guest(export("echo", "(call $echo)"))


class Log:
    """The content of an application's log file, with the fields of its records."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        self.handler = logging.StreamHandler(self.stream)
        self.handler.setFormatter(
            logging.Formatter(
                "RECORD %(levelname)s %(name)s [%(plugin)s] [%(function)s] %(message)s",
                defaults=NO_FIELDS,
            )
        )

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    def check(self, *, records: int | None = None) -> None:
        """Check that each line is one of our records or indented, and has no control characters
        and no text that cannot be encoded."""
        lines = self.text.split("\n")
        assert lines.pop() == ""
        assert lines
        for line in lines:
            assert line.startswith(("RECORD ", "    ")), line
            assert line.isprintable(), ascii(line)
            assert len(line) < 5000
        self.text.encode()
        if records is not None:
            assert sum(line.startswith("RECORD ") for line in lines) == records


NO_FIELDS = {"plugin": "", "function": ""}


@pytest.fixture
def log() -> Iterator[Log]:
    log = Log()
    logger = logging.getLogger("plugwasm")
    level = logger.level
    logger.addHandler(log.handler)
    logger.setLevel(1)
    yield log
    logger.removeHandler(log.handler)
    logger.setLevel(level)


def is_one_line(message: str) -> bool:
    return message.isprintable() and len(message) < 5000


# ---- the log -------------------------------------------------------------------------------------


def test_a_cache_in_a_wild_directory(tmp_path: Path, log: Log) -> None:
    """The cache is in a directory with a hostile name."""
    place = tmp_path / ("c" + FORGED)
    place.mkdir(mode=0o777)
    place.chmod(0o777)
    before = code_cache._Settings.directory
    try:
        code_cache.configure(place)
        Plugin(guest(export("f", "nop") + export("only_here", "")))
        log.check(records=1)
        assert "is not used" in log.text
    finally:
        code_cache._Settings.directory = before
        code_cache._Settings.warned = False


def test_plugins_in_wild_files_and_folders(tmp_path: Path, log: Log) -> None:
    """The plugins are in files and folders with hostile names."""
    (tmp_path / f"a{FORGED}.wasm").write_text("no module")
    (tmp_path / f"b{FORGED}").mkdir()
    (tmp_path / f"b{FORGED}" / "plugin.toml").write_text("[plugin]\n")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "manifest.json").write_bytes(
        msgspec.json.encode({"wasm": [{"path": "x\nforged"}, {"name": "y\nforged", "data": ""}]})
    )
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "plugin.toml").write_text('[plugin]\n"x\\nforged" = 1\n')
    with PluginSet.from_directory(tmp_path) as plugins:
        log.check(records=4)
        for description in plugins.describe():
            assert is_one_line(str(description.error))
            assert is_one_line(description.name)
            assert is_one_line(description.source)


def test_a_missing_directory_of_plugins(tmp_path: Path, log: Log) -> None:
    """A directory of plugins does not exist."""
    place = tmp_path / f"d{FORGED}"
    place.mkdir()
    with PluginSet.from_directory(place) as plugins:
        place.rmdir()
        from tests.support.waiting import soon

        plugins.watch(0.01)
        assert soon(lambda: log.text)
    log.check()


def test_a_failure_of_a_plugin_in_a_set(log: Log) -> None:
    """A plugin of a set fails."""

    def fail() -> None:
        raise ValueError("x" + FORGED)

    wasm = guest(
        export("hook", "(call $fail)") + export("said", "(call $error_set (call $copy))"),
        '(import "extism:host/user" "fail" (func $fail))',
    )
    with PluginSet({"a": wasm}, functions=[host_fn(name="fail")(fail)]) as plugins:
        plugins.all("hook")
        plugins.all("said", "message" + FORGED.replace("\udcff", ""))
        plugins.all("hook", parse=lambda output: output)
        log.check(records=3)
        assert is_one_line(str(plugins.describe()[0].last_failure))


def test_a_callback_exception_is_indented(tmp_path: Path, log: Log) -> None:
    """The exception of an application's callback is indented."""
    from tests.support.waiting import soon

    def on_change(changes: object) -> None:
        raise ValueError("because of" + FORGED)

    with PluginSet.from_directory(tmp_path) as plugins:
        plugins.watch(0.01, on_change)
        (tmp_path / "a.wasm").write_text(ECHO)
        assert soon(lambda: "`on_change` raised" in log.text and "because of" in log.text)
    log.check()
    assert "    ValueError: because of\n    2024-01-01 CRITICAL root: forged\\r" in log.text
    assert __file__ in log.text, "where it was raised is there"


def test_an_observer_exception_is_indented(log: Log) -> None:
    """The exception of an observer is indented."""

    class Broken(observing.Observer):
        def on_call(self, call: observing.Call) -> None:
            raise ValueError("because of" + FORGED)

    with Plugin(ECHO, observe=Broken()) as plugin:
        plugin.call("echo")
    log.check(records=1)
    assert "    ValueError: because of\n    2024-01-01 CRITICAL root: forged\\r" in log.text


def test_a_record_with_exc_info(log: Log) -> None:
    """A record of an exception has the `exc_info` that logging expects."""
    records: list[logging.LogRecord] = []
    log.handler.addFilter(lambda record: not records.append(record))

    class Broken(observing.Observer):
        def on_call(self, call: observing.Call) -> None:
            raise ValueError("x" * 10_000 + "\n" * 5000)

    with Plugin(ECHO, observe=Broken()) as plugin:
        plugin.call("echo")
    (record,) = records
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)
    assert (record.filename, record.levelname) == ("instrumentation.py", "ERROR")
    assert len(log.text) < 100_000
    log.check(records=1)


def test_a_log_of_calls(log: Log) -> None:
    function = "f\nforged"
    wasm = f'(module (func (export "{function.replace(chr(10), chr(92) + "0a")}")))'
    with Plugin(
        wasm, name="plugin" + FORGED.replace("\udcff", ""), observe=observing.CallLog()
    ) as plugin:
        plugin.call(function)
        with pytest.raises(Error):
            plugin.call("g" + FORGED)
    log.check(records=2)


@pytest.mark.parametrize("kind", [Plugin, IsolatedPlugin])
def test_a_log_line_with_export_name(kind: type[Plugin], tmp_path: Path, log: Log) -> None:
    """A plugin's log line shows the name of its export."""
    file = tmp_path / f"p{FORGED}.wasm"
    file.write_text(guest('(func (export "f\\0aforged") (call $log_warn (call $copy)))'))
    with kind(file) as plugin:
        plugin.call("f\nforged", "hello\u2028\u2029\u202e\u2066\x85" + FORGED.replace("\udcff", ""))
        assert is_one_line(plugin.name)
    log.check(records=1)
    assert "[f\\nforged]" in log.text


def test_logging_of_the_official_sdk(tmp_path: Path) -> None:
    code = """
import sys, plugwasm
plugwasm.set_log_file(sys.argv[1], "trace")
with plugwasm.Plugin(sys.argv[2].encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")) as plugin:
    plugin.call("f")
"""
    file = tmp_path / "p\nforged.wasm"
    file.write_text(guest(export("f", "(call $log_info <<hello\nforged>>)")))
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "log"), str(file)], check=True, env=os.environ
    )
    first, second = (tmp_path / "log").read_text().splitlines()
    assert first.endswith("plugwasm.plugin.p\\nforged: hello")
    assert second == "    forged", "it cannot pass for a record"


# ---- errors --------------------------------------------------------------------------------------

ERRORS: dict[str, Callable[[Path], object]] = {
    "no such file": lambda tmp: Plugin(tmp / f"a{FORGED}.wasm"),
    "a directory": lambda tmp: Plugin(wild_folder(tmp)),
    "no module": lambda tmp: Plugin(wild_file(tmp, "x.wasm", b"no module")),
    "an empty file": lambda tmp: Plugin(wild_file(tmp, "x.wasm", b"")),
    "a component": lambda tmp: Plugin(wild_file(tmp, "x.wasm", b"\0asm\x0d\0\x01\0")),
    "a manifest in a file": lambda tmp: Plugin(wild_file(tmp, "x.json", b'{"wasm": 1}')),
    "a field of a manifest": lambda tmp: Plugin({"wasm": [{"data": b"", "x" + FORGED: 1}]}),
    "a hash": lambda tmp: Plugin(
        {"wasm": [{"path": str(wild_file(tmp, "x.wasm", ECHO.encode())), "hash": "0" * 64}]}
    ),
    "a module that is broken": lambda tmp: Plugin(
        {"wasm": [{"data": b"(module", "name": "m\nforged"}, {"data": ECHO.encode()}]}
    ),
    "an import of a named module": lambda tmp: Plugin(
        {
            "wasm": [
                {"data": b'(module (import "a" "b" (func)))', "name": "m\nforged"},
                {"data": ECHO.encode()},
            ]
        }
    ),
    "an import of a wild name": lambda tmp: Plugin(
        '(module (import "a\\0aforged" "b\\0aforged" (func)))'
    ),
    "a directory to be granted": lambda tmp: Plugin(
        {"wasm": [{"data": ECHO.encode()}], "allowed_paths": {f"x{FORGED}": "/x"}}, wasi=True
    ),
    "no such function": lambda tmp: Plugin(ECHO).call("f" + FORGED),
    "no such function in a worker": lambda tmp: IsolatedPlugin(ECHO).call("f" + FORGED),
    "a wrong signature": lambda tmp: Plugin(
        '(module (func (export "f\\0aforged") (param i32)))'
    ).call("f\nforged"),
    "a trap": lambda tmp: Plugin('(module (func (export "f\\0aforged") unreachable))').call(
        "f\nforged"
    ),
    "a trap in a worker": lambda tmp: IsolatedPlugin(
        '(module (func (export "f\\0aforged") unreachable))'
    ).call("f\nforged"),
    "an output": lambda tmp: Plugin('(module (func (export "f\\0aforged")))').call(
        "f\nforged", returns=int
    ),
    "no such hook": lambda tmp: PluginSet({"a": ECHO}, hooks=["echo"]).first("e" + FORGED),
    "no such plugin": lambda tmp: PluginSet({"a": ECHO}).call("b" + FORGED, "echo"),
    "a setting": lambda tmp: Plugin(ECHO, config={"k" + FORGED: "v"}),
    "a var": lambda tmp: Plugin(ECHO, vars={"k" + FORGED: "v"}),
    "a recording": lambda tmp: plugwasm.recording.load(wild_file(tmp, "x.json", b"{}")),
    "an interface": lambda tmp: Plugin(ECHO, name="p\nforged").bind(Wants),
    "a closed pool": lambda tmp: closed_pool().call("echo"),
}


class Wants:
    def missing(self, text: str) -> str:
        raise NotImplementedError


def wild_file(folder: Path, name: str, content: bytes) -> Path:
    file = folder / f"w{FORGED}{name}"
    file.write_bytes(content)
    return file


def wild_folder(folder: Path) -> Path:
    (folder / f"w{FORGED}").mkdir()
    return folder / f"w{FORGED}"


def closed_pool() -> PluginPool:
    pool = PluginPool(factory=lambda: Plugin(ECHO), name="p\nforged")
    pool.close()
    return pool


@pytest.mark.parametrize("make", ERRORS.values(), ids=ERRORS.keys())
def test_an_error_message_is_one_line(make: Callable[[Path], object], tmp_path: Path) -> None:
    """The message of an error is one line."""
    with pytest.raises(Error) as caught:
        make(tmp_path)
    assert is_one_line(caught.value.message), ascii(caught.value.message)
    assert caught.value.args == (caught.value.message,)
    again = pickle.loads(pickle.dumps(caught.value))
    assert again.message == caught.value.message


@pytest.mark.parametrize("kind", [Plugin, IsolatedPlugin])
def test_a_host_exception_is_one_line(kind: type[Plugin]) -> None:
    """A host function's exception is shown in one line."""

    def fail() -> None:
        raise ValueError("x" + FORGED + "y" * 10**6)

    wasm = guest(export("f", "(call $fail)"), '(import "extism:host/user" "fail" (func $fail))')
    with (
        kind(wasm, functions=[host_fn(name="fail")(fail)]) as plugin,
        pytest.raises(HostFunctionError) as caught,
    ):
        plugin.call("f")
    assert is_one_line(caught.value.message)
    assert "\n" in str(caught.value.__cause__)


def test_a_guest_message_is_unchanged() -> None:
    """A guest's own error message is unchanged."""
    with (
        Plugin(guest(export("f", "(call $error_set (call $copy))"))) as plugin,
        pytest.raises(GuestError) as caught,
    ):
        plugin.call("f", "first line\nsecond line")
    assert caught.value.message == caught.value.guest_message == "first line\nsecond line"


def test_names_of_a_megabyte_are_cut() -> None:
    long = "n" * 10**6
    for make in (
        lambda: Plugin(ECHO).call(long),
        lambda: PluginSet({"a": ECHO}).call(long, "echo"),
        lambda: Plugin(long),
    ):
        with pytest.raises(Error) as caught:
            make()
        assert len(caught.value.message) < 2000
    with Plugin(ECHO, name=long) as plugin:
        assert len(plugin.name) < 300


@pytest.mark.parametrize(
    "text", ["plain", "é ü 漢字", "non-breaking\u00a0space", "", "back\\slash"]
)
def test_harmless_text_is_unchanged(text: str) -> None:
    """Harmless text is shown unchanged."""
    assert escape_line(text) == truncate(text) == text


def test_the_cli_writes_its_own_lines_only(tmp_path: Path) -> None:
    """The command line writes only lines of its own."""
    file = tmp_path / "x\nerror: forged\x1b[2J.wasm"
    file.write_text(guest('(func (export "f\\0aerror: forged") unreachable)'))
    for command in (
        ["call", str(file), "g"],
        ["call", str(file), "f\nerror: forged"],
        ["inspect", str(file)],
        ["inspect", str(file) + "?"],
    ):
        run = subprocess.run(
            [sys.executable, "-m", "plugwasm", *command], capture_output=True, text=True, timeout=60
        )
        both = run.stdout + run.stderr
        assert both
        assert "\x1b[2J" not in both
        assert not any(line.startswith("error: forged") for line in both.splitlines())


# ---- text that cannot be encoded -----------------------------------------------------------------

BAD = "\ud800"
WASM = ECHO.encode()


def run_async(make: Callable[[], Any]) -> object:
    import asyncio

    async def main() -> object:
        return await make()

    return asyncio.run(main())


SURROGATES: dict[str, Callable[[], object]] = {
    "config": lambda: Plugin(ECHO, config={"k": BAD}),
    "config, a key": lambda: Plugin(ECHO, config={BAD: "v"}),
    "config, a key to be removed": lambda: Plugin(ECHO, config={BAD: None}),
    "config of a worker": lambda: IsolatedPlugin(ECHO, config={"k": BAD}),
    "config of a pool": lambda: PluginPool(ECHO, config={"k": BAD}).call("echo"),
    "config of a set": lambda: PluginSet({"a": ECHO}, config={"a": {"k": BAD}}),
    "config of a ref": lambda: PluginRef(ECHO, config={"k": BAD}),
    "config of a harness": lambda: plugwasm.testing.Harness(ECHO, config={"k": BAD}).plugin(),
    "configure": lambda: PluginSet({"a": ECHO}).configure("a", {"k": BAD}),
    "update_config": lambda: Plugin(ECHO).update_config({"k": BAD}),
    "config of a manifest": lambda: Plugin({"wasm": [{"data": WASM}], "config": {"k": BAD}}),
    "config of a Manifest": lambda: Plugin(
        Manifest(wasm=[plugwasm.WasmSource(data=WASM)], config={"k": BAD})
    ),
    "a manifest's text": lambda: Plugin('{"wasm": [], "config": {"k": "' + BAD + '"}}'),
    "a manifest's escapes": lambda: Plugin('{"wasm": [{"path": "x"}], "config": {"k": "\\ud800"}}'),
    "a header of a manifest": lambda: Plugin(
        {"wasm": [{"url": "http://127.0.0.1:9/", "headers": {"a": BAD}}]}
    ),
    "vars": lambda: Plugin(ECHO, vars={BAD: b""}),
    "name": lambda: Plugin(ECHO, name=BAD),
    "name of a worker": lambda: IsolatedPlugin(ECHO, name=BAD),
    "name of a pool": lambda: PluginPool(factory=lambda: Plugin(ECHO), name=BAD),
    "name of a ref": lambda: PluginRef(ECHO, name=BAD),
    "a function": lambda: Plugin(ECHO).call(BAD),
    "a function of a worker": lambda: IsolatedPlugin(ECHO).call(BAD),
    "a host function": lambda: host_fn(name=BAD)(lambda: None),
    "its namespace": lambda: host_fn(name="f", namespace=BAD)(lambda: None),
    "a module for a worker": lambda: IsolatedPlugin(
        {"wasm": [{"data": WASM, "name": BAD}, {"data": WASM}]}
    ),
    "input": lambda: Plugin(ECHO).call("echo", BAD),
    "input of a worker": lambda: IsolatedPlugin(ECHO).call("echo", BAD),
    "input, observed": lambda: Plugin(ECHO, observe=True).call("echo", BAD),
    "input as JSON": lambda: Plugin(ECHO).call("echo", {"a": [BAD]}),
    "input by a codec": lambda: Plugin(ECHO).call("echo", BAD, codec=plugwasm.codecs.MSGPACK),
    "input to a pool": lambda: PluginPool(ECHO).call("echo", BAD),
    "input to map": lambda: list(PluginPool(ECHO).map("echo", [BAD])),
    "input to a set": lambda: PluginSet({"a": ECHO}).first("echo", BAD),
    "input to all of a set": lambda: PluginSet({"a": ECHO}).all("echo", BAD),
    "input to a task": lambda: run_async(lambda: Plugin(ECHO).call_async("echo", BAD)),
    "directories": lambda: PluginSet({"a": ECHO}, allowed_paths=[BAD]),
    "a host's name": lambda: plugwasm.Egress(allowed_hosts=[BAD]),
}


@pytest.mark.parametrize("make", SURROGATES.values(), ids=SURROGATES.keys())
def test_a_lone_surrogate_is_an_error(make: Callable[[], object]) -> None:
    """A lone surrogate is one of our errors, which says where it is."""
    with pytest.raises(Error) as caught:
        make()
    caught.value.message.encode()
    assert isinstance(
        caught.value, (OptionError, plugwasm.ManifestError, plugwasm.FunctionNotFoundError)
    )
    assert "UnicodeEncodeError" not in caught.value.message


def test_a_refused_input_keeps_the_plugin() -> None:
    """The plugin stays usable after an input that cannot be encoded."""
    with Plugin(ECHO) as plugin:
        assert plugin.call("echo", "before") == b"before"
        with pytest.raises(
            OptionError, match=r"the input of `echo` of plugin `plugin`.* at character 1"
        ):
            plugin.call("echo", "a" + BAD)
        assert plugin.call("echo", "é") == "é".encode()


def test_a_host_function_returning_one() -> None:
    """A host function returns a lone surrogate."""
    wasm = guest(
        export("f", "(call $give (call $text))"),
        '(import "extism:host/user" "text" (func $text (result i64)))',
    )

    def text() -> str:
        return "a" + BAD

    for kind in (Plugin, IsolatedPlugin):
        with (
            kind(wasm, functions=[host_fn(name="text")(text)]) as plugin,
            pytest.raises(HostFunctionError) as caught,
        ):
            plugin.call("f")
        assert isinstance(caught.value.__cause__, UnicodeEncodeError)
        caught.value.message.encode()


def test_an_environment_variable_not_utf8(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment variable is not UTF-8."""
    monkeypatch.setenv("PLUGWASM_TEST_SECRET", "\udcff")
    ref = PluginRef(
        {
            "wasm": [{"data": WASM}],
            "config": {"k": plugwasm.FromEnvironment("PLUGWASM_TEST_SECRET")},
        }
    )
    with pytest.raises(OptionError, match=r"config\.k: the variable PLUGWASM_TEST_SECRET"):
        ref.compiled()


def test_file_names_not_utf8_in_a_worker(tmp_path: Path) -> None:
    """Plugin files whose names are not UTF-8 run in a worker too."""
    file = tmp_path / "x\udcff.wasm"
    file.write_text(ECHO)
    for kind in (Plugin, IsolatedPlugin):
        with kind(file) as plugin:
            assert plugin.call("echo", "hi") == b"hi"
            assert plugin.name == "x\\udcff"
    granted = tmp_path / "d\udcff"
    granted.mkdir()
    manifest = {"wasm": [{"data": WASM}], "allowed_paths": {str(granted): "/d"}}
    with Plugin(manifest, wasi=True) as plugin:
        plugin.call("echo")
    with pytest.raises(OptionError, match="not UTF-8"):
        IsolatedPlugin(manifest, wasi=True)
