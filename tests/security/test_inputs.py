"""Inputs of the host, end to end: config and secrets, manifests, and the cache directory
(`docs/security.md`, 37, 38 and 40)."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import plugwasm
from plugwasm import (
    CompiledPlugin,
    Function,
    Manifest,
    ManifestError,
    ModuleError,
    Plugin,
    ValType,
)
from plugwasm._engine import wat_to_wasm
from tests.support.code_cache import with_code_of
from tests.support.guests import LOOP, export, guest, manifest
from tests.support.paths import ROOT

HEADER = b"\0asm\1\0\0\0"


# ---- 37: config and secrets ----------------------------------------------------------------------

SECRET = "canary-7d1f"
KEY = "token-name"

FAILS = guest(
    export("give_secret", f"(call $give (call $config_get <<{KEY}>>))")
    + export("trap", f"(drop (call $config_get <<{KEY}>>)) unreachable")
    + export("spin", f"(drop (call $config_get <<{KEY}>>)) {LOOP}")
    + export(
        "bad_handle",
        f"(call $output_set (i64.add (call $config_get <<{KEY}>>) (i64.const 1)) (i64.const 9999999))",
    )
    + export("exit", f"(drop (call $config_get <<{KEY}>>)) (call $proc_exit (i32.const 3))")
    + export("recursion", "(call $deep (call $deep_config))")
    + f'(func (export "code") (result i32) (drop (call $config_get <<{KEY}>>)) (i32.const 1))'
    + export("host", f"(call $host (call $config_get <<{KEY}>>))")
    + export("request", f"(drop (call $http_request (call $config_get <<{KEY}>>) (i64.const 0)))")
    + f'(func (export "wrong") (param i64) (drop (call $config_get <<{KEY}>>)))'
    + f"(func $deep_config (result i64) (call $config_get <<{KEY}>>))"
    + "(func $deep (param i64) (call $deep (local.get 0)) (call $deep (local.get 0)))",
    '(import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))',
    '(import "extism:host/user" "host" (func $host (param i64)))',
)
FAILURES: dict[str, type[plugwasm.Error]] = {
    "trap": plugwasm.TrapError,
    "spin": plugwasm.TimeoutError,
    "bad_handle": plugwasm.BadHandleError,
    "exit": plugwasm.ExitError,
    "recursion": plugwasm.TrapError,
    "code": plugwasm.GuestError,
    "host": plugwasm.HostFunctionError,
    "request": plugwasm.Error,
    "wrong": plugwasm.SignatureError,
    "missing": plugwasm.FunctionNotFoundError,
}


def _raise(plugin: plugwasm.CurrentPlugin, inputs: object, outputs: object) -> None:
    raise RuntimeError("of the application")


HOST = Function(None, "host", [ValType.I64], [], _raise)


def make_secret_plugin(**fields: Any) -> dict[str, Any]:
    return manifest(FAILS, config={KEY: SECRET, "other": f"x{SECRET}x"}, timeout_ms=500, **fields)


def all_words_of(error: BaseException) -> str:
    shown = [str(error), repr(error), repr(vars(error)), *traceback.format_exception(error)]
    shown.append(pickle.dumps(error).decode("latin-1"))
    return "\n".join(shown)


@pytest.mark.parametrize("failure", FAILURES)
def test_call_failure_hides_config(
    failure: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """No error of a call shows config."""
    caplog.set_level(logging.NOTSET)
    with Plugin(make_secret_plugin(), wasi=True, functions=[HOST]) as plugin:
        assert plugin.call("give_secret") == SECRET.encode(), "the guest does have it"
        with pytest.raises(FAILURES[failure]) as caught:
            plugin.call(failure)
        assert SECRET not in all_words_of(caught.value)
        assert plugin.call("give_secret") == SECRET.encode()
    assert SECRET not in caplog.text
    assert SECRET not in "".join(capfd.readouterr())


def test_no_object_shows_config() -> None:
    document = make_secret_plugin()
    document["wasm"] = [{"data": wat_to_wasm(FAILS.encode())}]
    parsed = plugwasm.Manifest(
        wasm=[plugwasm.WasmSource(data=document["wasm"][0]["data"])],
        config=document["config"],
        timeout_ms=document["timeout_ms"],
    )
    compiled = CompiledPlugin(parsed, wasi=True, functions=[HOST])
    with Plugin(compiled) as plugin:
        assert plugin.call("give_secret") == SECRET.encode()
        for thing in (
            parsed,
            compiled,
            plugin,
            plugin.cancel_handle(),
            compiled.exports,
            compiled.imports,
            HOST,
        ):
            for shown in (repr(thing), str(thing), f"{thing}"):
                assert SECRET not in shown
        assert SECRET not in repr(plugin)
    assert KEY in repr(parsed), "its name is no secret"


STOPPED_EARLIER: dict[str, dict[str, Any]] = {
    "not Wasm": {"wasm": [{"data": b"\x7fELF"}]},
    "not valid": {"wasm": [{"data": HEADER + b"\xff\xff"}]},
    "a missing import": {"wasm": [{"data": b'(module (import "a" "b" (func)))'}]},
    "too much memory": {"wasm": [{"data": b"(module (memory 1000))"}], "memory": {"max_pages": 10}},
    "a missing file": {"wasm": [{"path": "/nowhere/m.wasm"}]},
    "a missing directory": {"allowed_paths": {"/nowhere": "/"}},
    "a wrong hash": {"wasm": [{"data": HEADER, "hash": "0" * 64}]},
    "a server that is not there": {
        "wasm": [
            {"url": f"http://user:{SECRET}@127.0.0.1:9/{SECRET[:0]}m", "headers": {"X-Key": SECRET}}
        ]
    },
    "an unknown field": {SECRET[:0] + "unknown": SECRET},
    "a wrong value in config": {"config": {KEY: [SECRET]}},
    "a config that is none": {"config": SECRET},
    "a number that is none": {"timeout_ms": SECRET},
    "a wrong hash text": {"wasm": [{"data": HEADER, "hash": SECRET}]},
    "a header that cannot be sent": {
        "wasm": [{"url": "http://127.0.0.1:9/", "headers": {"X-Key": f"{SECRET}\r\n"}}]
    },
    "data that is no base64": {"wasm": [{"data": f"{SECRET}!"}]},
}


@pytest.mark.parametrize("what", STOPPED_EARLIER)
def test_load_failure_hides_secrets(
    what: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """No error before the first call shows config or headers."""
    caplog.set_level(logging.NOTSET)
    document = {**make_secret_plugin(), **STOPPED_EARLIER[what]}
    with pytest.raises(plugwasm.Error) as caught:
        Plugin(document, wasi=True, functions=[HOST])
    assert SECRET not in all_words_of(caught.value)
    assert SECRET not in caplog.text
    assert SECRET not in "".join(capfd.readouterr())


# ---- 38: manifests -------------------------------------------------------------------------------

GOOD = base64.b64encode(HEADER).decode()
VALUES: dict[str, Any] = {
    "null": None,
    "true": True,
    "zero": 0,
    "minus one": -1,
    "2^64": 2**64,
    "a huge number": 10**400,
    "a fraction": 0.5,
    "infinity": 1e999,
    "text": "text",
    "empty text": "",
    "a list": [],
    "a list of lists": [[]],
    "a list of numbers": [1],
    "an object": {},
    "an object of objects": {"a": {}},
    "an object of numbers": {"a": 1},
    "an object of nulls": {"a": None},
}
RIGHT: dict[str, tuple[str, ...]] = {
    "wasm": (),
    "wasm[0]": (),
    "wasm[0].path": (),
    "wasm[0].data": (),
    "wasm[0].url": (),
    "wasm[0].headers": ("null", "an object"),
    "wasm[0].method": ("null",),
    "wasm[0].name": ("null", "text"),
    "wasm[0].hash": ("null",),
    "memory": ("null", "an object"),
    "memory.max_pages": ("null", "zero"),
    "memory.max_http_response_bytes": ("null", "zero"),
    "memory.max_var_bytes": ("null", "zero"),
    "config": ("null", "an object"),
    "allowed_hosts": ("null", "a list"),
    "allowed_paths": ("null", "an object"),
    "timeout_ms": ("null", "zero"),
    "unknown": (),
    "wasm[0].unknown": (),
    "memory.unknown": (),
}

GOOD_BUT = {
    ("wasm[0].path", "text"): "no such file",
    ("wasm[0].data", "text"): "what this is in base64 is no module",
    ("wasm[0].data", "empty text"): "empty",
}


def with_field(field: str, value: object) -> dict[str, Any]:
    """Return the smallest valid manifest with one field replaced."""
    document: dict[str, Any] = {"wasm": [{"data": GOOD}], "memory": {}}
    if field == "wasm[0]":
        document["wasm"] = [value]
    elif field.startswith("wasm[0]."):
        name = field.partition(".")[2]
        source = {"data": GOOD, name: value}
        if name in ("path", "url"):
            del source["data"]
        document["wasm"] = [source]
    elif field.startswith("memory."):
        document["memory"] = {field.partition(".")[2]: value}
    else:
        document[field] = value
    return document


@pytest.mark.parametrize("field", RIGHT)
def test_field_type_in_each_manifest_form(field: str, tmp_path: Path) -> None:
    """A field of the wrong type is refused in each form of manifest."""
    file = tmp_path / "manifest.json"
    for name, value in VALUES.items():
        document = with_field(field, value)
        text = json.dumps(document).replace("Infinity", "1e999")
        file.write_text(text)
        for form in (document, text, text.encode(), file, str(file)):
            try:
                Plugin(Manifest.parse(form) if isinstance(form, bytes) else form).close()
            except plugwasm.Error as error:
                if (field, name) in GOOD_BUT:
                    assert not isinstance(error, ManifestError)
                    continue
                assert isinstance(error, ManifestError), (name, error)
                assert name not in RIGHT[field], (name, error)
                assert len(str(error)) < 1000
                if name == "infinity" and form is not document:
                    continue  # no number of JSON
                where = (
                    "wasm[0]"
                    if field in ("wasm[0].path", "wasm[0].url", "wasm[0].data")
                    else field.removesuffix("unknown").rstrip(".")
                )
                assert (error.field or "").startswith(where), (name, error.field)
            else:
                assert name in RIGHT[field], f"{name} was accepted"


def test_wrong_hash_before_compile() -> None:
    """A wrong hash is found before any module is compiled.

    Otherwise unverified bytes would reach the compiler: here they are not even valid.
    """
    bad, good = HEADER + b"\xff\xff", wat_to_wasm(b'(module (func (export "f")))')
    right = hashlib.sha256(good).hexdigest()
    wrong = right[:-1] + ("0" if right[-1] != "0" else "1")

    def source(data: bytes, hash: str | None = None, name: str | None = None) -> dict[str, Any]:
        return {"data": data, "hash": hash, "name": name}

    with pytest.raises(plugwasm.HashMismatchError) as caught:
        Plugin({"wasm": [source(bad, right)]})
    assert caught.value.field == "wasm[0].hash"
    with pytest.raises(plugwasm.HashMismatchError) as caught:
        Plugin({"wasm": [source(bad, None, "lib"), source(good, wrong, "main")]})
    assert caught.value.field == "wasm[1].hash"
    with pytest.raises(ModuleError):
        Plugin({"wasm": [source(bad, hashlib.sha256(bad).hexdigest())]})
    for hash in (right, right.upper()):
        assert Plugin({"wasm": [source(good, hash)]}).call("f") == b""


JUNK: dict[str, str] = {
    "objects in objects": '{"wasm":' * 300_000,
    "lists in lists": '{"wasm":' + "[" * 300_000 + "]" * 300_000 + "}",
    "tables in tables": "wasm = " + "{a=" * 300_000,
    "a long key": '{"wasm": [{"data": "' + GOOD + '"}], "' + "k" * 3_000_000 + '": 1}',
    "a long string": '{"wasm": "' + "x" * 3_000_000 + '"}',
    "a long number": '{"timeout_ms": ' + "9" * 1_000_000 + "}",
    "a dotted key": "wasm." * 500_000 + "a = 1",
    "many keys": "{" + ",".join(f'"{i}":0' for i in range(100_000)) + "}",
    "many modules": '{"wasm":[' + "{}," * 50_000 + "{}]}",
    "lines of nothing": "\n" * 3_000_000 + "wasm",
    "no text": '{"\ud800"}',
}


@pytest.mark.parametrize("form", ["text", "bytes", "file"])
@pytest.mark.parametrize("junk", JUNK)
def test_megabytes_of_junk(junk: str, form: str, tmp_path: Path) -> None:
    """Megabytes of junk are refused quickly."""
    text = JUNK[junk]
    plugin: Any = text
    if form != "text":
        plugin = text.encode(errors="surrogatepass")
    if form == "file":
        (tmp_path / "manifest.json").write_bytes(plugin)
        plugin = tmp_path / "manifest.json"
    start = time.thread_time()
    with pytest.raises(plugwasm.Error) as caught:
        Plugin(plugin)
    assert time.thread_time() - start < 10
    assert len(str(caught.value)) < 1000


# ---- 40: the cache directory ---------------------------------------------------------------------

RUNS = """
import logging, sys
import plugwasm
logging.basicConfig(format="%(message)s")
print(int.from_bytes(plugwasm.Plugin(sys.argv[1], name="p").call("f"), "little"))
"""
WARNING = "cache of compiled code"
STRANGER = 54321


def run_in_child(module: str, cache: Path) -> tuple[int, str]:
    """Return the function's output in a process that has not seen the plugin, and that process's
    log."""
    arguments = [sys.executable, "-W", "ignore", "-c", RUNS, module]
    child = subprocess.run(
        arguments,
        cwd=ROOT,
        env={**os.environ, "PLUGWASM_CACHE": str(cache)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert child.returncode == 0, child.stderr
    return int(child.stdout), child.stderr


ZERO, ONE, TWO = (guest(export("f", f"(call $answer (i64.const {n}))")) for n in range(3))


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Make a cache in which the plugin that answers 1 has the code of the one that answers 2.
    Return it and the entry's name."""
    cache = tmp_path_factory.mktemp("pristine") / "cache"
    entries: list[set[str]] = []
    for answer, module in enumerate((ZERO, ONE, TWO)):
        assert run_in_child(module, cache) == (answer, "")
        entries.append(set(os.listdir(cache)))
    (one,), (two,) = entries[1] - entries[0], entries[2] - entries[1]
    forged = with_code_of((cache / one).read_bytes(), (cache / two).read_bytes())
    (cache / one).write_bytes(forged)
    return cache, one


