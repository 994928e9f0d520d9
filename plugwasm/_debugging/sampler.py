"""Samples the stacks of a running guest in its epoch callback, where the engine can walk them.

While a profile is taken, a thread increments the epoch of the plugin's engine, only while the
plugin runs a call. Other plugins of that engine then check their deadlines more often, at the cost
of one callback for each tick.

A sample stands for the time since the previous one. No sample can be taken while the guest waits
for a host function. Then the thread reads Python's own stack, and the time goes to the host
function, below the export that was called: which function of the guest called it is not known.

Decisions: docs/decisions.md, 33.9.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections import deque
from time import monotonic

from .._engine import CALLBACK_CODE, truncate
from .._engine.profiler import GuestProfiler
from .._engine.traps import KERNEL_NAME, strip_rust_hash
from .._host import kernel
from .._host.kernel_requests import SERVING_CODE
from .._platform.native_threads import sleep
from .._runtime.trampolines import trampoline_code
from .backtrace import to_binary
from .code_map import CodeMap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType
    from typing import Any, TypeVar

    from .._engine import Engine
    from .._host.guest import Guest
    from .._runtime.compiled_plugin import CompiledPlugin
    from .._runtime.linker import Plan

    K = TypeVar("K")

HOST_FRAME = "[host]"
"""The frame of the application between the engine's calls; followed by the name of a host function,
the frame of that."""
_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep
_LINKING_CODE = trampoline_code()
MAX_DEPTH = 512
"""Frames of a stack that are kept; of a deeper one, those at both ends."""
MAX_FRAMES = 2_000_000
"""Frames of all stacks together. Further stacks are merged into one."""
OTHER_STACKS = ("[other stacks]",)
MAX_BYTES = 32 * 2**20
"""Bytes of memory that the samples may take, where the system tells (Linux). Whenever half of what
is left is used up, only every other sample of those is taken from then on, and stands for the time
of both."""
MAX_SAMPLES = 20_000
"""The number of samples, where the system does not tell the memory."""
_MOST_HALVINGS = 10
_NAMELESS_PREFIX = "<wasm function "
_FINISH_TIMEOUT = 10.0


class _EngineSamples:
    """The samples of one engine."""

    def __init__(self, profiler: GuestProfiler) -> None:
        self.profiler = profiler
        self.started = monotonic()
        self.times: list[_SampleTime] = []


class _SampleTime:
    """The time that a sample stands for.

    `guest_seconds` were spent in its stack, and `host_seconds`, by name, in host functions before
    or after it in the same call.
    """

    __slots__ = ("guest_seconds", "host_seconds")

    def __init__(self, guest_seconds: float, host_seconds: dict[str, float]) -> None:
        self.guest_seconds = guest_seconds
        self.host_seconds = host_seconds


class Sampler:
    """Takes the samples. Guests refer to it, so it refers to no plugin."""

    def __init__(self, compiled: CompiledPlugin, interval: float) -> None:
        self._compiled = compiled
        self._interval = interval
        self._samples_by_engine: dict[Engine, _EngineSamples] = {}
        # The lock between a sample and the end of the profile, as in `Plugin.call`: the attribute
        # is deleted while a sample is taken, and at the end.
        self._idle = True
        self._pid = os.getpid()
        self._caller_thread = threading.get_ident()
        self._outer_host_functions = 0
        """How many host functions are running around the call that is profiled."""
        self._ticks: deque[tuple[str | None, float]] = deque()
        """Time that no sample stands for yet: seconds, and the host function if one was running."""
        self._unsampled: dict[str, float] = {}
        self._last_sample: _SampleTime | None = None
        """The last sample of the running call."""
        self._used_share = 0.0
        """How much of the allowance for samples is used, from 0 to 1."""
        self._skipped = 0
        self._add_engine(compiled._plan)

    def _add_engine(self, plan: Plan) -> _EngineSamples:
        modules = [(KERNEL_NAME, plan.kernel), *((unit.name, unit.module) for unit in plan.units)]
        samples = self._samples_by_engine[plan.engine] = _EngineSamples(
            GuestProfiler(plan.engine, self._compiled.name, self._interval, modules)
        )
        return samples

    def add_tick(self, seconds: float) -> bool:
        """Count more time of a call. Return whether the guest should take a sample."""
        running = _running_host_functions(sys._current_frames().get(self._caller_thread))
        waits = len(running) > self._outer_host_functions
        self._ticks.append((running[self._outer_host_functions] if waits else None, seconds))
        return not waits

    def end_call(self) -> None:
        """Note that the plugin runs no call now: time that no sample stands for belongs to an ended
        call."""
        last, self._last_sample = self._last_sample, None
        guest_seconds, host_seconds = self._take_ticks()
        if guest_seconds:
            _add_seconds(self._unsampled, {HOST_FRAME: guest_seconds})
        _add_seconds(self._unsampled if last is None else last.host_seconds, host_seconds)

    def _take_ticks(self) -> tuple[float, dict[str, float]]:
        """Return the guest's own time since the last sample, and that of host functions."""
        guest_seconds = 0.0
        host_seconds: dict[str, float] = {}
        while self._ticks:
            try:
                name, seconds = self._ticks.popleft()
            except IndexError:  # another thread took it
                break
            if name is None:
                guest_seconds += seconds
            else:
                _add_seconds(host_seconds, {f"{HOST_FRAME} {name}": seconds})
        return guest_seconds, host_seconds

    def __call__(self, guest: Guest) -> None:
        """Take a sample if one is due; called in the guest's epoch callback."""
        if not self._ticks or not self._is_due():
            return  # the tick is for another guest, or the next sample stands for it as well
        try:
            del self._idle
        except AttributeError:
            return
        try:
            self._sample(guest)
        finally:
            self._idle = True

    def _is_due(self) -> bool:
        """Return whether to take a sample.

        All are taken until half of the memory is used, every other one for the next quarter, and so
        on.
        """
        halvings, left = 0, 1 - self._used_share
        while left <= 0.5:
            halvings, left = halvings + 1, left * 2
            if halvings > _MOST_HALVINGS:
                return False
        self._skipped += 1
        if self._skipped < 1 << halvings:
            return False
        self._skipped = 0
        return True

    def _sample(self, guest: Guest) -> None:
        guest_seconds, host_seconds = self._take_ticks()
        running = _running_host_functions(sys._getframe())
        self._caller_thread, self._outer_host_functions = threading.get_ident(), len(running)
        store = guest.running_store
        samples = self._samples_by_engine.get(store.engine)
        if samples is None:
            pooled = self._compiled._pooled_plan
            if pooled is None or pooled.engine is not store.engine:
                return
            samples = self._add_engine(pooled)
        before = _resident_bytes()
        samples.profiler.sample(store, guest_seconds)
        self._used_share += (
            max(0, _resident_bytes() - before) / MAX_BYTES if before else 1 / MAX_SAMPLES
        )
        self._last_sample = _SampleTime(guest_seconds, host_seconds)
        samples.times.append(self._last_sample)

    def finish(self) -> tuple[dict[str, Any], dict[tuple[str, ...], float]]:
        """Return the profile in the Firefox Profiler's format, and the seconds of each stack."""
        # A call in another thread may be in the middle of a sample. After a fork it cannot: that
        # thread does not exist in the child.
        end = monotonic() + _FINISH_TIMEOUT
        while os.getpid() == self._pid and not hasattr(self, "_idle") and monotonic() < end:
            sleep(0.001)
        try:
            del self._idle
        except AttributeError:
            if os.getpid() == self._pid:
                raise RuntimeError("the profile is lost: taking a sample did not end") from None
        self.end_call()
        titles = _read_code_maps(self._compiled)
        main = self._compiled._plan.main.name
        whole: dict[str, Any] = {}
        stacks: dict[tuple[str, ...], float] = {}
        first = min(samples.started for samples in self._samples_by_engine.values())
        for number, samples in enumerate(self._samples_by_engine.values()):
            profile = json.loads(samples.profiler.finish())
            (thread,) = profile["threads"]
            _name_functions(profile, thread, titles)
            _sum_stacks(stacks, thread, profile, main, samples.times)
            if whole:
                _shift_thread(thread, (samples.started - first) * 1000, number)
                whole["threads"].append(thread)
            else:
                whole = profile
        outside: dict[tuple[str, ...], float] = {
            (name,): seconds for name, seconds in self._unsampled.items() if seconds
        }
        _add_seconds(stacks, outside)
        return whole, stacks


