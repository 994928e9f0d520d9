"""Stacks of a guest at work, taken in its epoch callback, where the engine can see them.

While a profile is taken, a thread increments the epoch of the plugin's engine, only while the plugin runs a call. Other plugins of that
engine look at their deadlines more often meanwhile, which costs them a callback for each tick.

A sample stands for the time since the one before. No sample can be taken while the guest waits for a host function. Then the thread looks
at Python's own stack, and the time goes to the host function, below the export that was called: which function of the guest called it is
not known.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections import deque
from time import monotonic

from .._engine import CALLBACK_CODE, shown
from .._engine.profiler import GuestProfiler
from .._engine.traps import without_hash
from .._host import kernel
from .._platform.native_threads import sleep
from .._runtime.linker import trampoline_code
from .backtrace import binary
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

KERNEL = "extism:host/env"
HOST = "[host]"
"""Stands for the application, between the engine's calls; with the name of a host function behind it, for that."""
_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep
_LINKING = trampoline_code()
MAX_DEPTH = 512
"""Frames of a stack that are told; of a deeper one those at both ends."""
MAX_FRAMES = 2_000_000
"""Frames of all stacks together. Further stacks are one."""
OTHERS = ("[other stacks]",)
MAX_BYTES = 32 * 2**20
"""Bytes of memory that the samples may take, as far as the system tells (Linux). When half of what is left is used up, only every other
sample is taken from then on, which stands for the time of both."""
MAX_SAMPLES = 20_000
"""The same where the system does not tell, as a number."""
_MOST_HALVINGS = 10
_NAMELESS = "<wasm function "
_PATIENCE = 10.0


class _Track:
    """The samples of one engine."""

    def __init__(self, profiler: GuestProfiler) -> None:
        self.profiler = profiler
        self.started = monotonic()
        self.shares: list[_Share] = []


class _Share:
    """What a sample stands for: the time in its stack, and by their names that in host functions around it in the same call."""

    __slots__ = ("own", "waited")

    def __init__(self, own: float, waited: dict[str, float]) -> None:
        self.own = own
        self.waited = waited


class Recorder:
    """Takes the samples. Guests refer to it, so it refers to no plugin."""

    def __init__(self, compiled: CompiledPlugin, interval: float) -> None:
        self._compiled = compiled
        self._interval = interval
        self._tracks: dict[Engine, _Track] = {}
        # The lock between a sample and the end of the profile, as in `Plugin.call`: gone while a sample is taken, and at the end.
        self._idle = True
        self._home = os.getpid()
        self._caller = threading.get_ident()
        self._around = 0
        """How many host functions are under way around the call that is profiled."""
        self._ticks: deque[tuple[str | None, float]] = deque()
        """Time that no sample stands for yet: seconds, and the host function if one was under way."""
        self._left_over: dict[str, float] = {}
        self._last: _Share | None = None
        """Of the call under way."""
        self._used = 0.0
        """The share of what samples may take that they have taken."""
        self._passed_over = 0
        self._track(compiled._plan)

    def _track(self, plan: Plan) -> _Track:
        modules = [(KERNEL, plan.kernel), *((unit.name, unit.module) for unit in plan.units)]
        track = self._tracks[plan.engine] = _Track(
            GuestProfiler(plan.engine, self._compiled.name, self._interval, modules)
        )
        return track

    def tick(self, seconds: float) -> bool:
        """Some more time of a call has passed. Whether the guest should take notice."""
        running = _host_functions(sys._current_frames().get(self._caller))
        waits = len(running) > self._around
        self._ticks.append((running[self._around] if waits else None, seconds))
        return not waits

    def between_calls(self) -> None:
        """The plugin runs no call now: whatever was not noticed belongs to one that has ended."""
        last, self._last = self._last, None
        own, waited = self._take_ticks()
        if own:
            _add(self._left_over, {HOST: own})
        _add(self._left_over if last is None else last.waited, waited)

    def _take_ticks(self) -> tuple[float, dict[str, float]]:
        """The guest's own time since the last sample, and that of host functions."""
        own = 0.0
        waited: dict[str, float] = {}
        while self._ticks:
            try:
                name, seconds = self._ticks.popleft()
            except IndexError:  # taken by another thread
                break
            if name is None:
                own += seconds
            else:
                _add(waited, {f"{HOST} {name}": seconds})
        return own, waited

    def __call__(self, guest: Guest) -> None:
        """In the guest's epoch callback."""
        if not self._ticks or not self._may_sample():
            return  # a tick that was meant for another guest, or one that the next sample stands for as well
        try:
            del self._idle
        except AttributeError:
            return
        try:
            self._sample(guest)
        finally:
            self._idle = True

    def _may_sample(self) -> bool:
        """Whether it is the turn of a sample: of the first half all, of the next quarter of the memory every other, and so on."""
        halvings, left = 0, 1 - self._used
        while left <= 0.5:
            halvings, left = halvings + 1, left * 2
            if halvings > _MOST_HALVINGS:
                return False
        self._passed_over += 1
        if self._passed_over < 1 << halvings:
            return False
        self._passed_over = 0
        return True

    def _sample(self, guest: Guest) -> None:
        own, waited = self._take_ticks()
        running = _host_functions(sys._getframe())
        self._caller, self._around = threading.get_ident(), len(running)
        store = guest.running_store
        track = self._tracks.get(store.engine)
        if track is None:
            pooled = self._compiled._pooled_plan
            if pooled is None or pooled.engine is not store.engine:
                return
            track = self._track(pooled)
        before = _resident()
        track.profiler.sample(store, own)
        self._used += max(0, _resident() - before) / MAX_BYTES if before else 1 / MAX_SAMPLES
        self._last = _Share(own, waited)
        track.shares.append(self._last)

    def finish(self) -> tuple[dict[str, Any], dict[tuple[str, ...], float]]:
        """The profile in the Firefox Profiler's format, and the seconds of each stack."""
        # A call in another thread may be in the middle of a sample; not so after a fork, for then that thread is not here.
        end = monotonic() + _PATIENCE
        while os.getpid() == self._home and not hasattr(self, "_idle") and monotonic() < end:
            sleep(0.001)
        try:
            del self._idle
        except AttributeError:
            if os.getpid() == self._home:
                raise RuntimeError("the profile is lost: a sample of it does not end") from None
        self.between_calls()
        titles = _titles(self._compiled)
        main = self._compiled._plan.main.name
        whole: dict[str, Any] = {}
        stacks: dict[tuple[str, ...], float] = {}
        first = min(track.started for track in self._tracks.values())
        for number, track in enumerate(self._tracks.values()):
            profile = json.loads(track.profiler.finish())
            (thread,) = profile["threads"]
            _name_functions(profile, thread, titles)
            _add_up(stacks, thread, profile, main, track.shares)
            if whole:
                _shift(thread, (track.started - first) * 1000, number)
                whole["threads"].append(thread)
            else:
                whole = profile
        outside: dict[tuple[str, ...], float] = {
            (name,): seconds for name, seconds in self._left_over.items() if seconds
        }
        _add(stacks, outside)
        return whole, stacks


