"""The policy of a set: what the application grants to all plugins, and what each of them gets.

Decisions: docs/decisions.md, 21.3.
"""

from __future__ import annotations

from .._host.options import check_list
from .._manifest.limits import Limits, effective_limits
from .._manifest.policy import MAX_MODULES, ManifestPolicy
from .._manifest.resolve import Admitted, PluginSpec
from .._runtime.compiled_plugin import CompiledPlugin
from .._runtime.settings import PluginSettings, validate_name
from .._script.names import is_script
from ..errors import OptionError, SourceError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .._host.functions import Function
    from .._http.egress import Egress
    from .._runtime.argument_types import Observe
    from .._wasi.options import WasiOptions

__all__ = ["SetPolicy"]


class SetPolicy:
    """The bounds that no manifest of the set can exceed.

    Attributes:
        limits: The limits of each plugin; a manifest can only ask for less.
    """

    def __init__(
        self,
        wasi: bool | WasiOptions,
        functions: Iterable[Function] | None,
        limits: Limits | None,
        egress: Egress | None,
        allowed_paths: Iterable[str],
        fuel_limit: int | None,
        http_response_headers: bool,
        observe: Observe,
        elsewhere: bool,
    ) -> None:
        self.limits = limits or Limits()
        # Checked here, and not once for each plugin that is loaded.
        self._settings = PluginSettings(
            wasi,
            functions,
            None,
            fuel_limit,
            http_response_headers,
            self.limits,
            egress,
            observe,
        )
        if elsewhere and self._settings.observers:
            from .._runtime.observers import need_local_instance

            if need_local_instance(self._settings.observers):
                raise OptionError(
                    "observe: plugins that are `isolated` cannot be recorded, for their WASI runs "
                    "in another process"
                )
        self._compiled_class: type[CompiledPlugin] = CompiledPlugin
        if elsewhere:
            from .._isolation.compiled_plugin import RemoteCompiledPlugin

            self._compiled_class = RemoteCompiledPlugin
        allowed_paths = check_list("allowed_paths", allowed_paths, "paths")
        self._missing: dict[str, SourceError] = {}
        """Why engines of scripts cannot be had, by language: tried once, and not for each file."""
        self._policy = ManifestPolicy(
            modules=MAX_MODULES,
            egress=egress,
            allowed_paths=allowed_paths,
            config=None,
            limits=self.limits,
        )

    def limits_of(self, requested: PluginSpec) -> Limits:
        """Return the limits of a plugin: those of the policy that admitted it, or of the set."""
        limits = requested.limits if isinstance(requested, Admitted) else self.limits
        return effective_limits(limits, requested)

    def compile(
        self, name: str, requested: PluginSpec, seconds: float | None = None
    ) -> CompiledPlugin:
        """Return a plugin with what it is granted, compiled unless a process of its own does that.

        A plugin that a `ManifestPolicy` has admitted gets what that policy grants.

        Args:
            name: The name of the plugin.
            requested: The plugin as its source describes it.
            seconds: Seconds that compiling may take; None for the limit of the plugin.
        """
        settings = self._settings.replace(name=validate_name(name))
        if isinstance(requested, Admitted):
            admitted = requested.copy()
            admitted.compile_seconds = seconds
            return self._compiled_class._from_settings(
                Admitted(admitted, requested.limits, requested.egress),
                settings.replace(limits=None, egress=None),
            )
        has_files = bool(self._settings.wasi)
        if is_script(requested):
            self._need_engine(requested.interpreter)
            has_files = False
        granted = self._policy.granted(requested, directories=has_files)
        granted.compile_seconds = seconds
        return self._compiled_class._from_settings(granted, settings)

    def begin(self) -> None:
        """Begin to load plugins: what has failed before is tried again."""
        self._missing.clear()

    def _need_engine(self, language: str) -> None:
        """Build the engine of scripts, if need be: once, and not for each file if that fails."""
        from .._script.engine import get_engine

        missing = self._missing.get(language)
        if missing is not None:
            raise missing.with_traceback(None)
        try:
            get_engine(language)
        except SourceError as error:
            self._missing[language] = error
            raise
