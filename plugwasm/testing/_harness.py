"""The harness: one plugin, what it may do, the fakes around it, and a record of what happened."""

from __future__ import annotations

import os
from time import perf_counter

from .._host.options import check_list, describe_value, reject_unknown_arguments
from .._host.vars import check_initial_vars, decode_names
from .._http.url import HostRules
from .._manifest.limits import DEFAULT_LIMITS, effective_limits
from .._manifest.messages import closest_match
from .._manifest.resolve import admitted_settings
from .._runtime.compiled_plugin import CompiledPlugin
from .._runtime.import_stubs import required_functions
from .._runtime.plugin import Plugin
from .._runtime.settings import PluginSettings
from .._script.names import is_script
from .._script.spec import resolve_plugin
from .._wasi.options import SeededRandom, WasiOptions
from ..errors import (
    BusyError,
    ClosedError,
    Error,
    FunctionNotFoundError,
    LinkError,
    OptionError,
    SignatureError,
    truncate,
)
from ._clock import FakeClock
from ._host_functions import FakeHostFunction, HostCallRouter
from ._http import FakeHttp
from ._logs import Logs, RecordingLogger
from ._records import Call
from ._usage import Usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import TracebackType
    from typing import Any, Never, Self

    from .._engine import FunctionType
    from .._host.functions import Function
    from .._host.vars import VarsByName
    from .._http.egress import Egress
    from .._manifest.limits import Limits
    from .._manifest.resolve import PluginSpec
    from .._runtime.argument_types import PluginInput
    from ._records import HostCall, LogLine

_UNLIMITED_FUEL = 2**62
"""Fuel for a plugin without a limit: so much that it is only measured."""
_NOT_STARTED = (FunctionNotFoundError, SignatureError, BusyError, ClosedError)
_MAX_TRANSCRIPT_LINES = 200
"""The most lines of a transcript; the beginning of a longer one is left out."""


