"""The memory of a profile is bounded, however deep and different the guest's stacks are."""

from __future__ import annotations

import subprocess
import sys

import pytest

import plugwasm
from plugwasm import debugging
from plugwasm._debugging import sampler
from plugwasm._debugging.sampler import Sampler

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is measured with /proc")

PROLOGUE = """
import resource
import plugwasm
from plugwasm import debugging

def megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

def profiled(wasm, seconds):
    plugin = plugwasm.Plugin(wasm, limits=plugwasm.Limits(timeout=seconds))
    with debugging.profile(plugin, interval=0.001) as profile:
        try:
            plugin.call("deep")
        except plugwasm.TimeoutError:
            pass
    return profile
"""

DEEP = """
wasm = b'''(module
  (func $down (param i32)
    (if (local.get 0) (then (call $down (i32.sub (local.get 0) (i32.const 1)))) (else (call $work))))
  (func $work (loop $l (br $l)))
  (func (export "deep") (call $down (i32.const 9000))))'''
"""

CHANGING = """
number = 64
functions = "".join(f'''
  (func $f{i} (param i32 i32) (result i32)
    (if (i32.eqz (local.get 0)) (then (return (call $work))))
    (i32.add (i32.const {i}) (call_indirect (param i32 i32) (result i32)
      (i32.sub (local.get 0) (i32.const 1))
      (i32.add (i32.mul (local.get 1) (i32.const 1664525)) (i32.const 1013904223))
      (i32.and (i32.shr_u (local.get 1) (i32.const 16)) (i32.const {number - 1})))))''' for i in range(number))
wasm = f'''(module (table funcref (elem {" ".join(f"$f{i}" for i in range(number))}))
  (func $work (result i32) (local i32)
    (loop $l (br_if $l (i32.lt_u (local.tee 0 (i32.add (local.get 0) (i32.const 1))) (i32.const 300000))))
    (local.get 0))
  {functions}
  (func (export "deep") (local i32)
    (loop $l
      (drop (call $f0 (i32.const 5000) (local.tee 0 (i32.add (local.get 0) (i32.const 1)))))
      (br $l))))'''.encode()
"""


def run_program(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROLOGUE + program],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_deep_stack_keeps_both_ends() -> None:
    """A deep stack is shown by its two ends and takes little memory."""
    program = f"""{DEEP}
before = megabytes()
profile = profiled(wasm, 2)
print(megabytes() - before < 60)
stack = max(profile.stacks, key=len)
print(len(stack), stack[0], stack[-1], stack[256])
print(round(profile.seconds))
profile.html(), profile.firefox(), profile.collapsed()
print(megabytes() - before < 100)
"""
    fits, stack, seconds, fits_saved = run_program(program).splitlines()
    assert (fits, fits_saved, seconds) == ("True", "True", "2")
    assert stack == "513 deep work [8491 frames left out]"


def test_distinct_stacks_are_bounded() -> None:
    """Stacks of ever different functions take no more memory than allowed."""
    program = f"""{CHANGING}
before = megabytes()
profile = profiled(wasm, 10)
print(megabytes() - before < 250, profile.samples > 20, round(profile.seconds))
"""
    assert run_program(program) == "True True 10\n"


def test_samples_thin_out() -> None:
    """Samples become less frequent as their memory is used up."""
    plugin = plugwasm.Plugin(b'(module (func (export "ok")))')
    sampler = Sampler(plugin.compiled_plugin, 0.001)
    for used, most in (
        (0.0, 64),
        (0.49, 64),
        (0.6, 32),
        (0.8, 16),
        (0.99, 1),
        (0.9999, 0),
        (1.0, 0),
        (7.0, 0),
    ):
        sampler._used_share, sampler._skipped = used, 0
        assert sum(sampler._is_due() for _ in range(64)) == most


def test_further_stacks_are_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    """When there are too many stacks, further ones are merged into one."""
    monkeypatch.setattr(sampler, "MAX_FRAMES", 0)
    plugin = plugwasm.Plugin(
        b'(module (func (export "spin") (loop $l (br $l))))', limits=plugwasm.Limits(timeout=0.3)
    )
    with debugging.profile(plugin, interval=0.001) as profile, pytest.raises(plugwasm.TimeoutError):
        plugin.call("spin")
    assert sampler.OTHER_STACKS in profile.stacks
    assert sum(profile.stacks.values()) == pytest.approx(0.3, abs=0.2)
