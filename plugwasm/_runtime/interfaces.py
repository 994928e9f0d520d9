"""Interfaces: a class with annotated methods stands for a plugin's exports, or for host functions.

    class Search(Protocol):
        def find(self, name: str) -> list[User]: ...

    users = plugin.bind(Search).find("Ada")

A method's annotations say how values are sent. No parameter: an empty input. One: str as text,
bytes as they are, anything else as JSON. Several: one JSON object, by the parameters' names,
defaults included. Results likewise; None stands for an output that is empty or `null`, and
`Measured[…]` adds measurements of the call. `Annotated[…, codec]` is a codec for the one parameter,
or for the result.
"""

from __future__ import annotations

import inspect
from functools import lru_cache, update_wrapper
from types import FunctionType
from typing import Any, get_args, get_origin, get_type_hints

from .._host.codecs import JSON, RAW, make_output_reader
from .._host.conversion import NONE, strip_annotations
from .._host.functions import Function, infer_function
from .._manifest.messages import closest_match
from ..errors import InterfaceError
from .linker import is_callable_export
from .observers import Measured

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import TypeVar

    from .._engine import Item
    from .._host.codecs import TypedCodec

    T = TypeVar("T")
    F = TypeVar("F", bound=Callable[..., Any])

__all__ = ["bind", "export", "host_namespace"]

_OPTIONS = "__plugwasm_export__"
_TARGET = "_plugwasm_target"


def export(name: str | None = None, *, codec: TypedCodec | None = None) -> Callable[[F], F]:
    """Give a method of an interface another name, or a codec.

    Args:
        name: The export's name; the method's own name if not given.
        codec: Encodes the arguments and decodes the result, whatever their types
            (`plugwasm.codecs`). For exports only: parameters of a host function have a codec each,
            in their annotations.
    """

    def mark(method: F) -> F:
        setattr(method, _OPTIONS, (name, codec))
        return method

    return mark


export.__module__ = "plugwasm"


def bind(plugin: Any, interface: Callable[..., T]) -> T:
    """Return an object of the interface whose methods call the plugin's exports.

    Args:
        plugin: A `Plugin`, or any other object with a method `call` like its.
        interface: A class whose public methods are annotated: a `typing.Protocol`, or any other. In
            a class with abstract methods that is no Protocol, only these stand for exports. Methods
            made with `async def` use `call_async`.

    Raises:
        InterfaceError: The plugin lacks some of the exports, or they cannot be called.
        TypeError: The interface is no class, or one of its methods cannot stand for an export.
    """
    if not isinstance(interface, type):
        raise TypeError(f"an interface is a class with annotated methods, not {interface!r}")
    bound = _bound_class(interface)
    _check_exports(plugin, interface.__name__, bound._plugwasm_exports)
    if bound._plugwasm_is_async and not hasattr(plugin, "call_async"):
        raise TypeError(
            f"`{interface.__name__}` has `async def` methods, but {type(plugin).__name__} has "
            "no `call_async`"
        )
    target: T = object.__new__(bound)
    object.__setattr__(target, _TARGET, plugin)
    return target


bind.__module__ = "plugwasm.interfaces"


# ---- exports -------------------------------------------------------------------------------------


@lru_cache(256)
def _bound_class(interface: Any) -> Any:
    """Return the class of bound objects: a subclass of the interface, with methods that call."""
    abstract: frozenset[str] = getattr(interface, "__abstractmethods__", frozenset())
    if getattr(interface, "_is_protocol", False):
        abstract = frozenset()
    members: dict[str, Any] = {}
    exports = []
    is_async = False
    for name, member in _public(interface):
        if abstract and name not in abstract:
            continue
        stands_for = _Export(interface, name, member)
        members[name] = stands_for.method()
        exports.append(stands_for.name)
        is_async |= stands_for.is_async
    if not exports:
        raise TypeError(
            f"`{interface.__name__}` has no public methods, so there is nothing to bind"
        )
    members |= {
        "_plugwasm_exports": tuple(exports),
        "_plugwasm_is_async": is_async,
        "__repr__": _shown,
    }
    made: Any = type(interface)(
        interface.__name__,
        (interface,),
        {**members, "__module__": interface.__module__, "__doc__": interface.__doc__},
    )
    made.__abstractmethods__ = frozenset()
    return made


def _shown(bound: Any) -> str:
    return f"<{type(bound).__name__} of {getattr(bound, _TARGET)!r}>"


def _public(interface: type) -> Iterator[tuple[str, Any]]:
    """Yield the public members of a class and of those that it inherits from, each once."""
    seen: set[str] = set()
    for owner in interface.__mro__:
        if owner is object or owner.__module__ in ("typing", "typing_extensions", "abc"):
            continue
        for name in (*owner.__dict__, *inspect.get_annotations(owner)):
            if not name.startswith("_") and name not in seen:
                seen.add(name)
                yield name, owner.__dict__.get(name)


