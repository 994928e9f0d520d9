"""Checks and converts what callers pass to a plugin: changes to its config, and inputs of calls."""

from __future__ import annotations

from .._engine import truncate
from .._host.options import describe_value
from ..errors import OptionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def to_input_bytes(data: Any) -> bytes | memoryview:
    """Return the bytes to send for an input that is neither text nor `bytes`."""
    try:
        view = memoryview(data)
    except TypeError:
        from .._host.codecs import encode_input

        return encode_input(data)
    return view.cast("B") if view.c_contiguous else view.tobytes()


def merge_config(config: dict[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    """Return a copy of the config with the changes applied, where None removes a key.

    Raises:
        OptionError: The changes are no mapping of text to text.
    """
    from .._manifest.messages import check_encodable

    changed = dict(config)
    if not hasattr(changes, "items"):
        raise OptionError(
            f"config: expected a mapping of text to text, got {type(changes).__name__}",
            field="config",
        )
    for key, value in changes.items():
        if not isinstance(key, str) or not (value is None or isinstance(value, str)):
            if not isinstance(key, str):
                raise OptionError(
                    f"config: keys must be text, but {describe_value(key)} is {type(key).__name__}",
                    field="config",
                )
            hint = (
                "; JSON text can hold it"
                if isinstance(value, (bool, int, float, list, dict))
                else ""
            )
            raise OptionError(
                f"config: keys and values must be text, but the value of `{truncate(key)}` is "
                f"{type(value).__name__}{hint}",
                field="config",
            )
        check_encodable(key, "config: a key", field="config")
        if value is not None:
            check_encodable(value, f"config: the value of `{truncate(key)}`", field="config")
        if value is None:
            changed.pop(key, None)
        else:
            changed[key] = value
    return changed