class Harness:
    """A plugin under test. Nothing is compiled before it is needed.

    Host functions that the plugin imports and that nothing provides are linked all the same. Before
    one is called, `host` must say what it returns.

    Args:
        plugin: As for `Plugin`, or the path of a script.
        config: As for `Plugin`.
        vars: The vars that each new instance begins with.
        wasi: Whether the plugin may import WASI, as a script always may. It sees `clock`, and
            random bytes that depend on `seed`; `WasiOptions` replace both.
        functions: Host functions of the application, for those that `host` does not fake. None by
            default.
        name: The name in errors and logs; by default, the main module's file name.
        fuel_limit: The fuel for each call; by default, fuel is only measured.
        http_response_headers: As for `Plugin`.
        limits: As for `Plugin`.
        egress: The application's policy, which decides on requests before `http` answers them. Its
            transport is not used.
        allowed_hosts: The hosts to grant in place of those of the manifest. By default, those of
            the manifest, or all if it grants none.
        allowed_paths: The directories to grant in place of those of the manifest.
        fake_missing: Whether host functions that nothing provides return zeros when they are
            called, instead of failing the test.
        log_level: The lowest level that is logged: "trace", "debug", "info", "warn" or "error".
        seed: The seed of the random bytes that the plugin gets from WASI.

    Attributes:
        http: Answers the plugin's HTTP requests, and records them (`FakeHttp`).
        clock: The time that the plugin sees (`FakeClock`).
        logs: The lines that the plugin logged (`Logs`).
        calls: The calls of its exports (`Call`), failed ones too.

    Raises:
        ManifestError, SourceError, ModuleError: As for `Plugin`.
    """

    __module__ = "plugwasm.testing"

    def __init__(
        self,
        plugin: PluginInput,
        *,
        config: Mapping[str, str | None] | None = None,
        vars: VarsByName | None = None,
        wasi: bool | WasiOptions = False,
        functions: Iterable[Function] | None = None,
        name: str | None = None,
        fuel_limit: int | None = None,
        http_response_headers: bool = False,
        limits: Limits | None = None,
        egress: Egress | None = None,
        allowed_hosts: Sequence[str] | None = None,
        allowed_paths: Mapping[str | os.PathLike[str], str] | None = None,
        fake_missing: bool = False,
        log_level: str = "trace",
        seed: int | str | bytes = 0,
        **unknown: Never,
    ) -> None:
        if unknown:
            reject_unknown_arguments(Harness, unknown)
        settings = PluginSettings(
            wasi, functions, name, fuel_limit, http_response_headers, limits, egress
        )
        if not (config is None or hasattr(config, "items")):
            raise OptionError(
                f"config: expected a mapping of text to text, got {describe_value(config)}",
                field="config",
            )
        if allowed_hosts is not None:
            allowed_hosts = check_list("allowed_hosts", allowed_hosts, "host names")
        if not (allowed_paths is None or hasattr(allowed_paths, "items")):
            raise OptionError(
                "allowed_paths: expected a mapping of directories to paths, got "
                f"{describe_value(allowed_paths)}",
                field="allowed_paths",
            )
        if isinstance(plugin, CompiledPlugin):
            raise TypeError(
                "Harness: it links the plugin itself, with its fakes; give what the "
                "CompiledPlugin was made of"
            )
        limits, egress = admitted_settings(plugin, limits, egress)
        spec = resolve_plugin(
            plugin, module_bytes=(limits or DEFAULT_LIMITS).module_bytes, egress=egress
        )
        self._spec = _apply_grants(spec, allowed_hosts, allowed_paths)
        self.name: str = settings.name or truncate(spec.label)
        self.limits: Limits = effective_limits(limits, spec)
        self.http: FakeHttp = FakeHttp(self._record)
        self.clock: FakeClock = FakeClock()
        self.logs: Logs = Logs()
        self.calls: list[Call] = []
        self._events: list[object] = []
        self._router = HostCallRouter(self._record, fake_missing)
        self._logger = RecordingLogger(
            f"plugwasm.plugin.{self.name.replace('.', '_')}", log_level, self._record_line
        )
        self._config, self._vars = dict(config or {}), check_initial_vars(vars, self.limits)
        self._settings = settings.replace(
            wasi=WasiOptions(clock=self.clock, random=SeededRandom(seed))
            if wasi is True or (is_script(spec) and not wasi)
            else wasi,
            name=self.name,
            fuel_limit=_UNLIMITED_FUEL if fuel_limit is None else fuel_limit,
            limits=limits,
            egress=self._fake_egress(egress),
        )
        self._missing_imports: dict[tuple[str, str], FunctionType] | None = None
        self._compiled: CompiledPlugin | None = None
        self._plugins: list[_RecordedPlugin] = []

    # ---- what the test says ----------------------------------------------------------------------

    def host(
        self,
        name: str,
        *params: type,
        returns: Any = None,
        raises: BaseException | None = None,
        namespace: str | None = None,
    ) -> FakeHostFunction:
        """Fake a host function that the plugin imports.

        A second call replaces the fake, at any time.

        Args:
            name: The name that the plugin imports it by.
            params: The types of the arguments: str, bytes, and by JSON dict, list and dataclasses,
                for blocks of memory; int, float and bool. By default, those of `HostCall.args`.
            returns: The result: None (0), a number, text, bytes, anything else by JSON, or a tuple
                if the function has several results; or a callable that gets the arguments, and
                returns one of these.
            raises: An exception to raise instead.
            namespace: The module name that the plugin imports it from. Needed only if two functions
                have the same name.

        Raises:
            LinkError: The plugin imports no such function.
        """
        key = self._find_import(name, namespace)
        expected = len(self._application_imports()[key].params)
        if params and len(params) != expected:
            raise LinkError(
                f"host function `{name}` of plugin `{self.name}` has {expected} parameters, not "
                f"{len(params)}",
                plugin=self.name,
            )
        fake = self._router.fakes[key] = FakeHostFunction(*key, params or None, returns, raises)
        return fake

    def plugin(self) -> Plugin:
        """Make a plugin that can be called, with instances of its own. Close it, or the harness.

        Raises:
            Error: As `Plugin`.
        """
        plugin = _RecordedPlugin(self, self._compile())
        self._plugins.append(plugin)
        return plugin

    # ---- what happened ---------------------------------------------------------------------------

    @property
    def host_calls(self) -> list[HostCall]:
        """The calls of host functions (`HostCall`), faked or not."""
        return self._router.calls

    @property
    def vars(self) -> dict[str, bytes]:
        """The vars of the plugin that was made last, or as they were when it was closed.

        Before there is a plugin, the vars that it will begin with.
        """
        return self._plugins[-1].vars if self._plugins else decode_names(self._vars)

    def at_most(
        self,
        *,
        fuel: int | None = None,
        seconds: float | None = None,
        memory_bytes: int | None = None,
    ) -> Usage:
        """Assert in a `with` block that its calls use at most so much; `as` gives what they used.

        Fuel is the same on all machines and at all times. The first call of an instance includes
        its start.

        Args:
            fuel: The fuel of all calls in the block together.
            seconds: The time of all calls in the block together.
            memory_bytes: The memory of each instance, with what is passed in and out.

        Raises:
            AssertionError: The calls used more; or there was no call, so that nothing was asserted.
        """
        if fuel is seconds is memory_bytes is None:
            raise TypeError("Harness.at_most: say how much of what: fuel, seconds or memory_bytes")
        return Usage(self, fuel, seconds, memory_bytes)

    def assert_all_called(self) -> None:
        """Assert that the plugin has used all routes of `http` and all fakes of `host`."""
        __tracebackhide__ = True
        missed = [f"  {route}" for route in self.http.routes if not route.called]
        missed += [
            f"  host function `{fake.name}`"
            for fake in self._router.fakes.values()
            if not fake.called
        ]
        if missed:
            raise AssertionError(
                f"plugin `{self.name}` was expected to use, and did not:\n" + "\n".join(missed)
            )

    def transcript(self) -> str:
        """Return what happened, in order, as lines: calls, and what the plugin did in each."""
        lines = [str(it) if isinstance(it, Call) else f"    {it}" for it in self._events]
        if len(lines) > _MAX_TRANSCRIPT_LINES:
            lines[: len(lines) - _MAX_TRANSCRIPT_LINES] = [
                f"… {len(lines) - _MAX_TRANSCRIPT_LINES} lines before"
            ]
        return "\n".join(lines)

    # ---- life ------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the plugins. The records remain."""
        for plugin in self._plugins:
            plugin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Harness {self.name!r}, {len(self.calls)} calls>"

    # ---- linking ---------------------------------------------------------------------------------

    def _record(self, record: object) -> None:
        self._events.append(record)

    def _record_line(self, line: LogLine) -> None:
        self.logs._lines.append(line)
        self._record(line)

    def _fake_egress(self, egress: Egress | None) -> Egress:
        from .._http.egress import Egress

        wire = {"ssl_context": None, "ca_file": None, "client_certificate": None, "proxy": None}
        if egress is not None:
            return egress.replace(**wire, transport=self.http, resolve=False)
        return Egress(private_addresses=["0.0.0.0/0", "::/0"], transport=self.http, resolve=False)

    def _compile(self) -> CompiledPlugin:
        if self._compiled is None:
            given: tuple[Function, ...] = self._settings.functions
            real = {function._imported_as: function for function in given}
            types = {key: function._host.type for key, function in real.items()}
            functions = tuple(
                self._router.make_function(*key, type, real.get(key))
                for key, type in {**self._application_imports(), **types}.items()
            )
            self._compiled = CompiledPlugin._from_settings(
                self._spec, self._settings.replace(functions=functions)
            )
            self._compiled._grants.log._logger = self._logger
        return self._compiled

    def _application_imports(self) -> dict[tuple[str, str], FunctionType]:
        """Return the functions that only the application can provide."""
        if self._missing_imports is None:
            if is_script(self._spec):
                # Translated once, although it is read twice.
                self._spec = translated = self._spec.translated(self.limits)
                self._missing_imports = translated.imported_types(self.limits)
            else:
                self._missing_imports = required_functions(self._spec, self.limits)
        return self._missing_imports

    def _find_function(
        self, name: str, namespace: str | None
    ) -> tuple[tuple[str, str], FunctionType]:
        """Return the namespace and the name of a function that the plugin imports, and its type."""
        key = self._find_import(name, namespace)
        return key, self._application_imports()[key]

    def _find_import(self, name: str, namespace: str | None) -> tuple[str, str]:
        known = self._application_imports()
        fitting = [key for key in known if key[1] == name and namespace in (None, key[0])]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            spaces = ", ".join(f"`{key[0]}`" for key in fitting)
            raise LinkError(
                f"plugin `{self.name}` imports `{name}` from {spaces}: say which, with `namespace`",
                plugin=self.name,
            )
        names = [key[1] for key in known]
        close = closest_match(name, names)
        hint = (
            f"did you mean `{close}`?"
            if close
            else f"it imports {', '.join(f'`{n}`' for n in sorted(names)) or 'none'}"
        )
        where = f" from `{namespace}`" if namespace is not None else ""
        raise LinkError(
            f"plugin `{self.name}` imports no host function `{name}`{where}: {hint}",
            plugin=self.name,
        )


