"""Host functions of a plugin under test: fakes, and a record of every call.

Calls of the application's own functions are recorded too. A function that the plugin imports and
that nothing provides is linked all the same. When the plugin calls it, the test must have said what
it returns.
"""

from __future__ import annotations

import struct
import typing

import msgspec

from .._engine import HostFunction
from .._host.current_plugin import CurrentPlugin
from .._host.functions import Function
from .._host.observed_values import observe_value, observe_values, shorten
from .._runtime.import_stubs import make_stub
from ..errors import Error, HostFunctionError
from ._records import HostCall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from .._engine import FunctionType
    from .._host.guest import Guest


class UnexpectedHostCallError(HostFunctionError, AssertionError):
    """The plugin called a host function, and the test has not said what it returns."""

    __module__ = "plugwasm.testing"

    _has_lines = True


class FakeHostFunction:
    """A fake of a host function.

    Attributes:
        namespace, name: The namespace and the name of the function.
        params: The types of the arguments, as they were given; None if they were not.
        returns: The result, or a callable that gets the arguments and returns it.
        raises: An exception to raise instead; None for none.
        calls: The calls of the function.
    """

    __module__ = "plugwasm.testing"

    def __init__(
        self,
        namespace: str,
        name: str,
        params: Sequence[type] | None,
        returns: Any = None,
        raises: BaseException | None = None,
    ) -> None:
        self.namespace = namespace
        self.name = name
        self.params = params
        self.returns = returns
        self.raises = raises
        self.calls: list[HostCall] = []

    @property
    def called(self) -> bool:
        """Whether the plugin called it."""
        return bool(self.calls)

    def answer(self, args: tuple[Any, ...]) -> Any:
        """Return the result, or raise the exception."""
        if self.raises is not None:
            raise self.raises
        return self.returns(*args) if callable(self.returns) else self.returns

    def __repr__(self) -> str:
        return f"<FakeHostFunction {self.namespace}.{self.name}, called {len(self.calls)} times>"


class HostCallRouter:
    """Routes calls of host functions to fakes, or to the functions of the application.

    Args:
        record: Called with each call, before it is made.
        fake_missing: Whether functions that nothing provides return zeros, which are empty texts
            too.
    """

    def __init__(self, record: Callable[[HostCall], None], fake_missing: bool) -> None:
        self.fakes: dict[tuple[str, str], FakeHostFunction] = {}
        self.calls: list[HostCall] = []
        self._record = record
        self._fake_missing = fake_missing

    def make_function(
        self, namespace: str, name: str, signature: FunctionType, real: Function | None
    ) -> Function:
        """Return the host function to link for one that the plugin imports."""
        host = HostFunction(signature, self._body(namespace, name, signature, real))  # type: ignore[arg-type]
        return make_stub(namespace, name, host, real)

    def _body(
        self, namespace: str, name: str, signature: FunctionType, real: Function | None
    ) -> Callable[[Guest, int, Any], None]:
        params, returned = _annotated_types(real)

        def body(guest: Guest, caller: int, values: Any) -> None:
            fake = self.fakes.get((namespace, name))
            kinds = params if fake is None else fake.params
            call = HostCall(
                namespace, name, observe_values(guest, signature.params, values, kinds or ())
            )
            self.calls.append(call)
            self._record(call)
            try:
                if fake is not None:
                    fake.calls.append(call)
                    self._answer(guest, fake, call, signature, values)
                elif real is not None:
                    real._host.body(guest, caller, values)
                    if signature.results:
                        call.result = observe_value(
                            guest, signature.results[0], values[0], returned
                        )
                elif self._fake_missing:
                    for i in range(len(signature.results)):
                        values[2 * i] = 0
                else:
                    raise UnexpectedHostCallError(
                        f"the test does not expect the host function `{name}` to be called, "
                        f"but it was, with "
                        f"({', '.join(map(shorten, call.args))})\nto answer it: "
                        f"harness.host({name!r}, returns=…)"
                    )
            except BaseException as error:
                call.error = (type(error) is HostFunctionError and error.__cause__) or error
                raise
            guest.remaining()

        return body

    def _answer(
        self,
        guest: Guest,
        fake: FakeHostFunction,
        call: HostCall,
        signature: FunctionType,
        values: Any,
    ) -> None:
        try:
            result = call.result = fake.answer(call.args)
            several = len(signature.results) > 1
            for i, (kind, value) in enumerate(
                zip(signature.results, result if several else (result,), strict=bool(several))
            ):
                values[2 * i] = _encode_result(guest, kind, value)
        except (KeyboardInterrupt, Error):
            raise
        except BaseException as error:
            raise HostFunctionError(
                f"the host function `{fake.name}` raised {_type_name(error)}: {error}"
            ) from error


def _annotated_types(real: Function | None) -> tuple[list[Any] | None, Any]:
    """Return the annotations of an application's function: of its parameters, and of its result."""
    if real is None or type(real) is Function:
        return None, None
    try:
        hints = typing.get_type_hints(real.f)
    except Exception:
        return None, None
    returned = hints.pop("return", None)
    return [hint for hint in hints.values() if hint is not CurrentPlugin], returned


def _encode_result(guest: Guest, type: str, value: Any) -> int:
    """Return a value for the plugin: text, bytes and JSON become the handle of a new block."""
    if type in ("f32", "f64"):
        size = "fI" if type == "f32" else "dq"
        raw: int = struct.unpack(f"<{size[1]}", struct.pack(f"<{size[0]}", value))[0]
        return raw
    if value is None:
        return 0
    if isinstance(value, int):
        bits = 32 if type == "i32" else 64
        if not -(1 << bits - 1) <= value < 1 << bits:
            raise OverflowError(f"{value} does not fit into {bits} bits")
        return value & (1 << bits) - 1
    if type == "i32":
        raise TypeError(f"it returns an i32 to the plugin, which {_type_name(value)} is not")
    if isinstance(value, str):
        return guest.new_block(value.encode())
    if isinstance(value, (bytes, bytearray, memoryview)):
        return guest.new_block(bytes(value))
    return guest.new_block(msgspec.json.encode(value))


def _type_name(value: object) -> str:
    return type(value).__name__