@pytest.fixture
def forged_entry(pristine: tuple[Path, str], tmp_path: Path) -> Path:
    """Copy that cache's entry, which answers 2 as long as it is trusted."""
    cache, name = pristine
    copy = tmp_path / "deep" / "cache"
    shutil.copytree(cache, copy)
    return copy / name


def _move(path: Path) -> Path:
    return path.rename(path.with_name("moved"))


def _to_fifo(entry: Path) -> None:
    entry.unlink()
    os.mkfifo(entry, 0o600)


def _flip(entry: Path, at: int) -> None:
    content = bytearray(entry.read_bytes())
    content[at] ^= 1
    entry.write_bytes(content)


DOUBTFUL: dict[str, Callable[[Path], object]] = {
    "a directory that the group can read": lambda entry: entry.parent.chmod(0o740),
    "a directory that others can read": lambda entry: entry.parent.chmod(0o704),
    "a directory that others can enter": lambda entry: entry.parent.chmod(0o701),
    "a directory that others can write": lambda entry: entry.parent.chmod(0o702),
    "a directory like /tmp": lambda entry: entry.parent.chmod(0o1777),
    "a symlink to the directory": lambda entry: entry.parent.symlink_to(_move(entry.parent)),
    "an entry that others can read": lambda entry: entry.chmod(0o604),
    "an entry that others can write": lambda entry: entry.chmod(0o602),
    "an entry that is a symlink": lambda entry: entry.symlink_to(_move(entry)),
    "an entry that is a pipe": _to_fifo,
}
IF_ROOT: dict[str, Callable[[Path], object]] = {
    "a directory of somebody else": lambda entry: os.chown(entry.parent, STRANGER, -1),
    "an entry of somebody else": lambda entry: os.chown(entry, STRANGER, -1),
}
if hasattr(os, "geteuid") and os.geteuid() == 0:
    DOUBTFUL |= IF_ROOT
