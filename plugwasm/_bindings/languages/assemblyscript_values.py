"""Values in AssemblyScript: their types, and expressions that read and write them."""

from __future__ import annotations

from ..model import (
    AnyObject,
    Boolean,
    Bytes,
    Choice,
    DateTime,
    Float,
    Integer,
    Interface,
    ListOf,
    MapOf,
    Nullable,
    Ref,
    Text,
    Type,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..names import Names

__all__ = ["Values"]


class Values:
    """Expressions for the types of an interface."""

    def __init__(self, interface: Interface, names: Names) -> None:
        self.interface = interface
        self.names = names
        self.space = ""
        """The prefix of names from `bindings.ts`."""

    def is_plain(self, type: Type) -> bool:
        """Return whether the type has no null in AssemblyScript: numbers, booleans, enums."""
        plain = self.interface.resolve(type)
        if isinstance(plain, Ref):
            return isinstance(self.interface.types[plain.name], Choice)
        return isinstance(plain, (Integer, Float, Boolean))

    def type(self, type: Type) -> str:
        if isinstance(type, Nullable):
            inner = self.type(type.type)
            return (
                f"{self.space}Box<{inner}> | null"
                if self.is_plain(type.type)
                else f"{inner} | null"
            )
        if isinstance(type, ListOf):
            return f"Array<{self.type(type.item)}>"
        if isinstance(type, MapOf):
            return f"Map<string, {self.type(type.value)}>"
        if isinstance(type, Ref):
            return self.space + self.names.types[type.name]
        if isinstance(type, Integer):
            return f"{'i' if type.signed else 'u'}{type.bits}"
        if isinstance(type, Float):
            return f"f{type.bits}"
        plain = {
            Text: "string",
            DateTime: "string",
            Boolean: "bool",
            Bytes: "Uint8Array",
            AnyObject: "Json",
        }
        return plain[type.__class__]

    def read(self, type: Type, json: str) -> str:
        """Return an expression that reads a value of an expression of type `Json`."""
        if isinstance(type, Nullable):
            inner = self.read(type.type, json)
            if self.is_plain(type.type):
                inner = f"new {self.space}Box<{self.type(type.type)}>({inner})"
            return f"{json}.isSet ? {inner} : null"
        plain = self.interface.resolve(type)
        if isinstance(plain, (ListOf, MapOf)):
            item = plain.item if isinstance(plain, ListOf) else plain.value
            function = "readArray" if isinstance(plain, ListOf) else "readMap"
            kind = self.type(item)
            convert = f"(json: Json): {kind} => {self.read(item, 'json')}"
            return f"kit.{function}<{kind}>({json}, {convert})"
        if isinstance(plain, Ref):
            name = self.names.types[plain.name]
            if isinstance(self.interface.types[plain.name], Choice):
                return f"{self.functions(name)[1]}(kit.readText({json}))"
            return f"{self.space}{name}.fromJson({json})"
        if isinstance(plain, Integer):
            return f"kit.readInteger<{self.type(plain)}>({json})"
        functions = {
            Text: "readText",
            DateTime: "readText",
            Boolean: "readBool",
            Bytes: "readBytes",
            AnyObject: "readObject",
        }
        if isinstance(plain, Float):
            return f"kit.readF{plain.bits}({json})"
        return f"kit.{functions[plain.__class__]}({json})"

    def write(self, type: Type, value: str) -> str:
        """Return an expression of the JSON of an expression."""
        if isinstance(type, Nullable):
            inner = f"{value}!" if "." in value else value  # only locals are narrowed
            inner += ".value" * self.is_plain(type.type)
            return f'({value} === null ? "null" : {self.write(type.type, inner)})'
        plain = self.interface.resolve(type)
        if isinstance(plain, (ListOf, MapOf)):
            item = plain.item if isinstance(plain, ListOf) else plain.value
            function = "kit.writeArray" if isinstance(plain, ListOf) else "kit.writeMap"
            kind = self.type(item)
            convert = f"(value: {kind}): string => {self.write(item, 'value')}"
            return f"{function}<{kind}>({value}, {convert})"
        if isinstance(plain, Ref):
            if isinstance(self.interface.types[plain.name], Choice):
                return f"kit.quote({self.functions(self.names.types[plain.name])[0]}({value}))"
            return f"{value}.toJson()"
        if isinstance(plain, Float):
            return f"kit.writeFloat({value})"
        if isinstance(plain, (Text, DateTime)):
            return f"kit.quote({value})"
        return f"kit.writeBytes({value})" if isinstance(plain, Bytes) else f"{value}.toString()"

    def functions(self, name: str) -> tuple[str, str]:
        """Return the names of the functions that give an enum's text, and read it."""
        first = f"{self.space}{name[:1].lower()}{name[1:]}"
        return f"{first}ToText", f"{first}FromText"
