"""Limits as values, whether the manifest or the application sets them, and limits of stacks and
instances."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import threading
from typing import Any

import pytest

from plugwasm import (
    CompiledPlugin,
    Limits,
    OptionError,
    OutOfMemoryError,
    Plugin,
    StackError,
    TimeoutError,
    TrapError,
)
from tests.support.guests import LOOP, export, guest, manifest, number
from tests.support.paths import ROOT
from tests.support.threads import InThread


def test_limits_are_values() -> None:
    """Limits are immutable and can be compared, copied and pickled."""
    limits = Limits(timeout=2.5, vars=7)
    assert limits == limits.replace() == pickle.loads(pickle.dumps(limits)) == copy.deepcopy(limits)
    assert hash(limits) == hash(limits.replace())
    assert limits != Limits() != "limits"
    assert limits.replace(vars=8).vars == 8
    assert repr(limits) == "Limits(timeout=2.5, vars=7)"
    assert repr(Limits()) == "Limits()"
    with pytest.raises(AttributeError, match=r"limits\.replace\(vars=…\)"):
        limits.vars = 8


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("timeout", value) for value in (0, -1.0, "1", float("nan"), float("inf"), True)),
        *(("memory_bytes", value) for value in (-1, 2**32 + 1, 1.5, "1 GiB")),
        *(
            (name, None)
            for name in (
                "memories",
                "tables",
                "table_elements",
                "instances",
                "stack_bytes",
                "var_bytes",
                "vars",
                "descriptors",
            )
        ),
        ("stack_bytes", 1000),
        ("instances", 0),
        ("module_bytes", 0),
        ("compile_seconds", 0),
        ("log_lines_per_second", -1),
    ],
)
def test_limits_are_validated(name: str, value: Any) -> None:
    """An invalid limit is refused, and the error names it."""
    with pytest.raises(
        OptionError, match=rf"^Limits\.{name}: expected a (whole )?number from .* got "
    ) as caught:
        Limits(**{name: value})
    assert caught.value.field == name


def test_a_misspelt_limit_is_refused() -> None:
    with pytest.raises(TypeError, match="time_out"):
        Limits(time_out=1)


@pytest.mark.parametrize(
    ("limits", "fields", "timeout", "memory", "vars"),
    [
        (None, {}, 60.0, 2**30, 2**20),
        (
            None,
            {"timeout_ms": 120_000, "memory": {"max_pages": 65536, "max_var_bytes": 2**30}},
            120.0,
            2**32,
            2**30,
        ),
        (
            Limits(),
            {"timeout_ms": 120_000, "memory": {"max_pages": 65536, "max_var_bytes": 2**30}},
            60.0,
            2**30,
            2**20,
        ),
        (
            Limits(),
            {"timeout_ms": 500, "memory": {"max_pages": 5, "max_var_bytes": 0}},
            0.5,
            2**30,
            0,
        ),
        (Limits(timeout=None, memory_bytes=None), {}, None, None, 2**20),
        (
            Limits(timeout=None, memory_bytes=None),
            {"timeout_ms": 7, "memory": {"max_pages": 9}},
            0.007,
            None,
            2**20,
        ),
    ],
    ids=[
        "nothing said",
        "the manifest",
        "a ceiling",
        "the manifest wants less",
        "no limit",
        "no ceiling",
    ],
)
def test_manifest_limits_count_if_lower(
    limits: Limits | None,
    fields: dict[str, Any],
    timeout: float | None,
    memory: int | None,
    vars: int,
) -> None:
    """The manifest's limit applies unless the application's is lower."""
    found = CompiledPlugin(manifest(guest(export("f", "")), **fields), limits=limits).limits
    assert (found.timeout, found.memory_bytes, found.var_bytes) == (timeout, memory, vars)


def test_application_deadline_in_message() -> None:
    """A deadline of the application ends a call, and the message names the settings that change
    it."""
    with (
        Plugin(guest(export("f", LOOP)), limits=Limits(timeout=0.1)) as plugin,
        pytest.raises(
            TimeoutError, match=r"deadline of 100 ms; `timeout_ms` or `Limits.timeout` sets another"
        ),
    ):
        plugin.call("f")


def test_stack_size_limit() -> None:
    """A guest's stack is as large as the limit."""
    deep = guest(
        "(func $deep (param $n i64) (result i64) (if (result i64) (i64.eqz (local.get $n)) (then (i64.const 0))"
        " (else (i64.add (i64.const 1) (call $deep (i64.sub (local.get $n) (i64.const 1)))))))"
        + export("f", "(call $answer (call $deep (call $input_load_u64 (i64.const 0))))")
    )

    def depth(limits: Limits) -> int:
        low, high = 0, 2**20
        with Plugin(deep, limits=limits) as plugin:
            while low < high - 1:
                middle = (low + high) // 2
                try:
                    assert number(plugin.call("f", middle.to_bytes(8, "little"))) == middle
                    low = middle
                except TrapError as error:
                    assert error.trap == "stack overflow"
                    high = middle
        return low

    small, usual, large = (depth(Limits(stack_bytes=size)) for size in (2**17, 2**19, 2**21))
    assert 3 < usual / small < 5
    assert 3 < large / usual < 5


def test_stack_largest_needs_large_thread() -> None:
    """A plugin with the largest stack runs on a thread with a large stack and is refused on
    others."""
    script = f"""
import threading
from plugwasm import Limits, Plugin, StackError

def run() -> None:
    try:
        print(Plugin({guest(export("f", "(call $echo)"))!r}, limits=Limits(stack_bytes=2**28)).call("f", "x"))
    except StackError:
        print("refused")

run()
threading.stack_size(2**28 + 2**22)
thread = threading.Thread(target=run)
thread.start()
thread.join()
"""
    # A main thread with less stack than that: the engine ends a process that it is asked too much
    # of.
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_STACK, (2**23, 2**23)){script}"
    done = subprocess.run(
        [sys.executable, "-c", limited], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["refused", "b'x'"]


def test_stack_small_on_small_thread() -> None:
    """A plugin with a small stack runs on a thread with a small stack."""
    threading.stack_size(448 * 1024)
    try:
        results = [
            InThread(
                lambda: Plugin(
                    guest(export("f", "(call $echo)")), limits=Limits(stack_bytes=2**17)
                ).call("f", b"x")
            ),
            InThread(lambda: Plugin(guest(export("f", "(call $echo)"))).call("f", b"x")),
        ]
    finally:
        threading.stack_size(0)
    assert results[0].result() == b"x"
    with pytest.raises(
        StackError,
        match=r"this thread has 4[0-9][0-9] KiB of its stack left, and a plugin needs 768 KiB",
    ):
        results[1].result()


@pytest.mark.parametrize(("instances", "works"), [(2, True), (1, False)])
def test_instance_limit(instances: int, works: bool) -> None:
    """Exactly the allowed number of instances can be created."""
    modules = manifest(
        ("lib", guest(export("g", ""))),
        ("main", guest(export("f", "(call $g)"), '(import "lib" "g" (func $g))')),
    )
    with Plugin(modules, limits=Limits(instances=instances)) as plugin:
        if works:
            plugin.call("f")
        else:
            with pytest.raises(OutOfMemoryError, match=r"`Limits.instances` is 1"):
                plugin.call("f")