class _RecordedPlugin(Plugin):
    """A plugin whose calls are recorded."""

    def __init__(self, harness: Harness, plugin: CompiledPlugin) -> None:
        self._harness = harness
        self._last_vars: dict[str, bytes] | None = None
        super().__init__(plugin, config=harness._config, vars=harness._vars)

    if not TYPE_CHECKING:  # type checkers see the signature of `Plugin.call`

        def call(self, function_name, *args, **kwargs):
            __tracebackhide__ = True
            call = Call(function_name, args[0] if args else kwargs.get("data", b""))
            self._harness.calls.append(call)
            self._harness._record(call)
            start = perf_counter()
            try:
                output = super().call(function_name, *args, **kwargs)
                call.output = bytes(output) if isinstance(output, memoryview) else output
                return output
            except Error as error:
                call.error = error
                # The frames of plugwasm are of no use to a test; the cause has its own traceback.
                error.__traceback__ = None
                raise
            except BaseException as error:
                call.error = error
                raise
            finally:
                call.seconds = perf_counter() - start
                call.fuel = 0 if isinstance(call.error, _NOT_STARTED) else self.fuel_used or 0
                call.memory_bytes = self._memory()
                call.done = True

    def _memory(self) -> int | None:
        """Return the bytes of all memories of the instance."""
        return None if self._guest is None else self._guest.memory_bytes()

    @property
    def vars(self) -> dict[str, bytes]:
        return super().vars if self._last_vars is None else dict(self._last_vars)

    def close(self) -> None:
        if self._last_vars is None:
            self._last_vars = super().vars
        super().close()


def _apply_grants(
    spec: PluginSpec,
    allowed_hosts: Sequence[str] | None,
    allowed_paths: Mapping[str | os.PathLike[str], str] | None,
) -> PluginSpec:
    """Return a copy of a spec with the grants of the test."""
    granted = spec.copy()
    granted.allowed_hosts = (
        tuple(allowed_hosts) if allowed_hosts is not None else spec.allowed_hosts or ("*",)
    )
    if allowed_hosts is not None:
        HostRules(allowed_hosts)  # raises now for one that is not valid, not in the first request
    if allowed_paths is not None:
        granted.allowed_paths = {
            os.fspath(path): guest_path for path, guest_path in allowed_paths.items()
        }
    return granted
