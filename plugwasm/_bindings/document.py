"""The text of a schema as plain data.

YAML is read from the events of PyYAML's parser, so that nothing is built before it was checked: no
aliases (with which a small text describes a huge value), no tags, no duplicate keys, bounded depth
and number of values. Plain scalars are those of YAML 1.2's core schema: `no`, `on` and dates are
text.
"""

from __future__ import annotations

import re
from typing import Any, Final

from ..errors import SchemaError, truncate

__all__ = ["Document", "read_document"]

MAX_BYTES: Final = 2**19
MAX_LEVELS: Final = 64
MAX_VALUES: Final = 50_000

Path = tuple[str, ...]


class Document:
    """Plain data, and the lines of its values where they are known."""

    def __init__(self, data: Any, lines: dict[Path, int]) -> None:
        self.data = data
        self.lines = lines

    def line(self, path: Path) -> int | None:
        """Return the line of a value, or of the closest one around it."""
        while path:
            if path in self.lines:
                return self.lines[path]
            path = path[:-1]
        return self.lines.get(path)


def read_document(content: bytes, name: str) -> Document:
    """Return the data of a schema's text; JSON if it begins with `{`, otherwise YAML.

    Raises:
        SchemaError: It is neither, or exceeds a bound.
    """
    if len(content) > MAX_BYTES:
        raise SchemaError(f"{truncate(name)}: a schema has at most {MAX_BYTES} bytes")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SchemaError(
            f"{truncate(name)}: expected YAML or JSON, got bytes that are not UTF-8 (at byte "
            f"{error.start})"
        ) from None
    if text.lstrip().startswith("{"):
        return _read_json(text, name)
    return _read_yaml(text, name)


def _read_json(text: str, name: str) -> Document:
    import json

    levels = 0
    parts = re.finditer(r'"(?:[^"\\]++|\\.)*+"?|[][{},]', text, re.DOTALL)
    for values, part in enumerate(parts):
        if part[0] in "[{":
            levels += 1
        elif part[0] in "]}":
            levels -= 1
        _check_bounds(levels, values, name, "")
    try:
        return Document(json.loads(text, object_pairs_hook=_object), {})
    except json.JSONDecodeError as error:
        raise SchemaError(
            f"{truncate(name)}: line {error.lineno}: the text is not JSON: {error.msg}"
        ) from None
    except ValueError as error:
        raise SchemaError(f"{truncate(name)}: {error}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in pairs:
        if key in made:
            raise ValueError(f"the key `{truncate(key, 60)}` is there twice in one object")
        made[key] = value
    return made


def _check_bounds(levels: int, values: int, name: str, where: str) -> None:
    if levels > MAX_LEVELS:
        raise SchemaError(f"{truncate(name)}: {where}nested more than {MAX_LEVELS} levels deep")
    if values > MAX_VALUES:
        raise SchemaError(f"{truncate(name)}: {where}more than {MAX_VALUES} values")


# ---- YAML ----------------------------------------------------------------------------------------

_CORE: Final = (
    (re.compile(r"~|null|Null|NULL|"), lambda text: None),
    (re.compile(r"true|True|TRUE|false|False|FALSE"), lambda text: text[0] in "tT"),
    (re.compile(r"[-+]?[0-9]{1,40}"), int),
    (re.compile(r"[-+]?(\.[0-9]{1,40}|[0-9]{1,40}(\.[0-9]{0,40})?)([eE][-+]?[0-9]{1,4})?"), float),
)


class _Open:
    """A collection that is being read."""

    def __init__(self, into: Any, path: Path) -> None:
        self.into = into
        self.path = path
        self.key: str | None = None


def _read_yaml(text: str, name: str) -> Document:
    try:
        import yaml
    except ModuleNotFoundError:
        raise SchemaError(
            f"{truncate(name)}: reading YAML needs PyYAML: pip install 'plugwasm[generate]'; or "
            "write the schema as JSON"
        ) from None
    try:
        return _Reader(name, yaml).read(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark is not None else ""
        raise SchemaError(
            f"{truncate(name)}: {line}the text is not YAML: {truncate(str(error.problem))}"
        ) from None
    except yaml.YAMLError as error:
        raise SchemaError(f"{truncate(name)}: the text is not YAML: {error}") from None


class _Reader:
    def __init__(self, name: str, yaml: Any) -> None:
        self.name = name
        self.yaml = yaml
        self.lines: dict[Path, int] = {}
        self.stack: list[_Open] = []
        self.root: Any = None
        self.documents = self.values = 0

    def read(self, text: str) -> Document:
        yaml = self.yaml
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            where = f"line {event.start_mark.line + 1}: "
            if isinstance(event, yaml.AliasEvent):
                raise self.error(where, "an alias (`*name`) is not allowed here; use `$ref`")
            if isinstance(event, yaml.DocumentStartEvent):
                self.documents += 1
                if self.documents > 1:
                    raise self.error(where, "expected one document, got a second one (`---`)")
            if isinstance(event, yaml.CollectionEndEvent):
                self.stack.pop()
            elif isinstance(event, yaml.NodeEvent):
                self.take(event, where)
        return Document(self.root, self.lines)

    def take(self, event: Any, where: str) -> None:
        """Take a scalar, or the start of a collection."""
        yaml = self.yaml
        self.values += 1
        _check_bounds(len(self.stack), self.values, self.name, where)
        if event.tag is not None:
            raise self.error(where, f"a tag (`{truncate(event.tag, 40)}`) is not allowed here")
        top = self.stack[-1] if self.stack else None
        if top is not None and isinstance(top.into, dict) and top.key is None:
            if not isinstance(event, yaml.ScalarEvent):
                raise self.error(where, "a key is text, not a list or a mapping")
            if event.value in top.into:
                raise self.error(
                    where, f"the key `{truncate(event.value, 60)}` is there twice in one mapping"
                )
            if event.value == "<<" and event.style is None:
                raise self.error(where, "merging (`<<`) is not allowed here")
            top.key = event.value
            return
        path = () if top is None else (*top.path, top.key or f"[{len(top.into)}]")
        self.lines[path] = event.start_mark.line + 1
        value: Any
        if isinstance(event, yaml.ScalarEvent):
            value = event.value if event.style is not None else _plain(event.value)
        else:
            value = {} if isinstance(event, yaml.MappingStartEvent) else []
            self.stack.append(_Open(value, path))
        if top is None:
            self.root = value
        elif top.key is None:
            top.into.append(value)
        else:
            top.into[top.key] = value
            top.key = None

    def error(self, where: str, problem: str) -> SchemaError:
        return SchemaError(f"{truncate(self.name)}: {where}{problem}")


def _plain(text: str) -> Any:
    for pattern, convert in _CORE:
        if pattern.fullmatch(text):
            return convert(text)
    return text
