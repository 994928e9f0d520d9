"""`plugwasm call`: from its options to a spec, and from that to outputs.

All options are checked here, before anything is read or compiled. Each error names the option and
what was expected.

Decisions: docs/decisions.md, 37.4.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager, nullcontext

from .._manifest.resolve import MAIN_MODULE, ModuleSpec, PluginSpec, resolve
from ..errors import Error, HashMismatchError, OptionError
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

LOG_LEVELS = ("trace", "debug", "info", "warn", "error", "off")
MAX_NUMBER = 2**63 - 1
_MAX_MILLISECONDS = 2**63 // 1_000_000
_MAX_CONFIG_FILE = 64 * 2**20


# ---- options -------------------------------------------------------------------------------------


def parse_pair(option: str, text: str, shape: str) -> tuple[str, str]:
    """Split `NAME=REST`. The rest is not repeated in an error, since it may be a secret."""
    name, separator, rest = text.partition("=")
    if not separator or not name:
        raise UsageProblem(
            option, f"expected {shape}, got {'nothing before the =' if separator else 'no ='}"
        )
    return name, rest


def parse_milliseconds(text: str) -> int:
    """Parse `500`, `500ms`, `2s` or `0.5s` as milliseconds."""
    number, factor = (
        (text.removesuffix("s"), 1000)
        if text.endswith("s") and not text.endswith("ms")
        else (text.removesuffix("ms"), 1)
    )
    try:
        if not number.isascii() or "_" in number:
            raise ValueError
        value = float(number) * factor
    except ValueError:
        value = float("nan")
    if not 1 <= value <= _MAX_MILLISECONDS:
        raise UsageProblem(
            "--timeout",
            f"expected milliseconds (500) or seconds (2s, 0.5s), at least 1; got {text!r}",
        )
    return round(value)


def parse_number(option: str, text: str, least: int, most: int) -> int:
    """Parse a whole number in decimal digits."""
    if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
        raise UsageProblem(option, f"expected a whole number from {least} to {most}, got {text!r}")
    return int(text)


def parse_log_level(text: str) -> str:
    """Check the lowest level of the log to show, or "off"."""
    if text not in LOG_LEVELS:
        raise UsageProblem(
            "--log-level",
            f"expected {', '.join(LOG_LEVELS[:-1])} or {LOG_LEVELS[-1]}, got {text!r}",
        )
    return text


def parse_allowed_path(text: str) -> tuple[str, str]:
    """Parse `[ro:]HOST[:GUEST]` as an entry of `allowed_paths`. GUEST is HOST if it is missing."""
    prefix = "ro:" if text.startswith("ro:") else ""
    host, separator, guest = text.removeprefix(prefix).rpartition(":")
    if not separator:
        host = guest
    if not host or not guest:
        raise UsageProblem(
            "--allow-path",
            f"expected HOST or HOST:GUEST, with ro: before it for read-only; got {text!r}",
        )
    return prefix + host, guest


def _parse_sha256(text: str) -> str:
    """Check 64 hexadecimal digits, and return them in lower case."""
    if len(text) != 64 or not frozenset("0123456789abcdef").issuperset(text.lower()):
        raise UsageProblem(
            "--set-hash", f"expected the 64 hexadecimal digits of a sha256, got {text!r}"
        )
    return text.lower()


def read_config(
    pairs: Sequence[str], file: str | None, document: str | None = None
) -> dict[str, str]:
    """Return the configuration.

    Entries of the JSON document override those of the file; single entries override both.
    """
    config = {} if file is None else _config_file(file)
    if document is not None:
        config |= _config_document(document)
    for text in pairs:
        key, value = parse_pair("--config", text, "KEY=VALUE")
        config[key] = value
    for key, value in config.items():
        if not (_is_text(key) and _is_text(value)):
            raise UsageProblem("--config", f"expected UTF-8, got other bytes in the entry {key!r}")
    return config


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _config_document(document: str) -> dict[str, str]:
    import json

    try:
        found = json.loads(document)
    except (ValueError, RecursionError):
        found = None  # what the parser says may repeat a part, and that may be a secret
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise UsageProblem(
            "--set-config",
            'expected a JSON object with text for every key, as in \'{"key": "value"}\'',
        )
    return found


def _config_file(path: str) -> dict[str, str]:
    import json
    import tomllib

    from .._manifest.files import read_file

    content = read_file(path, _MAX_CONFIG_FILE)
    try:
        text = content.decode("utf-8-sig")
        found = json.loads(text) if text.lstrip().startswith("{") else tomllib.loads(text)
    except (ValueError, RecursionError):
        # What the parsers say may repeat a part of the file, and that may be a secret.
        raise UsageProblem(
            "--config-file", f"{path} is neither a JSON object nor TOML, or is not UTF-8"
        ) from None
    for key, value in found.items():
        if not isinstance(value, str):
            raise UsageProblem(
                "--config-file",
                f"expected text for every key of {path}; {key!r} has {type(value).__name__}",
            )
    return dict(found)


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
        self.pinned: str | None = None if sha256 is None else _parse_sha256(sha256)
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

    The input is read after the plugin was loaded, since somebody may have to type it.

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

    spec: Any = resolve(plugin)
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
        error.add_note(f"no source lines: {missing}")
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
