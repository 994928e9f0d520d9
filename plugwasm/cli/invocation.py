"""`plugwasm call`: from its options to a spec, and from that to outputs.

All options are checked here, before anything is read or compiled. Each error names the option and
what was expected.

Decisions: docs/decisions.md, 37.4.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager, nullcontext

from .._manifest.resolve import MAIN_MODULE, ModuleSpec, PluginSpec, resolve
from .._script.names import is_script
from ..errors import Error, HashMismatchError, OptionError
from .options import (
    MAX_NUMBER,
    parse_allowed_path,
    parse_milliseconds,
    parse_number,
    parse_pair,
    parse_sha256,
    read_config,
)
from .streams import check_writable
from .terminal import UsageProblem, escape, print_warning, write_failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from typing import Any

    from .._manifest.limits import Limits
    from .._runtime.observers import Call, Observer
    from .._runtime.plugin import Plugin

# ---- the spec ------------------------------------------------------------------------------------


class Overrides:
    """The options that change a spec: config, hosts, paths and modules are added, limits replaced.

    Raises:
        UsageProblem: An option is not valid.
        SourceError: The file of the configuration cannot be read.
    """

    def __init__(
        self,
        *,
        config: Sequence[str] = (),
        config_file: str | None = None,
        set_config: str | None = None,
        hosts: Sequence[str] = (),
        paths: Sequence[str] = (),
        timeout: str | None = None,
        max_pages: str | None = None,
        http_response_max: str | None = None,
        var_max: str | None = None,
        links: Sequence[str] = (),
        sha256: str | None = None,
        gc: bool = False,
        atomics: bool = False,
    ) -> None:
        self._features = {"gc": gc, "atomics": atomics}
        self.timeout_ms: int | None = None if timeout is None else parse_milliseconds(timeout)
        self.max_pages: int | None = (
            None if max_pages is None else parse_number("--memory-max", max_pages, 0, 65536)
        )
        self.max_http_response_bytes: int | None = (
            None
            if http_response_max is None
            else parse_number("--http-response-max", http_response_max, 0, MAX_NUMBER)
        )
        self.max_var_bytes: int | None = (
            None if var_max is None else parse_number("--var-max", var_max, 0, MAX_NUMBER)
        )
        self.pinned: str | None = None if sha256 is None else parse_sha256(sha256)
        self.hosts: tuple[str, ...] = tuple(hosts)
        if hosts:
            _check_hosts(hosts)
        self.paths: dict[str, str] = {}
        for text in paths:
            host, guest = parse_allowed_path(text)
            if host in self.paths or guest in self.paths.values():
                raise UsageProblem(
                    "--allow-path", f"{host if host in self.paths else guest} is given twice"
                )
            self.paths[host] = guest
        self.links: dict[str, str] = {}
        for text in links:
            name, source = parse_pair("--link", text, "NAME=PATH")
            if not source or name in self.links:
                raise UsageProblem(
                    "--link",
                    f"{name} is given twice"
                    if source
                    else "expected NAME=PATH, got nothing after the =",
                )
            self.links[name] = source
        self.config: dict[str, str] = read_config(config, config_file, set_config)

    def apply(self, spec: PluginSpec) -> None:
        """Apply the options to a spec."""
        spec.config.update(self.config)
        spec.allowed_hosts = (*spec.allowed_hosts, *self.hosts)
        kept = {
            host: guest
            for host, guest in spec.allowed_paths.items()
            if guest not in self.paths.values()
        }
        spec.allowed_paths = kept | self.paths
        if self.timeout_ms is not None:
            spec.timeout_ms = self.timeout_ms
        if self.max_pages is not None:
            spec.max_pages = self.max_pages
        if self.max_http_response_bytes is not None:
            spec.max_http_response_bytes = self.max_http_response_bytes
        if self.max_var_bytes is not None:
            spec.max_var_bytes = self.max_var_bytes
        if self.pinned is not None:
            _check_hash(spec, self.pinned)
        if self.links and is_script(spec):
            raise UsageProblem("--link", f"{spec.file} is a script, which imports no modules")
        for module in spec.modules:
            if module.name in self.links:
                what = "the plugin itself" if module.name == MAIN_MODULE else "another module"
                raise UsageProblem("--link", f"{module.name} is the name of {what}; choose another")
        spec.modules = [
            _read_linked_module(name, source) for name, source in self.links.items()
        ] + spec.modules

    def limits(self, spec: PluginSpec) -> Limits | None:
        """Return limits with the features that were asked for; None if there are none."""
        if not any(self._features.values()):
            return None
        from .._manifest.limits import effective_limits, replace_unchecked

        return replace_unchecked(effective_limits(None, spec), self._features)


def run_calls(
    plugin: str,
    function: str,
    read: Callable[[], bytes],
    overrides: Overrides,
    options: Mapping[str, Any],
    *,
    rounds: int,
    profiling: Callable[[Plugin], AbstractContextManager[object]] = nullcontext,
    explained: bool = False,
) -> Iterator[bytes]:
    """Yield the outputs of so many calls of one instance.

    The input is read after the plugin was loaded, since a user may have to type it.

    Args:
        plugin: A file, a URL or a manifest.
        function: The export to call.
        read: Reads the input.
        overrides: The options that change the spec.
        options: The options of the `CompiledPlugin`.
        rounds: The number of calls.
        profiling: Makes a context manager around the calls.
        explained: Whether an error gets a note with lines of the plugin's source, if they are
            known.
    """
    from .._runtime.compiled_plugin import CompiledPlugin
    from .._runtime.plugin import Plugin
    from .._script.spec import resolve_plugin

    spec: Any = resolve_plugin(plugin)
    overrides.apply(spec)
    with Plugin(
        CompiledPlugin(spec, functions=(), limits=overrides.limits(spec), **options)
    ) as instance:
        data = read()
        with profiling(instance):
            for _ in range(rounds):
                try:
                    output = instance.call(function, data)
                except Error as error:
                    if explained:
                        _note_lines(error, instance)
                    raise
                yield output


def _note_lines(error: Error, plugin: Plugin) -> None:
    from ..debugging import explain

    if not error.backtrace:
        return
    try:
        backtrace = explain(error, plugin)
    except ImportError as missing:
        error.add_note(str(missing))
        return
    if any(frame.file is not None for frame in backtrace):
        error.add_note(f"in the source of the plugin:\n{backtrace}")


@contextmanager
def observe_calls(
    *, stats: bool, trace: bool, record: str | None
) -> Iterator[list[Observer] | None]:
    """Yield the observers that were asked for; None for none.

    A recording is written at the end, also when a call fails.
    """
    if not (stats or trace or record is not None):
        yield None
        return
    from .._runtime.observers import Observer, Trace

    class Stats(Observer):
        @contextmanager
        def on_call(self, call: Call) -> Iterator[None]:
            try:
                yield
            finally:
                print(escape(_format_stats(call)), file=sys.stderr)

    observers: list[Observer] = [Stats()] * stats + [Trace()] * trace
    if record is None:
        yield observers
        return
    from .._recording.recorder import Recorder

    check_writable("--record", record)
    recorder = Recorder()
    try:
        yield [recorder, *observers]
    finally:
        if recorder.recordings:  # otherwise nothing has been started
            try:
                recorder.recording.save(record)
            except OSError as error:
                raise write_failure(record, error) from error


def _format_stats(call: Call) -> str:
    """Return the statistics of a call as a line."""
    milliseconds = {
        "guest": call.guest_seconds,
        "start": call.start_seconds,
        "host": call.host_seconds,
    }
    parts = [f"{what} {seconds * 1e3:.3f}" for what, seconds in milliseconds.items()]
    line = (
        f"{call.function}: {call.seconds * 1e3:.3f} ms ({', '.join(parts)}), "
        f"{call.input_bytes} bytes in, {call.output_bytes} out"
    )
    counts = {
        "host calls": call.host_calls,
        "HTTP requests": call.http_requests,
        "fuel": call.fuel,
    }
    line += "".join(f", {number} {what}" for what, number in counts.items() if number)
    return (
        line if call.memory_bytes is None else f"{line}, {call.memory_bytes // 1024} KiB of memory"
    )


def make_profiler(path: str | None) -> Callable[[Plugin], AbstractContextManager[object]]:
    """Return a context manager that profiles a plugin and writes the profile to a file.

    It does so also when a call fails. Without a file it does nothing.
    """
    if path is None:
        return nullcontext
    from .._debugging.profile import FORMATS, file_suffix

    if file_suffix(path) not in FORMATS or "\0" in path:
        raise UsageProblem(
            "--profile",
            f"expected the name of a file that ends with {', '.join(FORMATS)}, got {path!r}",
        )

    @contextmanager
    def profiling(plugin: Plugin) -> Iterator[None]:
        from ..debugging import profile

        taken = profile(plugin)
        try:
            with taken:
                yield
        finally:
            try:
                taken.save(path)
            except OSError as error:
                raise write_failure(path, error) from error
            if taken.why_empty is not None:
                print_warning(f"the profile {path} is empty: {taken.why_empty} (--loop)")

    return profiling


def _read_linked_module(name: str, source: str) -> ModuleSpec:
    modules = resolve(source).modules
    if len(modules) != 1:
        raise UsageProblem("--link", f"expected one module, but {source} has {len(modules)}")
    return ModuleSpec(name, modules[0].wasm, modules[0].origin)


def _check_hosts(hosts: Sequence[str]) -> None:
    from .._http.egress import Egress

    try:
        Egress(allowed_hosts=hosts)
    except OptionError as error:
        raise UsageProblem("--allow-host", error.reason) from None


def _check_hash(spec: PluginSpec, expected: str) -> None:
    import hashlib

    main = next(module for module in spec.modules if module.name == spec.main)
    actual = hashlib.sha256(main.wasm).hexdigest()
    if actual != expected:
        raise HashMismatchError(
            f"the sha256 of {main.origin} is {actual}, not the one given with --set-hash"
        )