class _Export:
    """A method of an interface, and how it calls an export."""

    def __init__(self, interface: type, attribute: str, member: Any) -> None:
        where = self.where = f"`{interface.__name__}.{attribute}`"
        if not isinstance(member, FunctionType):
            raise TypeError(
                f"{where} is no method, so it cannot stand for an export; a name that begins "
                "with `_` is left alone"
            )
        options: tuple[str | None, TypedCodec | None] = getattr(member, _OPTIONS, (None, None))
        self.name, self.codec = attribute if options[0] is None else options[0], options[1]
        self.function = member
        self.is_async = inspect.iscoroutinefunction(member)
        self.signature = inspect.signature(member)
        hints = _hints(member, where)
        self.parameters = list(self.signature.parameters)[1:]
        if not self.signature.parameters or next(iter(self.signature.parameters)) in hints:
            raise TypeError(f"{where} has no `self`")
        for parameter in self.parameters:
            kind = self.signature.parameters[parameter].kind
            if kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
                raise TypeError(
                    f"{where}: how many parameters there are must be known, so `{parameter}` "
                    "cannot have stars"
                )
            if parameter not in hints:
                raise TypeError(
                    f"{where}: annotate the parameter `{parameter}`, for its type says how it "
                    "travels"
                )
        if "return" not in hints:
            raise TypeError(f"{where}: annotate the result (`-> None` if there is none)")
        if self.codec is RAW and len(self.parameters) > 1:
            raise TypeError(f"{where}: RAW is for one parameter, not for {len(self.parameters)}")
        if len(self.parameters) > 1:
            for parameter in self.parameters:
                if _codec_in(hints[parameter]) is not None:
                    raise TypeError(
                        f"{where}: several parameters travel as one object, so `{parameter}` "
                        "cannot have a codec of its own; give `export` one"
                    )
        self.encode = self._encoder(hints)
        self.is_measured = get_origin(hints["return"]) is Measured
        returned = get_args(hints["return"])[0] if self.is_measured else hints["return"]
        self.returns = NONE if returned is None else returned
        self.output_codec = self.codec or _codec_in(returned)
        try:
            make_output_reader(self.returns, self.output_codec, None, self.name)
        except TypeError as error:
            raise TypeError(f"{where}: {error}") from error

    def _encoder(self, hints: dict[str, Any]) -> Callable[..., Any]:
        """Return a function that encodes the values of the parameters as an input."""
        names = self.parameters
        codec: Any = self.codec
        if not names:
            return lambda: b""
        if codec is None:
            codec = _codec_in(hints[names[0]])
        if len(names) > 1:
            encode = (codec or JSON).encode
            return lambda *values: encode(dict(zip(names, values, strict=True)))
        encode_one: Callable[..., Any] = (codec or JSON).encode
        if codec is not None:
            return encode_one
        plain = strip_annotations(hints[names[0]])
        if isinstance(plain, type) and issubclass(plain, str):
            return _text
        if isinstance(plain, type) and issubclass(plain, (bytes, bytearray, memoryview)):
            return _octets
        return encode_one

    def method(self) -> Callable[..., Any]:
        name, codec, returns, encode = self.name, self.output_codec, self.returns, self.encode
        options = {"returns": Measured} if self.is_measured else {}
        signature = self.signature
        by_place = sum(p.kind is not p.KEYWORD_ONLY for p in signature.parameters.values()) - 1
        count = by_place if by_place == len(self.parameters) else -1

        where = self.where

        def prepared(
            bound: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[Any, Any, Callable[[bytes], Any]]:
            try:
                if kwargs or len(args) != count:
                    arguments = signature.bind(bound, *args, **kwargs)
                    arguments.apply_defaults()
                    args = tuple(arguments.arguments.values())[1:]
                data = encode(*args)
            except TypeError as error:
                raise TypeError(f"{where}: {error}") from None
            plugin = getattr(bound, _TARGET)
            return (
                plugin,
                data,
                make_output_reader(returns, codec, getattr(plugin, "name", None), name),
            )

        if self.is_async:

            async def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
                plugin, data, parse = prepared(self, args, kwargs)
                return await plugin.call_async(name, data, parse, **options)

        else:

            def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:  # type: ignore[misc]
                plugin, data, parse = prepared(self, args, kwargs)
                return plugin.call(name, data, parse, **options)

        update_wrapper(method, self.function)
        method.__isabstractmethod__ = False  # type: ignore[attr-defined]
        return method


def _hints(function: Any, where: str) -> dict[str, Any]:
    try:
        return get_type_hints(function, include_extras=True)
    except NameError as error:
        raise TypeError(
            f"{where}: an annotation cannot be resolved, for its module has no global of that "
            f"name: {error}"
        ) from error


def _codec_in(annotation: Any) -> TypedCodec | None:
    """Return the codec in an `Annotated`, or None."""
    for item in getattr(annotation, "__metadata__", ()):
        if hasattr(item, "encode") and hasattr(item, "decode") and not isinstance(item, type):
            return item  # type: ignore[no-any-return]
    return None


def _text(value: Any) -> Any:
    if not isinstance(value, str):
        raise TypeError(f"expected str, got {type(value).__name__}")
    return value


def _octets(value: Any) -> Any:
    if isinstance(value, str):
        raise TypeError("expected bytes, got str")
    return value if type(value) is bytes else memoryview(value)


def _check_exports(plugin: Any, interface: str, wanted: Sequence[str]) -> None:
    """Raise one error for all exports that are absent or cannot be called.

    An object that does not list its exports is not checked.
    """
    told = _exports(plugin)
    if told is None:
        return
    items: dict[str, Item] = {item.name: item for item in told}
    complaints = {name: complaint for name in wanted if (complaint := _complaint(name, items))}
    if complaints:
        name = getattr(plugin, "name", None)
        raise InterfaceError(
            f"plugin `{name}` does not have what the interface `{interface}` asks for: "
            f"{'; '.join(complaints.values())}",
            plugin=name,
            missing=tuple(complaints),
        )


def _exports(plugin: Any) -> Sequence[Item] | None:
    if hasattr(plugin, "exports"):
        return plugin.exports  # type: ignore[no-any-return]
    if hasattr(plugin, "plugin"):  # a pool: one of its plugins knows
        with plugin.plugin() as one:
            return one.exports  # type: ignore[no-any-return]
    return None


def _complaint(name: str, items: dict[str, Item]) -> str | None:
    from .._engine import truncate

    item = items.get(name)
    if item is not None and is_callable_export(item):
        return None
    if item is not None and item.type is not None:
        return (
            f"its `{truncate(name)}` is {item.type}, but only () -> () and () -> (i32) can be "
            "called"
        )
    close = closest_match(name, [item.name for item in items.values() if is_callable_export(item)])
    return f"it exports no function `{truncate(name)}`" + (
        f" (did you mean `{truncate(close)}`?)" if close else ""
    )


# ---- host functions ------------------------------------------------------------------------------


def host_namespace(
    implementation: object, namespace: str | None = None, *, interface: type | None = None
) -> list[Function]:
    """Make host functions of an object's methods, for the `functions` of a plugin.

    They are not registered.

    Args:
        implementation: An object whose public methods are annotated as `host_fn` wants them; they
            are called on it. `export` gives a method another name.
        namespace: The module name that plugins import them from, which may be empty; None for
            `extism:host/user`.
        interface: A class, a `typing.Protocol` say, of which only the methods are offered; all
            public methods of the object if not given. Where a method of it is annotated, its
            annotations count, and its name by `export`.

    Raises:
        TypeError: There are no methods, the object lacks one of the interface's, or annotations do
            not give a signature.
    """
    owner = type(implementation)
    own = {
        name: member
        for name, member in _public(owner)
        if isinstance(member, (FunctionType, staticmethod, classmethod))
    }
    members: dict[str, Any] = own
    described: dict[str, Any] = {}
    if interface is not None:
        if not isinstance(interface, type):
            raise TypeError(
                f"host_namespace: an interface is a class with annotated methods, not {interface!r}"
            )
        chosen = dict(_public(interface))
        lacking = [name for name in chosen if not callable(getattr(implementation, name, None))]
        if lacking:
            raise TypeError(
                f"{owner.__name__} lacks {', '.join(f'`{name}`' for name in lacking)} of "
                f"`{interface.__name__}`"
            )
        members = {name: own.get(name) or getattr(implementation, name) for name in chosen}
        described = {name: member for name, member in chosen.items() if _is_annotated(member)}
    functions = []
    for attribute, member in members.items():
        name, codec = getattr(member, _OPTIONS, (None, None))
        if name is None and codec is None:
            name, codec = getattr(described.get(attribute), _OPTIONS, (None, None))
        if codec is not None:
            raise TypeError(
                f"`{owner.__name__}.{attribute}`: give a codec to each parameter, as "
                "Annotated[…, codec]"
            )
        functions.append(
            infer_function(
                namespace,
                attribute if name is None else name,
                getattr(implementation, attribute),
                described_by=described.get(attribute),
            )
        )
    if not functions:
        raise TypeError(f"{owner.__name__} has no public methods, so there is nothing to offer")
    return functions


host_namespace.__module__ = "plugwasm"


def _is_annotated(member: Any) -> bool:
    """Return whether a method says how all of its values travel."""
    if not isinstance(member, FunctionType):
        return False
    told = member.__annotations__
    return "return" in told and all(
        name in told for name in list(inspect.signature(member).parameters)[1:]
    )
