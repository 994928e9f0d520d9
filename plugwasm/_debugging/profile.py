"""The results of a profile, and the files that it is saved as."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass
from time import monotonic

from .._host.deadline import ticker
from ..errors import OptionError
from .sampler import Sampler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

    from .._host.guest import Guest
    from .._runtime.abstract_plugin import LeaseSnapshot
    from .._runtime.plugin import Plugin

FORMATS = (".html", ".svg", ".json", ".txt", ".folded")
MIN_INTERVAL = 0.0001


@dataclass(frozen=True, slots=True)
class FunctionTime:
    """Seconds of a function: its own (`own`), and those with the functions that it called
    (`total`)."""

    function: str
    own: float
    total: float


FunctionTime.__module__ = "plugwasm.debugging"


class Profile:
    """Where the time of a plugin's calls goes.

    Use it in a `with` statement, and read it afterwards.
    """

    __module__ = "plugwasm.debugging"

    def __init__(self, plugin: Plugin, interval: float) -> None:
        if not MIN_INTERVAL <= interval <= 10:
            raise OptionError(
                f"interval: expected seconds between {MIN_INTERVAL} and 10, got {interval!r}"
            )
        self.name: str = plugin.name
        self.interval = interval
        self._plugin: Plugin | None = plugin
        self._sampler: Sampler | None = None
        # Not an `Event`: its own lock stays held if a signal handler raises at the wrong moment.
        self._stop = threading.Lock()
        self._stop.acquire()
        self._thread: threading.Thread | None = None
        self._json: dict[str, Any] = {}
        self._stacks: dict[tuple[str, ...], float] = {}

    def __enter__(self) -> Self:
        plugin = self._plugin
        if plugin is None or self._thread is not None:
            raise ValueError("a profile can be taken once only")
        if plugin._guest is not None and plugin._guest.sampler is not None:
            raise OptionError(f"another profile of plugin `{self.name}` is being taken")
        sampler = self._sampler = Sampler(plugin.compiled_plugin, self.interval)
        self._thread = threading.Thread(
            target=self._run,
            args=(plugin, sampler, plugin._hold_lease()),
            name="plugwasm-profile",
            daemon=True,
        )
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        plugin, sampler, thread = self._plugin, self._sampler, self._thread
        if plugin is None or sampler is None or thread is None:
            return
        if self._stop.locked():
            self._stop.release()
        thread.join()
        self._plugin = self._sampler = None
        guest = plugin._guest
        if guest is not None and guest.sampler is sampler:
            guest.sampler = None
        self._json, self._stacks = sampler.finish()

    def _run(self, plugin: Plugin, sampler: Sampler, lent: LeaseSnapshot | None) -> None:
        before = monotonic()
        last: Guest | None = None
        while not self._stop.acquire(timeout=self.interval):
            now = monotonic()
            guest = plugin._guest
            # With another `_lent`, a call is another caller's, who has the plugin from a pool.
            if guest is None or guest not in ticker.running or plugin._lease is not lent:
                last = None
                sampler.end_call()
            else:
                if guest.sampler is None:
                    guest.sampler = sampler
                if sampler.add_tick(now - before if guest is last else self.interval):
                    guest.store.engine.increment_epoch()
                last = guest
            before = now
            del guest

    # ---- results ---------------------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        """The time of calls that the samples stand for."""
        return sum(self._stacks.values())

    @property
    def samples(self) -> int:
        """How many stacks were sampled."""
        return sum(thread["samples"]["length"] for thread in self._json.get("threads", ()))

    @property
    def why_empty(self) -> str | None:
        """Why there are no samples, and what to do about it; None if there are some."""
        if self.samples or self._stacks:
            return None
        return (
            f"no call took as long as the {self.interval * 1e3:g} ms between two samples: "
            "profile longer calls, or more of them"
        )

    @property
    def stacks(self) -> dict[tuple[str, ...], float]:
        """Seconds by stack: names of functions, outermost first.

        Functions of other modules than the main one have their module's name in front.
        """
        return dict(self._stacks)

    @property
    def functions(self) -> list[FunctionTime]:
        """Seconds by function, sorted by own time, the longest first."""
        own: dict[str, float] = {}
        total: dict[str, float] = {}
        for stack, seconds in self._stacks.items():
            if stack:
                own[stack[-1]] = own.get(stack[-1], 0.0) + seconds
            for name in set(stack):
                total[name] = total.get(name, 0.0) + seconds
        found = [FunctionTime(name, own.get(name, 0.0), seconds) for name, seconds in total.items()]
        return sorted(found, key=lambda time: (-time.own, -time.total))

    def collapsed(self) -> str:
        """Return a line for each stack: functions joined by `;`, and microseconds.

        This is the format that flamegraph.pl, speedscope and others read.
        """
        lines = []
        for stack, seconds in sorted(self._stacks.items()):
            if micros := round(seconds * 1e6):
                lines.append(f"{';'.join(name.replace(';', ':') for name in stack)} {micros}\n")
        return "".join(lines)

    def firefox(self) -> str:
        """Return the profile as JSON for the Firefox Profiler (profiler.firefox.com).

        The profiler runs in the browser and sends nothing.
        """
        return json.dumps(self._json, ensure_ascii=False, separators=(",", ":"))

    def svg(self) -> str:
        """Return a flame graph as SVG."""
        from .flame_graph import render_svg

        return render_svg(self._stacks, self.name)

    def html(self) -> str:
        """Return a flame graph as a web page with zoom and search."""
        from .flame_graph import render_html

        return render_html(self._stacks, self.name, self.functions)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file in the format of its suffix: `.svg`, `.html`, `.json` (Firefox Profiler), or
        `.txt` or `.folded` (collapsed).

        Raises:
            OptionError: The suffix is another one.
        """
        suffix = file_suffix(path)
        make = {
            ".svg": self.svg,
            ".html": self.html,
            ".json": self.firefox,
            ".txt": self.collapsed,
            ".folded": self.collapsed,
        }.get(suffix)
        if make is None:
            raise OptionError(f"a profile can be saved as {', '.join(FORMATS)}, not as `{suffix}`")
        content = make()
        with open(path, "w", encoding="utf-8") as file:
            file.write(content)

    def __repr__(self) -> str:
        return f"<Profile of {self.name!r}: {self.samples} samples, {self.seconds:.3f} s>"


def file_suffix(path: str | os.PathLike[str]) -> str:
    """Return the suffix of a file's name, which determines the format."""
    return os.path.splitext(os.fspath(path))[1].lower()