DAMAGED: dict[str, Callable[[Path], object]] = {
    "empty": lambda entry: os.truncate(entry, 0),
    "of one byte": lambda entry: os.truncate(entry, 1),
    "cut in half": lambda entry: os.truncate(entry, entry.stat().st_size // 2),
    "one byte short": lambda entry: os.truncate(entry, entry.stat().st_size - 1),
    "one byte long": lambda entry: entry.write_bytes(entry.read_bytes() + b"x"),
    "flipped at its start": lambda entry: _flip(entry, 0),
    "flipped in the middle": lambda entry: _flip(entry, entry.stat().st_size // 2),
    "flipped in its code": lambda entry: _flip(entry, 4096),
    "flipped at its end": lambda entry: _flip(entry, -1),
    "flipped in its checksum": lambda entry: _flip(entry, -12),
}


def test_valid_cache_entry_is_run(forged_entry: Path) -> None:
    """A valid entry is run.

    So the tests below show that an entry is refused, and not that there is no cache.
    """
    assert run_in_child(ONE, forged_entry.parent) == (2, "")


@pytest.mark.parametrize("fault", DOUBTFUL)
def test_foreign_cache_entry_is_not_run(fault: str, forged_entry: Path) -> None:
    """An entry that someone else could have changed is not run, and the log says so once."""
    DOUBTFUL[fault](forged_entry)
    answer, log = run_in_child(ONE, forged_entry.parent)
    assert answer == 1
    assert log.count(WARNING) == 1
    assert str(forged_entry.parent) in log


@pytest.mark.parametrize("fault", DAMAGED)
def test_damaged_cache_entry_is_replaced(fault: str, forged_entry: Path) -> None:
    """A damaged entry is not run, and is replaced."""
    DAMAGED[fault](forged_entry)
    assert run_in_child(ONE, forged_entry.parent) == (1, "")
    whole = forged_entry.read_bytes()
    assert run_in_child(ONE, forged_entry.parent) == (1, "")
    assert forged_entry.read_bytes() == whole, "the second process found it good"
