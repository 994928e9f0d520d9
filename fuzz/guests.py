"""A guest that calls anything in any order gets a result or a plugwasm error, and harms nothing.

Modules are generated: functions that call every import of `extism:host/env`, WASI preview 1 and
host functions of several signatures, with boundary values, random values, results of earlier calls,
and sometimes correct values. After each such call, a well-behaved function of the same plugin gives
its correct answer, with a fresh instance if necessary. At the end no descriptor is open, and
everything outside of the granted directories, or inside of one that is granted for reading, is
unchanged.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import tempfile
from pathlib import Path
from unittest import mock

import plugwasm
from plugwasm._http import connection
from plugwasm.errors import EngineError, HostFunctionError, TimeoutError
from tests.support.guests import guest
from tests.support.waiting import soon
from tests.support.wasi_guest import snapshot

from .choices import Choices
from .guest_modules import FUNCTIONS, Planted, generate_module

COVERED: list[str] = []
SIZES = (7, 11)
TIMEOUT_MS = 250
MAX_PAGES = 64
FUEL = 3_000_000
INPUT = bytes(range(200))

logging.getLogger("plugwasm").addHandler(logging.NullHandler())

# Possible causes of a `HostFunctionError` here: a plugwasm error, `Planted`, or an argument of the
# guest that is not text or JSON.
_CAUSES = (plugwasm.Error, Planted, ValueError, RecursionError)
SEEDS = [
    bytes((seed * step) % 256 for step in range(400)) for seed in (1, 3, 7, 11, 13, 37, 59, 101)
]


def check(data: bytes) -> None:
    choices = Choices(data)
    fuel = FUEL if choices.below(2) else None
    text, starts_badly = generate_module(choices)
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(connection, "look_up", _resolve),
    ):
        root = Path(folder)
        furnish(root)
        before = snapshot(root / "ro"), snapshot(root / "outside")
        opened = _descriptors()
        manifest = {
            "wasm": [{"data": text.encode()}],
            "timeout_ms": TIMEOUT_MS,
            "memory": {"max_pages": MAX_PAGES, "max_var_bytes": 10_000},
            "allowed_paths": {f"ro:{root / 'ro'}": "/ro", str(root / "rw"): "/rw"},
            "allowed_hosts": ["a.test", "b.test"],
            "config": {"key": "value", "empty": ""},
        }
        plugin = plugwasm.Plugin(
            manifest,
            True,
            functions=FUNCTIONS,
            fuel_limit=fuel,
            http_response_headers=bool(choices.below(2)),
        )
        other = plugwasm.Plugin(guest('(func (export "good") (call $echo))').encode())
        for _ in range(1 + choices.below(6)):
            _call(
                plugin,
                choices.pick(("f0", "f1", "f2")),
                choices.pick((b"", INPUT, bytes(100_000))),
                choices.pick((plugin, other)),
            )
            if not starts_badly:
                assert _good(plugin) == INPUT, "another answer than it should be"
            if choices.rarely(6):
                plugin.reset()
        plugin.close()
        other.close()
        del plugin, other
        assert soon(lambda: _descriptors() <= opened), (
            f"left open: {sorted(_descriptors() - opened)}"
        )
        assert (snapshot(root / "ro"), snapshot(root / "outside")) == before, (
            "files have changed that may not"
        )


def _call(plugin: plugwasm.Plugin, name: str, given: bytes, context: plugwasm.Plugin) -> None:
    try:
        assert type(plugin.call(name, given, host_context=context)) is bytes
    except EngineError:
        raise
    except HostFunctionError as error:
        if not isinstance(error.__cause__, _CAUSES):
            raise AssertionError("a host function failed by itself") from error.__cause__
    except plugwasm.Error as error:
        assert str(error)
        assert error.plugin == plugin.name


def _good(plugin: plugwasm.Plugin) -> bytes:
    for _ in range(3):
        try:
            return plugin.call("good", INPUT)
        except TimeoutError:  # the machine is busy
            continue
    raise AssertionError("the plugin does not answer any more")


def _resolve(host: str, port: int) -> list[str]:
    raise socket.gaierror(socket.EAI_NONAME, "no network here")


def _descriptors() -> set[str]:
    """Return the open descriptors of this process, without compiled code, which is mapped from the
    cache."""
    opened = set()
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            opened.add(f"{descriptor} {os.readlink(f'/proc/self/fd/{descriptor}')}")
    return {name for name in opened if "/proc/" not in name and not name.endswith(".code")}


def furnish(root: Path) -> None:
    """Create the directories `ro` and `rw`, both with links outwards that must not work, and
    `outside`."""
    for name in ("ro", "rw"):
        (root / name / "dir").mkdir(parents=True)
        (root / name / "a").write_bytes(b"content of a")
        (root / name / "dir/b").write_bytes(b"b")
        for link, target in (
            ("link", "../outside"),
            ("absolute", root / "outside"),
            ("loop", "loop"),
            ("dangling", "nowhere"),
            ("up", "dir/.."),
        ):
            (root / name / link).symlink_to(target)
    (root / "outside").mkdir()
    (root / "outside/secret").write_bytes(b"secret")


def describe(data: bytes) -> str:
    choices = Choices(data)
    fuel = choices.below(2)
    text, _ = generate_module(choices)
    limit = "fuel" if fuel else "no fuel limit"
    return f"{limit}; then calls by what is left of the bytes (see `check`)\n{text}"