def _resident() -> int:
    """Bytes of memory that this process has; 0 where that is not known. A sample is taken with Python's lock, so little else grows then."""
    try:
        with open("/proc/self/statm", "rb", 0) as file:
            return int(file.read(100).split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return 0


_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def _titles(compiled: CompiledPlugin) -> dict[str, CodeMap]:
    sources = {source.name: source.wasm for source in compiled._recipe.modules}
    return {
        name: CodeMap(binary(wasm)) for name, wasm in {**sources, KERNEL: kernel.source()}.items()
    }


def _library(profile: dict[str, Any], thread: dict[str, Any], function: int) -> str:
    resource = thread["funcTable"]["resource"][function]
    return "" if resource < 0 else profile["libs"][thread["resourceTable"]["lib"][resource]]["name"]


def _name_functions(
    profile: dict[str, Any], thread: dict[str, Any], titles: dict[str, CodeMap]
) -> None:
    """Calls functions that have no name by their exports, and none by a name that is no line of text."""
    names, texts = thread["funcTable"]["name"], thread["stringArray"]
    for function, name in enumerate(names):
        text = texts[name]
        code = titles.get(_library(profile, thread, function))
        if code is not None and text.startswith(_NAMELESS):
            text = code.title(code.imported + int(text[len(_NAMELESS) :].rstrip(">")))
        text = shown(without_hash(text))
        if text != texts[name]:
            names[function] = len(texts)
            texts.append(text)


def _add_up(
    stacks: dict[tuple[str, ...], float],
    thread: dict[str, Any],
    profile: dict[str, Any],
    main: str,
    shares: list[_Share],
) -> None:
    texts, functions = thread["stringArray"], thread["funcTable"]["name"]
    titles = []
    for function, name in enumerate(functions):
        library = _library(profile, thread, function)
        titles.append(texts[name] if library == main else f"{shown(library)}!{texts[name]}")
    table, frames = thread["stackTable"], thread["frameTable"]["func"]
    known: dict[int, tuple[str, ...]] = {}
    kept = sum(map(len, stacks))
    for stack, share in zip(thread["samples"]["stack"], shares, strict=False):
        names: tuple[str, ...] = ()
        if stack is not None:
            if stack not in known:
                found = _stack(
                    table["prefix"], table["frame"], stack, lambda frame: titles[frames[frame]]
                )
                if found not in stacks:
                    kept += len(found)
                known[stack] = found if kept <= MAX_FRAMES else OTHERS
            names = known[stack]
        # Nothing but the entry: the guest noticed as soon as it was called, so the time was spent before that.
        names = names or (HOST,)
        _add(stacks, {(*names[:1], name): seconds for name, seconds in share.waited.items()})
        _add(stacks, {names: share.own})


def _stack(
    prefixes: list[int | None], frames: list[int], stack: int | None, title: Callable[[int], str]
) -> tuple[str, ...]:
    """A stack from its entries, each of which knows the one around it: outermost first, and not all of one that is deep."""
    inner: list[str] = []
    outer: deque[str] = deque(maxlen=MAX_DEPTH // 2)
    depth = 0
    while stack is not None:
        name, stack = title(frames[stack]), prefixes[stack]
        # The outermost frame is the kernel's, which calls the export.
        if stack is None and name.startswith(f"{KERNEL}!"):
            break
        depth += 1
        (inner if len(inner) < MAX_DEPTH // 2 else outer).append(name)
    left_out = depth - len(inner) - len(outer)
    middle = [f"[{left_out} frames left out]"] if left_out else []
    return (*reversed(outer), *middle, *reversed(inner))


def _add(sums: dict[K, float], more: Mapping[K, float]) -> None:
    for key, seconds in more.items():
        sums[key] = sums.get(key, 0.0) + seconds


def _host_functions(frame: FrameType | None) -> list[str]:
    """The host functions under way on a thread, outermost first, but for those of ours that only lead to a guest again."""
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
        if is_callback and codes[i + 1] not in _LINKING:
            inner = codes[i + 1 :]
            found.append(
                next(
                    (c.co_name for c in inner if not c.co_filename.startswith(_PACKAGE)),
                    inner[0].co_name,
                )
            )
    return found


def _shift(thread: dict[str, Any], milliseconds: float, number: int) -> None:
    """Puts the thread of a profile that began later among those of the first one."""
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
