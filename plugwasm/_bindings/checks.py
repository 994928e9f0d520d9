"""What only the whole schema shows: recursion, tags, types that do not fit a content type."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..errors import truncate
from .model import (
    Alias,
    Boolean,
    Bytes,
    Choice,
    Content,
    DateTime,
    Float,
    Integer,
    Interface,
    Named,
    Nullable,
    Record,
    Ref,
    Tag,
    Text,
    Type,
    Union,
    names_in,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Problem = Callable[[tuple[str, ...], str], None]

__all__ = ["check"]

AT = ("components", "schemas")


def check(interface: Interface, tags: dict[str, dict[str, str]], problem: Problem) -> Interface:
    """Return the interface with the tags of variants and with marks where a record would be within
    itself. Report what is wrong.

    Args:
        interface: Every `Ref` in it has its type.
        tags: For each union, the tags of its variants.
        problem: Takes a path and what is wrong there.
    """
    if not _aliases_end(interface, problem):
        return interface
    interface = replace(interface, types=_tagged(interface, tags, problem))
    _check_contents(interface, problem)
    _check_finite(interface, problem)
    return replace(interface, types=_boxed(interface))


def _aliases_end(interface: Interface, problem: Problem) -> bool:
    """Report aliases that lead back to themselves with no object in between."""
    edges = {
        name: names_in(named.type)
        for name, named in interface.types.items()
        if isinstance(named, Alias)
    }
    ends = True
    for cycle in _cycles(edges):
        ends = False
        problem(
            (*AT, cycle[0]),
            f"refers to itself ({' → '.join((*cycle, cycle[0]))}); put an object in between",
        )
    return ends


def _tagged(
    interface: Interface, tags: dict[str, dict[str, str]], problem: Problem
) -> dict[str, Named]:
    """Return the types, with the tags in the records that are variants."""
    types = dict(interface.types)
    for union in interface.types.values():
        if not isinstance(union, Union):
            continue
        for index, name in enumerate(union.variants):
            where = (*AT, union.name, "oneOf", f"[{index}]")
            record = types[name]
            if not isinstance(record, Record):
                problem(where, f"`{name}` is no object with `properties`")
                continue
            tag = Tag(union.property, tags[union.name][name])
            if record.tag is not None:
                if record.tag != tag:
                    problem(
                        where,
                        f"`{name}` has the tag `{record.tag.property}: {truncate(record.tag.value)}"
                        "` in another union; an object has one tag",
                    )
                continue
            declared = [field for field in record.fields if field.name == tag.property]
            for field in declared:
                if not _can_be(interface, field.type, tag.value):
                    problem(
                        (*AT, name, "properties", tag.property),
                        f'the discriminator of `{union.name}` is a string that can be "'
                        f'{truncate(tag.value)}"',
                    )
            types[name] = replace(
                record,
                fields=tuple(field for field in record.fields if field not in declared),
                tag=tag,
            )
    return types


def _can_be(interface: Interface, type: Type, tag: str) -> bool:
    plain = interface.resolve(type.type if isinstance(type, Nullable) else type)
    if isinstance(plain, Ref):
        choice = interface.types[plain.name]
        return isinstance(choice, Choice) and tag in choice.values
    return isinstance(plain, Text)


def _check_contents(interface: Interface, problem: Problem) -> None:
    """Report inputs and outputs that cannot travel as their content type."""
    for kind, functions in (("exports", interface.exports), ("imports", interface.imports)):
        for function in functions:
            for key, parameter in (("input", function.input), ("output", function.output)):
                if parameter is None or parameter.content is Content.JSON:
                    continue
                where = (kind, function.name, key)
                type = interface.resolve(parameter.type)
                if isinstance(type, Nullable):
                    problem((*where, "nullable"), "null can only travel as application/json")
                elif parameter.content is Content.BYTES:
                    if not isinstance(type, (Bytes, Text)):
                        problem(
                            (*where, "contentType"),
                            'application/x-binary carries the type "buffer" or "string"',
                        )
                elif not (
                    isinstance(type, (Text, DateTime, Boolean, Integer, Float))
                    or (isinstance(type, Ref) and isinstance(interface.types[type.name], Choice))
                ):
                    problem(
                        (*where, "contentType"),
                        "text/plain carries strings, enums, numbers and booleans; for this type "
                        "use application/json",
                    )


# ---- recursion -----------------------------------------------------------------------------------


def _contained(interface: Interface, type: Type) -> tuple[str | None, bool]:
    """Return the name of the record or union that a value of this type has within itself, and
    whether it may be missing.
    """
    optional = isinstance(type, Nullable)
    plain = interface.resolve(type.type if isinstance(type, Nullable) else type)
    if isinstance(plain, Ref) and not isinstance(interface.types[plain.name], Choice):
        return plain.name, optional
    return None, optional


def _check_finite(interface: Interface, problem: Problem) -> None:
    """Report objects that need another one of themselves, for ever."""
    finite: set[str] = set()
    left = [name for name, one in interface.types.items() if isinstance(one, (Record, Union))]
    while True:
        found = [name for name in left if _is_finite(interface, name, finite)]
        if not found:
            break
        finite.update(found)
        left = [name for name in left if name not in finite]
    for name in left:
        problem(
            (*AT, name),
            "no value of this type ends, because it requires another one of it; make a property "
            "optional or nullable",
        )


def _is_finite(interface: Interface, name: str, finite: set[str]) -> bool:
    named = interface.types[name]
    if isinstance(named, Union):
        return any(variant in finite for variant in named.variants)
    assert isinstance(named, Record)
    for field in named.fields:
        inner, optional = _contained(interface, field.type)
        if inner is not None and not optional and inner not in finite:
            return False
    return True


def _boxed(interface: Interface) -> dict[str, Named]:
    edges: dict[str, list[str]] = {}
    for name, named in interface.types.items():
        if isinstance(named, Union):
            edges[name] = list(named.variants)
        elif isinstance(named, Record):
            inner = (_contained(interface, field.type)[0] for field in named.fields)
            edges[name] = [one for one in inner if one is not None]
    together: dict[str, set[str]] = {}
    for group in _cycles(edges):
        for name in group:
            together[name] = set(group)
    types = dict(interface.types)
    for name, named in interface.types.items():
        if isinstance(named, Record) and name in together:
            types[name] = replace(
                named,
                fields=tuple(
                    replace(field, boxed=_contained(interface, field.type)[0] in together[name])
                    for field in named.fields
                ),
            )
    return types


def _cycles(edges: dict[str, list[str]]) -> list[list[str]]:
    """Return the groups of names that can all be reached from each other (Tarjan's algorithm,
    without recursion), each in the order of `edges`.
    """
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    on_path: dict[str, None] = {}
    found: list[list[str]] = []
    for root in edges:
        if root in index:
            continue
        work: list[tuple[str, Any]] = [(root, iter(edges[root]))]
        index[root] = low[root] = len(index)
        on_path[root] = None
        while work:
            name, others = work[-1]
            for other in others:
                if other not in edges:
                    continue
                if other not in index:
                    index[other] = low[other] = len(index)
                    on_path[other] = None
                    work.append((other, iter(edges[other])))
                    break
                if other in on_path:
                    low[name] = min(low[name], index[other])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[name])
                if low[name] == index[name]:
                    group = []
                    while True:
                        last, _ = on_path.popitem()
                        group.append(last)
                        if last == name:
                            break
                    if len(group) > 1 or name in edges[name]:
                        found.append([one for one in edges if one in group])
    return found
