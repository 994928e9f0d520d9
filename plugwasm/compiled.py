"""Compiled plugins: read, compiled and linked once, and the start of any number of plugins."""

from __future__ import annotations

from ._code import BeyondPool, engine
from ._kernel import FIRST_PAGES
from ._link import Plan
from ._registry import registered
from ._source import resolve
from .errors import ManifestError, OutOfMemoryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping
    from typing import Any

    from ._engine import Item
    from ._sandbox.files import Preopen
    from ._source import Recipe
    from .functions import Function
    from .manifest import Manifest

    PluginInput = str | bytes | bytearray | memoryview | os.PathLike[str] | Mapping[str, Any] | Manifest

__all__ = ["CompiledPlugin"]


class _Registered:
    def __repr__(self) -> str:
        return "<all that host_fn registered>"


POOL_AFTER = 4
"""The start of a plugin that makes its further instances come from the pool. Making the pool takes 2 ms, once in a process."""

REGISTERED: Any = _Registered()
"""Stands for the host functions that `host_fn` registered, where none were given."""


class CompiledPlugin:
    """A plugin that is read, compiled and linked, but not running. Make any number of `Plugin` of it, in any thread.

    Args:
        plugin: The path of a module or of a manifest (JSON or TOML); a module's bytes or text; a URL; a manifest as a dict, as JSON or TOML
            text, or as an object.
        wasi: Whether the plugin may import WASI preview 1. It sees no files but `allowed_paths`, no environment and no arguments.
        functions: The host functions that it may import; if not given, all that `host_fn` registered.
        name: What errors and logs call it; if not given, the main module's file name.
        fuel_limit: How much fuel each call may use (about one unit an instruction); None for no limit. Guests run slower with a limit.
        http_response_headers: Whether the plugin may read the headers of HTTP responses.

    Raises:
        ManifestError: The manifest is not valid, or a hash does not match.
        SourceError: A module cannot be read or fetched.
        ModuleError: A module is not valid.
        LinkError: An import cannot be satisfied.
        OutOfMemoryError: The modules have more memory to start with than `max_pages` allows.
    """

    __slots__ = (
        "_offered",
        "_plan",
        "_pool_was_tried",
        "_pooled_plan",
        "_preopens",
        "_recipe",
        "_starts",
        "fuel_limit",
        "functions",
        "http_response_headers",
        "name",
        "wasi",
    )

    def __init__(
        self,
        plugin: PluginInput,
        wasi: bool = False,
        functions: Iterable[Function] | None = REGISTERED,
        *,
        name: str | None = None,
        fuel_limit: int | None = None,
        http_response_headers: bool = False,
    ) -> None:
        if fuel_limit is not None and not (isinstance(fuel_limit, int) and 0 <= fuel_limit < 2**63):
            raise ManifestError(f"fuel_limit must be an integer between 0 and 2**63 - 1, or None, not {fuel_limit!r}")
        self._recipe: Recipe = resolve(plugin)
        self.name = name or self._recipe.label
        self.wasi = wasi
        self.functions: tuple[Function, ...] = tuple(registered if functions is REGISTERED else functions or ())
        self.fuel_limit = fuel_limit
        self.http_response_headers = http_response_headers
        self._preopens = _preopens(self._recipe) if wasi else ()
        offered = {(function.namespace or "extism:host/user", function.name): function._host for function in self.functions}
        self._offered = offered
        self._plan = self._link(pooled=False)
        first, limit = self._plan.first_pages, self._recipe.max_pages
        if limit is not None and first > limit:
            raise OutOfMemoryError(
                f"plugin `{self.name}` starts with {first} pages of memory, {FIRST_PAGES} of them for what is passed in and out, "
                f"but its limit is {limit} (`memory.max_pages`)",
                plugin=self.name,
            )
        self._pooled_plan: Plan | None = None
        self._pool_was_tried = False
        self._starts = 0

    def _link(self, *, pooled: bool) -> Plan:
        return Plan(
            engine(fuel=self.fuel_limit is not None, pooled=pooled),
            self._recipe.modules,
            self._recipe.main,
            wasi=self.wasi,
            functions=self._offered,
        )

    def _plan_for_start(self) -> Plan:
        """The plan for one more instance: with the pool once there have been a few, for it pays only then."""
        self._starts += 1
        if self._starts >= POOL_AFTER and not self._pool_was_tried:
            self._pool_was_tried = True
            try:
                self._pooled_plan = self._link(pooled=True)
            except BeyondPool:
                pass
        return self._pooled_plan or self._plan

    @property
    def exports(self) -> tuple[Item, ...]:
        """What the main module exports: name, kind, and for functions the type."""
        return tuple(self._plan.main.module.exports.values())

    @property
    def imports(self) -> tuple[Item, ...]:
        """What the main module imports: module, name, kind, and for functions the type."""
        return self._plan.main.module.imports

    def __reduce__(self) -> str:
        raise TypeError("a CompiledPlugin cannot be copied or pickled; threads can share it, and another process makes its own")

    def __repr__(self) -> str:
        return f"<CompiledPlugin {self.name!r}>"


def _preopens(recipe: Recipe) -> tuple[Preopen, ...]:
    if not recipe.allowed_paths:
        return ()
    from ._sandbox.files import Preopen

    return tuple(Preopen(path.removeprefix("ro:"), guest_path, path.startswith("ro:")) for path, guest_path in recipe.allowed_paths.items())
