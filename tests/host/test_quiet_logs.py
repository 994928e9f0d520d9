"""Where plugins' log lines go: nothing to stderr without logging set up, and one record per
message with it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import plugwasm
from plugwasm import CustomLogger, IsolatedPlugin, Limits, Plugin
from plugwasm._host.plugin_log import LEVEL_OFF
from plugwasm.testing import Harness
from tests.support.guests import export, guest, number

KINDS = pytest.mark.parametrize("kind", [Plugin, IsolatedPlugin])
WRITE = '(import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))'
SAYS = guest(
    export("say", "(call $log_error (call $copy))")
    + export("level", "(call $answer (i64.extend_i32_s (call $get_log_level)))")
    + export(
        "stderr",
        """(i32.store (i32.const 0) (i32.const 16)) (i32.store (i32.const 4) (i32.const 8)) (i64.store (i32.const 16) (i64.const 0x0a6f77740a656e6f))
        (drop (call $fd_write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))""",
    ),
    WRITE,
    memory='(memory (export "memory") 1)',
)

PROGRAM = """
import logging, os, sys
import plugwasm
from pathlib import Path
def main(kind):
    with kind(Path(sys.argv[1]), wasi=True) as plugin:
        if level := os.environ.get("SET_UP"):
            logging.basicConfig(format="%(message)s", level=level)
        plugin.call("say", "hello")
        plugin.call("stderr")
        print(int.from_bytes(plugin.call("level"), "little"))
if __name__ == "__main__":
    main(getattr(plugwasm, sys.argv[2]))
"""


def run(tmp_path: Path, kind: type[Plugin], **environment: str) -> tuple[str, str]:
    (tmp_path / "says.wat").write_text(SAYS)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "says.wat"), kind.__name__]
    done = subprocess.run(
        command,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout, done.stderr


@KINDS
def test_no_logging_set_up(tmp_path: Path, kind: type[Plugin]) -> None:
    """Without logging set up, nothing is written to stderr, and the level is off."""
    assert run(tmp_path, kind) == (f"{LEVEL_OFF}\n", "")


@KINDS
def test_logging_set_up(tmp_path: Path, kind: type[Plugin]) -> None:
    """With logging set up, everything is written, and the level is the application's."""
    assert run(tmp_path, kind, SET_UP="WARNING") == ("3\n", "hello\none\ntwo\n")
    assert run(tmp_path, kind, SET_UP="ERROR") == ("4\n", "hello\n")


def test_other_loggers_are_quiet(tmp_path: Path) -> None:
    """Other loggers of plugwasm write nothing to stderr either."""
    code = """
import plugwasm
class Bad(plugwasm.observing.Observer):
    def on_call(self, call): raise LookupError("no")
with plugwasm.Plugin('(module (func (export "f")))', observe=[Bad(), plugwasm.observing.CallLog()]) as plugin:
    plugin.call("f")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr == ""


def test_import_does_not_import_logging() -> None:
    """Importing plugwasm does not import logging."""
    code = "import plugwasm, sys; plugwasm.Plugin; print('logging' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "False\n"


# ---- levels --------------------------------------------------------------------------------------


@contextmanager
def only_handler() -> Iterator[logging.Handler]:
    """Install the only handler, for plugwasm alone. It is no fixture: pytest adds its own
    handlers between those and the test."""
    top = logging.getLogger("plugwasm")
    before, propagate = top.level, top.propagate
    kept = logging.Handler()
    top.addHandler(kept)
    top.propagate = False
    try:
        yield kept
    finally:
        top.removeHandler(kept)
        top.setLevel(before)
        top.propagate = propagate


def test_level_of_handler_counts() -> None:
    """The level of a handler counts as well as the logger's."""
    with only_handler() as handler, Plugin(SAYS, wasi=True) as plugin:
        logging.getLogger("plugwasm").setLevel(5)
        assert number(plugin.call("level")) == 0
        handler.setLevel(logging.WARNING)
        assert number(plugin.call("level")) == 3
        logging.getLogger("plugwasm").setLevel(logging.ERROR)
        assert number(plugin.call("level")) == 4


def test_removed_handler_turns_level_off() -> None:
    """Removing the only handler turns the level off."""
    top = logging.getLogger("plugwasm")
    with only_handler() as handler, Plugin(SAYS, wasi=True) as plugin:
        assert number(plugin.call("level")) == 3
        top.removeHandler(handler)
        assert number(plugin.call("level")) == LEVEL_OFF
        top.addHandler(handler)


# ---- lines ---------------------------------------------------------------------------------------

FORGED = "one\r\n2026-01-01 CRITICAL root: forged\n\n    indented\x1b[31m\rx\u2028y\n"


@pytest.fixture
def drained() -> Iterator[tuple[CustomLogger, list[str]]]:
    said: list[str] = []
    top = logging.getLogger("plugwasm")
    level = top.level
    logger = plugwasm.set_log_custom(said.append, "trace")
    yield logger, said
    top.removeHandler(logger)
    top.setLevel(level)


@KINDS
def test_several_lines_are_one_record(kind: type[Plugin], caplog: pytest.LogCaptureFixture) -> None:
    """A message of several lines is one record whose further lines are indented."""
    with kind(SAYS, wasi=True) as plugin:
        plugin.call("say", FORGED)
    (record,) = caplog.records
    assert record.getMessage().split("\n") == [
        "one",
        "    2026-01-01 CRITICAL root: forged",
        "    ",
        "        indented\\x1b[31m\\x0dx\\u2028y",
    ]


@KINDS
def test_drained_lines_are_unchanged(
    kind: type[Plugin], drained: tuple[CustomLogger, list[str]]
) -> None:
    """Drained messages have the lines as the plugin wrote them."""
    with kind(SAYS, wasi=True) as plugin:
        plugin.call("say", FORGED)
        plugin.call("say", "a\nb")
    logger, said = drained
    logger.drain()
    assert len(said) == 2
    assert said[0].endswith(
        "one\n2026-01-01 CRITICAL root: forged\n\n    indented\\x1b[31m\\x0dx\\u2028y\n"
    )
    assert said[1].endswith("ERROR plugwasm.plugin.plugin: a\nb\n")


def test_harness_lines_are_unchanged() -> None:
    """A harness shows lines as the plugin wrote them."""
    with Harness(SAYS, wasi=True) as harness:
        plugin = harness.plugin()
        plugin.call("say", "a\nb")
        assert harness.logs.messages("error") == ["a\nb"]
        assert number(plugin.call("level")) == 0


def test_each_line_counts_towards_limit(caplog: pytest.LogCaptureFixture) -> None:
    """Each line counts towards the rate limit."""
    with Plugin(SAYS, wasi=True, limits=Limits(log_lines_per_second=1)) as plugin:
        plugin.call("say", "line\n" * 500)
        for _ in range(5):
            plugin.call("say", "more")
        assert plugin.compiled_plugin.log_lines_dropped == 5
    assert caplog.records[0].getMessage().count("line") == 500
