"""What a schema says, checked: functions with their inputs and outputs, and the named types."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

__all__ = [
    "INTEGERS",
    "Alias",
    "AnyObject",
    "Boolean",
    "Bytes",
    "Choice",
    "Content",
    "DateTime",
    "Field",
    "Float",
    "Function",
    "Integer",
    "Interface",
    "ListOf",
    "MapOf",
    "Named",
    "Nullable",
    "Parameter",
    "Record",
    "Ref",
    "Tag",
    "Text",
    "Type",
    "Union",
    "names_in",
]


class Content(Enum):
    """How an input or output travels."""

    JSON = "application/json"
    TEXT = "text/plain; charset=utf-8"
    BYTES = "application/x-binary"


# ---- types ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Text:
    """A string."""


@dataclass(frozen=True, slots=True)
class DateTime:
    """A point in time: in JSON a string in the form of RFC 3339."""


@dataclass(frozen=True, slots=True)
class Bytes:
    """Bytes: in JSON a string in base64."""


@dataclass(frozen=True, slots=True)
class Boolean:
    """true or false."""


@dataclass(frozen=True, slots=True)
class Integer:
    """A whole number.

    Attributes:
        bits: 8, 16, 32 or 64.
        signed: Whether it may be negative.
    """

    bits: int = 64
    signed: bool = True

    @property
    def bounds(self) -> tuple[int, int]:
        return (
            (-(1 << self.bits - 1), (1 << self.bits - 1) - 1)
            if self.signed
            else (
                0,
                (1 << self.bits) - 1,
            )
        )


INTEGERS: Final = {
    f"{'' if signed else 'u'}int{bits}": Integer(bits, signed)
    for bits in (8, 16, 32, 64)
    for signed in (True, False)
}


@dataclass(frozen=True, slots=True)
class Float:
    """A number.

    Attributes:
        bits: 32 or 64.
    """

    bits: int = 64


@dataclass(frozen=True, slots=True)
class AnyObject:
    """A JSON object of which nothing is known."""


@dataclass(frozen=True, slots=True)
class ListOf:
    item: Type


@dataclass(frozen=True, slots=True)
class MapOf:
    """A JSON object whose keys are data."""

    value: Type


@dataclass(frozen=True, slots=True)
class Nullable:
    """A type, or null. `type` is no `Nullable` itself."""

    type: Type


@dataclass(frozen=True, slots=True)
class Ref:
    """A named type."""

    name: str


Type = (
    Text
    | DateTime
    | Bytes
    | Boolean
    | Integer
    | Float
    | AnyObject
    | ListOf
    | MapOf
    | Nullable
    | Ref
)


def names_in(type: Type) -> list[str]:
    """Return the names of the named types in a type, which are one or none."""
    if isinstance(type, Ref):
        return [type.name]
    if isinstance(type, Nullable):
        return names_in(type.type)
    if isinstance(type, ListOf):
        return names_in(type.item)
    return names_in(type.value) if isinstance(type, MapOf) else []


# ---- named types ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tag:
    """The property that says which variant of a union a record is, and its value."""

    property: str
    value: str


@dataclass(frozen=True, slots=True)
class Field:
    """A property of a record.

    Attributes:
        name: Its name in JSON.
        type: Its type. One that is not required is `Nullable`: null stands for absent.
        required: Whether it must be there.
        boxed: Whether the record would be within itself without an indirection here.
    """

    name: str
    type: Type
    required: bool
    description: str = ""
    boxed: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    """An object with properties. The property of `tag` is not among `fields`."""

    name: str
    fields: tuple[Field, ...]
    description: str = ""
    tag: Tag | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """An enum: one of some strings."""

    name: str
    values: tuple[str, ...]
    description: str = ""


@dataclass(frozen=True, slots=True)
class Alias:
    """A name for a type."""

    name: str
    type: Type
    description: str = ""


@dataclass(frozen=True, slots=True)
class Union:
    """One of several records, which a tag tells apart.

    Attributes:
        property: The property that has the tag.
        variants: The names of the records; the tag of each is in the record.
    """

    name: str
    property: str
    variants: tuple[str, ...]
    description: str = ""


Named = Record | Choice | Alias | Union


# ---- functions -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Parameter:
    """An input or an output."""

    type: Type
    content: Content
    description: str = ""


@dataclass(frozen=True, slots=True)
class Function:
    """An export or an import. Without an input or output, none travels."""

    name: str
    input: Parameter | None = None
    output: Parameter | None = None
    description: str = ""


@dataclass(frozen=True, slots=True)
class Interface:
    """A schema.

    Attributes:
        version: "v0" or "v1-draft".
        types: The named types by their names, in the order of the schema.
    """

    version: str
    exports: tuple[Function, ...]
    imports: tuple[Function, ...] = ()
    types: dict[str, Named] = field(default_factory=dict)

    def resolve(self, type: Type) -> Type:
        """Return what stands behind aliases; a `Ref` is then to a record, a choice or a union."""
        while isinstance(type, Ref) and isinstance(named := self.types[type.name], Alias):
            type = named.type
        return type
