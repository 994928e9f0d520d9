"""Read an XTP schema: from plain data to the model, with all problems of the data at once.

Versions v0 (a list of names of exports) and v1-draft. Beyond XTP: `oneOf` with a `discriminator`,
as in OpenAPI, and types that refer to themselves. `codeSamples` are checked and left out; fields
that begin with `x-` are ignored.
"""

from __future__ import annotations

from typing import Any, Final

from .._manifest.messages import closest_match, json_type, quote
from ..errors import SchemaError, truncate
from . import checks
from .document import Document, read_document
from .fields import NAME, Fields, did_you_mean, has_lone_surrogate, one_of, shown
from .model import (
    INTEGERS,
    Alias,
    AnyObject,
    Boolean,
    Bytes,
    Choice,
    Content,
    DateTime,
    Field,
    Float,
    Function,
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

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .document import Path

__all__ = ["read_interface"]

VERSIONS: Final = ("v0", "v1-draft")
MAX_PROBLEMS: Final = 20
MAX_CHOICE: Final = 200
REFERENCE: Final = "#/components/schemas/"
CONTENTS: Final = {content.value: content for content in Content}
TYPES: Final = ("string", "integer", "number", "boolean", "object", "array", "buffer")
FORMATS: Final = {
    "string": ("date-time", "byte"),
    "integer": tuple(INTEGERS),
    "number": ("float", "double"),
}
TAKEN: Final = ("memory", "_start", "_initialize")
"""Exports that every module has, or that hosts call by themselves."""


def read_interface(content: bytes, name: str) -> Interface:
    """Return what a schema says.

    Args:
        content: The schema's text, YAML or JSON.
        name: How errors name it.

    Raises:
        SchemaError: The text is neither, or not a schema.
    """
    return _Reader(read_document(content, name), name).read()


class _Reader(Fields):
    def __init__(self, document: Document, name: str) -> None:
        super().__init__(document)
        self.name = name
        self.raw_types: dict[str, Any] = {}
        self.tags: dict[str, dict[str, str]] = {}

    def read(self) -> Interface:
        interface = self.document_fields()
        if not self.problems and interface is not None:
            interface = checks.check(interface, self.tags, self.problem)
        if self.problems or interface is None:
            # In the order of the document; problems of one line stay as they were found.
            problems = [said for _, said in sorted(self.problems, key=lambda one: one[0])]
            shown = problems[:MAX_PROBLEMS]
            more = len(problems) - len(shown)
            raise SchemaError(
                f"{truncate(self.name)}: {'; '.join(shown)}{f'; and {more} more' if more else ''}",
                problems=problems,
            )
        return interface

    # ---- the document ----------------------------------------------------------------------------

    def document_fields(self) -> Interface | None:
        data = self.mapping(self.document.data, ())
        if data is None:
            return None
        version = data.get("version")
        if version not in VERSIONS:
            found = "nothing" if version is None else shown(version)
            self.problem(("version",), f'expected "v0" or "v1-draft", got {found}')
            return None
        if version == "v0":
            self.only(data, (), ("version", "exports"))
            return Interface("v0", self.plain_exports(data.get("exports")))
        self.only(data, (), ("version", "exports", "imports", "components"))
        components = self.mapping(data.get("components", {}), ("components",)) or {}
        self.only(components, ("components",), ("schemas",))
        at = ("components", "schemas")
        self.raw_types = self.named(components.get("schemas", {}), at)
        types: dict[str, Named] = {}
        for name, node in self.raw_types.items():
            made = self.named_type(name, node, (*at, name))
            if made is not None:
                types[name] = made
        if "exports" not in data:
            self.problem(("exports",), "missing; a plugin without exports cannot be called")
        exports = self.functions(data.get("exports", {}), "exports")
        for name in TAKEN:
            if name in {function.name for function in exports}:
                self.problem(("exports", name), "the name has a meaning of its own in modules")
        return Interface(
            "v1-draft", exports, self.functions(data.get("imports", {}), "imports"), types
        )

    def plain_exports(self, value: Any) -> tuple[Function, ...]:
        if not isinstance(value, list):
            self.problem(("exports",), f"expected a list of names, got {json_type(value)}")
            return ()
        made: dict[str, Function] = {}
        for index, name in enumerate(value):
            path = ("exports", f"[{index}]")
            if not isinstance(name, str):
                self.problem(path, f"expected a name, got {json_type(name)}")
            elif name in made:
                self.problem(path, f"`{truncate(name)}` is there twice")
            elif name in TAKEN:
                self.problem(path, "the name has a meaning of its own in modules")
            elif self.check_name(name, path):
                made[name] = Function(name)
        return tuple(made.values())

    def functions(self, value: Any, kind: str) -> tuple[Function, ...]:
        made = []
        for name, node in self.named(value, (kind,)).items():
            path = (kind, name)
            allowed: tuple[str, ...] = ("description", "input", "output")
            if kind == "exports":
                allowed += ("codeSamples",)
            function = {} if node is None else self.mapping(node, path)
            if function is None:
                continue
            self.only(function, path, allowed)
            self.code_samples(function.get("codeSamples", []), (*path, "codeSamples"))
            made.append(
                Function(
                    name,
                    self.parameter(function, "input", path),
                    self.parameter(function, "output", path),
                    self.description(function, path),
                )
            )
        return tuple(made)

    def code_samples(self, value: Any, path: Path) -> None:
        """Check them as far as a typing error would show; they are not used."""
        if not isinstance(value, list):
            self.problem(path, f"expected a list, got {json_type(value)}")
            return
        for index, sample in enumerate(value):
            where = (*path, f"[{index}]")
            fields = self.mapping(sample, where)
            if fields is not None:
                self.only(fields, where, ("lang", "source", "label"))

    def parameter(self, function: dict[str, Any], key: str, path: Path) -> Parameter | None:
        if key not in function:
            return None
        path = (*path, key)
        node = self.mapping(function[key], path)
        if node is None:
            return None
        found = node.get("contentType")
        content = CONTENTS.get(found) if isinstance(found, str) else None
        if content is None:
            self.problem(
                (*path, "contentType"),
                "expected " + one_of(CONTENTS) + f", got {shown(found, 'nothing')}",
            )
        made = self.type(node, path, ("contentType",))
        if made is None or content is None:
            return None
        return Parameter(made, content, self.description(node, path))

    # ---- types -----------------------------------------------------------------------------------

    def named_type(self, name: str, node: Any, path: Path) -> Named | None:
        fields = self.mapping(node, path)
        if fields is None:
            return None
        description = self.description(fields, path)
        self.flag(fields, "nullable", path)
        if "oneOf" in fields:
            return self.union(name, fields, path, description)
        if "enum" in fields:
            return self.choice(name, fields, path, description)
        if "properties" in fields:
            return self.record(name, fields, path, description)
        made = self.type(fields, path)
        if isinstance(made, Nullable):
            made = made.type
        return None if made is None else Alias(name, made, description)

    def record(
        self, name: str, fields: dict[str, Any], path: Path, description: str
    ) -> Record | None:
        self.only(fields, path, ("type", "properties", "required", "description", "nullable"))
        if fields.get("type", "object") != "object":
            self.problem((*path, "type"), '`properties` belong to the type "object"')
        properties = self.named(fields["properties"], (*path, "properties"))
        required = fields.get("required", [])
        if not isinstance(required, list):
            self.problem((*path, "required"), f"expected a list, got {json_type(required)}")
            return None
        for index, one in enumerate(required):
            if not isinstance(one, str) or one not in properties:
                hint = closest_match(one, list(properties)) if isinstance(one, str) else None
                self.problem(
                    (*path, "required", f"[{index}]"),
                    f"{shown(one)} is none of the properties" + did_you_mean(hint),
                )
        made = []
        for key, node in properties.items():
            where = (*path, "properties", key)
            property = self.mapping(node, where)
            type = None if property is None else self.type(property, where)
            if type is None or property is None:
                continue
            is_required = key in required
            if not is_required and not isinstance(type, Nullable):
                type = Nullable(type)
            made.append(Field(key, type, is_required, self.description(property, where)))
        return Record(name, tuple(made), description)

    def choice(
        self, name: str, fields: dict[str, Any], path: Path, description: str
    ) -> Choice | None:
        self.only(fields, path, ("type", "enum", "description", "nullable"))
        if fields.get("type", "string") != "string":
            self.problem((*path, "type"), 'the values of an enum are of the type "string"')
        path = (*path, "enum")
        values = fields["enum"]
        if not isinstance(values, list) or not values:
            self.problem(path, f"expected a list of strings, got {shown(values)}")
            return None
        seen: list[str] = []
        for index, value in enumerate(values):
            where = (*path, f"[{index}]")
            if not isinstance(value, str):
                self.problem(where, f"expected a string, got {shown(value)}; put it in quotes")
            elif len(value) > MAX_CHOICE:
                self.problem(where, f"expected at most {MAX_CHOICE} characters, got {len(value)}")
            elif value in seen:
                self.problem(where, f"{quote(value)} is there twice")
            elif has_lone_surrogate(value):
                self.problem(where, "the string has a lone surrogate")
            else:
                seen.append(value)
        return Choice(name, tuple(seen), description)

    def union(
        self, name: str, fields: dict[str, Any], path: Path, description: str
    ) -> Union | None:
        self.only(fields, path, ("oneOf", "discriminator", "description", "nullable", "type"))
        members = fields["oneOf"]
        if not isinstance(members, list) or not members:
            self.problem((*path, "oneOf"), f"expected a list of `$ref`s, got {shown(members)}")
            return None
        names = []
        for index, member in enumerate(members):
            where = (*path, "oneOf", f"[{index}]")
            node = self.mapping(member, where)
            if node is None:
                continue
            self.only(node, where, ("$ref", "description"))
            target = self.reference(node.get("$ref"), (*where, "$ref"))
            if target in names:
                self.problem((*where, "$ref"), f"`{target}` is there twice")
            elif target is not None:
                names.append(target)
        where = (*path, "discriminator")
        if "discriminator" not in fields:
            self.problem(where, "missing; `propertyName` says which property tells variants apart")
            return None
        node = self.mapping(fields["discriminator"], where)
        if node is None:
            return None
        self.only(node, where, ("propertyName", "mapping"))
        property = node.get("propertyName")
        if not isinstance(property, str) or not self.check_name(property, (*where, "propertyName")):
            if not isinstance(property, str):
                self.problem(
                    (*where, "propertyName"), f"expected a name, got {shown(property, 'nothing')}"
                )
            return None
        self.tags[name] = self.mapped_tags(node.get("mapping", {}), names, (*where, "mapping"))
        return Union(name, property, tuple(names), description)

    def mapped_tags(self, value: Any, names: list[str], path: Path) -> dict[str, str]:
        """Return the tag of each variant: of the mapping, or else its name."""
        tags: dict[str, str] = {}
        for tag, reference in (self.mapping(value, path) or {}).items():
            where = (*path, tag)
            if len(tag) > MAX_CHOICE or has_lone_surrogate(tag):
                self.problem(where, f"expected a tag of at most {MAX_CHOICE} characters")
            if isinstance(reference, str) and NAME.fullmatch(reference):
                reference = REFERENCE + reference
            target = self.reference(reference, where)
            if target is None:
                continue
            if target not in names:
                self.problem(where, f"`{target}` is none of the variants")
            elif target in tags:
                self.problem(where, f"`{target}` has another tag already")
            tags[target] = tag
        for name in names:
            tags.setdefault(name, name)
        if len(set(tags.values())) < len(tags):
            self.problem(path, "two variants have the same tag")
        return tags

    def type(self, node: dict[str, Any], path: Path, more: tuple[str, ...] = ()) -> Type | None:
        """Return the type of a property, an item, a value or a parameter."""
        nullable = self.flag(node, "nullable", path)
        self.description(node, path)
        for key, what in (("properties", "object"), ("enum", "enum"), ("oneOf", "union")):
            if key in node:
                article = "a" if what == "union" else "an"
                self.problem(
                    (*path, key),
                    f"{article} {what} needs a name: move it to `components.schemas`, and use "
                    "`$ref`",
                )
                return None
        common = ("description", "nullable", *more)
        made: Type | None
        if "$ref" in node:
            self.only(node, path, ("$ref", *common))
            target = self.reference(node["$ref"], (*path, "$ref"))
            if target is None:
                return None
            raw = self.raw_types[target]
            nullable |= isinstance(raw, dict) and raw.get("nullable") is True
            made = Ref(target)
        else:
            self.only(node, path, ("type", "format", "items", "additionalProperties", *common))
            made = self.own_type(node, path)
        return Nullable(made) if made is not None and nullable else made

    def own_type(self, node: dict[str, Any], path: Path) -> Type | None:
        kind = node.get("type")
        if kind is None:
            kind = (
                "object" if "additionalProperties" in node else "array" if "items" in node else ""
            )
        if kind not in TYPES:
            hint = closest_match(kind, TYPES) if isinstance(kind, str) and kind else None
            found = shown(kind) if kind else "nothing"
            self.problem(
                (*path, "type"), f"expected {one_of(TYPES)}, got {found}" + did_you_mean(hint)
            )
            return None
        for key, owner in (("items", "array"), ("additionalProperties", "object")):
            if key in node and kind != owner:
                self.problem((*path, key), f'belongs to the type "{owner}", not to "{kind}"')
                return None
        format = node.get("format")
        if format is not None and format not in FORMATS.get(kind, ()):
            allowed = FORMATS.get(kind, ())
            expected = f"expected {one_of(allowed)}" if allowed else f'"{kind}" has no formats'
            self.problem((*path, "format"), f"{expected}, got {shown(format)}")
            return None
        if kind in ("array", "object"):
            return self.collection(node, kind, path)
        if kind == "integer":
            return INTEGERS[format or "int64"]
        if kind == "number":
            return Float(32 if format == "float" else 64)
        if kind == "string":
            return DateTime() if format == "date-time" else Bytes() if format else Text()
        return Boolean() if kind == "boolean" else Bytes()

    def collection(self, node: dict[str, Any], kind: str, path: Path) -> Type | None:
        key = "items" if kind == "array" else "additionalProperties"
        if key not in node:
            if kind == "object":
                return AnyObject()
            self.problem((*path, "items"), "missing; it is the type of the items")
            return None
        inner = self.mapping(node[key], (*path, key))
        made = None if inner is None else self.type(inner, (*path, key))
        if made is None:
            return None
        return ListOf(made) if kind == "array" else MapOf(made)

    def reference(self, value: Any, path: Path) -> str | None:
        if not isinstance(value, str) or not value.startswith(REFERENCE):
            self.problem(path, f'expected "{REFERENCE}…", got {shown(value, "nothing")}')
            return None
        name = value.removeprefix(REFERENCE)
        if name not in self.raw_types:
            hint = closest_match(name, list(self.raw_types))
            self.problem(path, f"`components.schemas` has no {quote(name)}" + did_you_mean(hint))
            return None
        return name
