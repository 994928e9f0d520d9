"""A value of each type of a schema, for the first tests of a new project."""

from __future__ import annotations

import json
from itertools import count
from typing import Any, Final

from .model import (
    AnyObject,
    Boolean,
    Bytes,
    Choice,
    Content,
    DateTime,
    Float,
    Integer,
    Interface,
    ListOf,
    MapOf,
    Named,
    Nullable,
    Parameter,
    Record,
    Ref,
    Text,
    Type,
    Union,
)

__all__ = ["sample_input"]

_PLAIN: Final[dict[type, Any]] = {
    Text: "text",
    DateTime: "2026-01-31T12:00:00Z",
    Bytes: "Ynl0ZXM=",
    Boolean: True,
    Integer: 1,
    Float: 0.5,
}
_MOST_STEPS: Final = 500
_MOST_LEVELS: Final = 50


class _TooLargeError(Exception):
    """There are too many values in it, or they are nested too deeply."""


def sample_input(interface: Interface, parameter: Parameter | None) -> str | None:
    """Return an input that the bindings accept, as text; None if every value contains itself, or
    is large: a few types that each require two of the next have values without end.
    """
    if parameter is None:
        return ""
    try:
        value = _sample(interface, parameter.type, (), count())
    except _TooLargeError:
        return None
    if value is None:
        return None
    if parameter.content is Content.JSON:
        return json.dumps(value, ensure_ascii=False)
    return value if isinstance(value, str) else json.dumps(value)


def _sample(interface: Interface, type: Type, within: tuple[str, ...], steps: count[int]) -> Any:
    """Return a value of a type, None if there is none without one of the types around it."""
    if next(steps) >= _MOST_STEPS or len(within) > _MOST_LEVELS:
        raise _TooLargeError
    type = interface.resolve(type)
    if isinstance(type, Nullable):
        return _sample(interface, type.type, within, steps)
    if isinstance(type, ListOf):
        item = _sample(interface, type.item, within, steps)
        return [] if item is None else [item]
    if isinstance(type, (MapOf, AnyObject)):
        return {}
    if not isinstance(type, Ref):
        return _PLAIN[type.__class__]
    if type.name in within:
        return None
    return _named(interface, interface.types[type.name], (*within, type.name), steps)


def _named(interface: Interface, named: Named, within: tuple[str, ...], steps: count[int]) -> Any:
    if isinstance(named, Choice):
        return named.values[0]
    if isinstance(named, Union):
        variants = (_sample(interface, Ref(name), within, steps) for name in named.variants)
        return next((value for value in variants if value is not None), None)
    if not isinstance(named, Record):
        return _sample(interface, named.type, within, steps)
    values = {named.tag.property: named.tag.value} if named.tag else {}
    for field in named.fields:
        if field.required:
            values[field.name] = _sample(interface, field.type, within, steps)
            if values[field.name] is None and not isinstance(field.type, Nullable):
                return None
    return values
