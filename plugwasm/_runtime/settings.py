"""The settings of a plugin, checked: one value for all classes that take them as arguments."""

from __future__ import annotations

from .._host.options import (
    NOT_GIVEN,
    REGISTERED,
    check_flag,
    check_fuel,
    check_functions,
    check_option_types,
)
from ..errors import OptionError, truncate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, NoReturn

    from .._host.functions import Function
    from .._http.egress import Egress
    from .._manifest.limits import Limits
    from .._wasi.options import WasiOptions
    from .argument_types import Observe
    from .observers import Observer

    GivenSettings = tuple[
        bool | WasiOptions,
        Iterable[Function] | None,
        str | None,
        int | None,
        bool,
        Limits | None,
        Egress | None,
    ]
    """The arguments of a `PluginSettings` without `observe`, unchecked, in its order."""

__all__ = ["NO_SETTINGS", "PluginSettings", "validate_name"]

NO_SETTINGS: GivenSettings = (NOT_GIVEN, REGISTERED, None, NOT_GIVEN, NOT_GIVEN, None, None)
"""The arguments of a caller who gave none."""


class PluginSettings:
    """Settings of a plugin, checked. Immutable.

    Args:
        wasi, functions, name, fuel_limit, http_response_headers, limits, egress, observe: As for
            `CompiledPlugin`. `NOT_GIVEN` stands for a default.

    Attributes:
        functions: The host functions, or `REGISTERED` for those that are registered when the plugin
            is compiled.
        observers: The observers; None when the plugin is not observed.

    Raises:
        OptionError: One of them is not valid.
    """

    __slots__ = (
        "egress",
        "fuel_limit",
        "functions",
        "http_response_headers",
        "limits",
        "name",
        "observers",
        "wasi",
    )

    wasi: bool | WasiOptions
    functions: Any
    name: str | None
    fuel_limit: int | None
    http_response_headers: bool
    limits: Limits | None
    egress: Egress | None
    observers: tuple[Observer, ...] | None

    def __init__(
        self,
        wasi: bool | WasiOptions = NOT_GIVEN,
        functions: Iterable[Function] | None = REGISTERED,
        name: str | None = None,
        fuel_limit: int | None = NOT_GIVEN,
        http_response_headers: bool = NOT_GIVEN,
        limits: Limits | None = None,
        egress: Egress | None = None,
        observe: Observe = None,
    ) -> None:
        wasi = False if wasi is NOT_GIVEN else wasi
        fuel_limit = None if fuel_limit is NOT_GIVEN else fuel_limit
        if http_response_headers is NOT_GIVEN:
            http_response_headers = False
        check_fuel(fuel_limit)
        check_flag("http_response_headers", http_response_headers)
        check_option_types(wasi, limits, egress)
        observers = None
        if observe is not None:
            from .observers import resolve_observers

            observers = resolve_observers(observe)
        initialize = object.__setattr__
        initialize(self, "wasi", wasi)
        initialize(
            self, "functions", functions if functions is REGISTERED else check_functions(functions)
        )
        initialize(self, "name", validate_name(name))
        initialize(self, "fuel_limit", fuel_limit)
        initialize(self, "http_response_headers", http_response_headers)
        initialize(self, "limits", limits)
        initialize(self, "egress", egress)
        initialize(self, "observers", observers)

    def replace(self, **changes: Any) -> PluginSettings:
        """Return settings with other values for some attributes. These are not checked again."""
        changed = object.__new__(PluginSettings)
        for name in self.__slots__:
            value = changes[name] if name in changes else getattr(self, name)
            object.__setattr__(changed, name, value)
        return changed

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("PluginSettings cannot be changed; make others with `replace`")


def validate_name(name: str | None) -> str | None:
    """Return the name of a plugin as errors and logs show it: one line, of bounded length.

    Raises:
        OptionError: It is not text, or cannot be encoded.
    """
    if name is None:
        return None
    from .._manifest.messages import check_encodable

    if not isinstance(name, str):
        raise OptionError(f"name: expected text, got {type(name).__name__}", field="name")
    check_encodable(name, "name", field="name")
    return truncate(name)