def _resident_bytes() -> int:
    """Return the resident memory of this process; 0 where that is not known.

    A sample is taken while Python's lock is held, so little else grows meanwhile.
    """
    try:
        with open("/proc/self/statm", "rb", 0) as file:
            return int(file.read(100).split()[1]) * _PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return 0


_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def _read_code_maps(compiled: CompiledPlugin) -> dict[str, CodeMap]:
    sources = {source.name: source.wasm for source in compiled._spec.modules}
    return {
        name: CodeMap(to_binary(wasm))
        for name, wasm in {**sources, KERNEL_NAME: kernel.read_source()}.items()
    }


def _library_name(profile: dict[str, Any], thread: dict[str, Any], function: int) -> str:
    resource = thread["funcTable"]["resource"][function]
    return "" if resource < 0 else profile["libs"][thread["resourceTable"]["lib"][resource]]["name"]


def _name_functions(
    profile: dict[str, Any], thread: dict[str, Any], titles: dict[str, CodeMap]
) -> None:
    """Name functions without a name by their exports, and make every name one line of text."""
    names, texts = thread["funcTable"]["name"], thread["stringArray"]
    for function, name in enumerate(names):
        text = texts[name]
        code = titles.get(_library_name(profile, thread, function))
        if code is not None and text.startswith(_NAMELESS_PREFIX):
            text = code.display_name(
                code.imported_functions + int(text[len(_NAMELESS_PREFIX) :].rstrip(">"))
            )
        text = truncate(strip_rust_hash(text))
        if text != texts[name]:
            names[function] = len(texts)
            texts.append(text)


def _sum_stacks(
    stacks: dict[tuple[str, ...], float],
    thread: dict[str, Any],
    profile: dict[str, Any],
    main: str,
    times: list[_SampleTime],
) -> None:
    texts, functions = thread["stringArray"], thread["funcTable"]["name"]
    titles = []
    for function, name in enumerate(functions):
        library = _library_name(profile, thread, function)
        titles.append(texts[name] if library == main else f"{truncate(library)}!{texts[name]}")
    table, frames = thread["stackTable"], thread["frameTable"]["func"]
    known: dict[int, tuple[str, ...]] = {}
    kept = sum(map(len, stacks))
    for stack, spent in zip(thread["samples"]["stack"], times, strict=False):
        names: tuple[str, ...] = ()
        if stack is not None:
            if stack not in known:
                found = _read_stack(
                    table["prefix"], table["frame"], stack, lambda frame: titles[frames[frame]]
                )
                if found not in stacks:
                    kept += len(found)
                known[stack] = found if kept <= MAX_FRAMES else OTHER_STACKS
            names = known[stack]
        # Only the entry: the guest took the sample as soon as it was called, so the time was spent
        # before that.
        names = names or (HOST_FRAME,)
        _add_seconds(
            stacks, {(*names[:1], name): seconds for name, seconds in spent.host_seconds.items()}
        )
        _add_seconds(stacks, {names: spent.guest_seconds})


def _read_stack(
    prefixes: list[int | None], frames: list[int], stack: int | None, title: Callable[[int], str]
) -> tuple[str, ...]:
    """Return a stack from its entries, each of which knows the one around it: outermost first, and
    shortened if it is deep."""
    inner: list[str] = []
    outer: deque[str] = deque(maxlen=MAX_DEPTH // 2)
    depth = 0
    while stack is not None:
        name, stack = title(frames[stack]), prefixes[stack]
        # The outermost frame is the kernel's, which calls the export.
        if stack is None and name.startswith(f"{KERNEL_NAME}!"):
            break
        depth += 1
        (inner if len(inner) < MAX_DEPTH // 2 else outer).append(name)
    left_out = depth - len(inner) - len(outer)
    middle = [f"[{left_out} frames left out]"] if left_out else []
    return (*reversed(outer), *middle, *reversed(inner))


def _add_seconds(sums: dict[K, float], more: Mapping[K, float]) -> None:
    for key, seconds in more.items():
        sums[key] = sums.get(key, 0.0) + seconds


def _running_host_functions(frame: FrameType | None) -> list[str]:
    """Return the running host functions of a thread, outermost first.

    Functions of plugwasm that only lead to a guest again are left out.
    """
    codes = []
    while frame is not None:
        codes.append(frame.f_code)
        frame = frame.f_back
    codes.reverse()
    found = []
    for i, code in enumerate(codes[:-1]):
        is_callback = (
            code.co_name == CALLBACK_CODE.co_name and code.co_filename == CALLBACK_CODE.co_filename
        )
        if is_callback and codes[i + 1] is SERVING_CODE and i + 2 < len(codes):
            i += 1
        if is_callback and codes[i + 1] not in _LINKING_CODE:
            inner = codes[i + 1 :]
            found.append(
                next(
                    (c.co_name for c in inner if not c.co_filename.startswith(_PACKAGE)),
                    inner[0].co_name,
                )
            )
    return found


def _shift_thread(thread: dict[str, Any], milliseconds: float, number: int) -> None:
    """Shift the thread of a profile that began later to the time of the first one."""
    thread["tid"] = str(number)
    thread["isMainThread"] = False
    for field in ("registerTime", "unregisterTime", "processStartupTime", "processShutdownTime"):
        if isinstance(thread.get(field), (int, float)):
            thread[field] += milliseconds
    samples = thread["samples"]
    if samples.get("timeDeltas"):
        samples["timeDeltas"][0] += milliseconds
    elif "time" in samples:
        samples["time"] = [time + milliseconds for time in samples["time"]]
