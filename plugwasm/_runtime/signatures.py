"""Signatures of `call` and `call_async` for type checkers: results depend on `returns` or `parse`.

A method that is decorated with one of these is, for them, an object with its overloads; nothing
happens at run time.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol, TypeVar, overload

    from typing_extensions import TypeForm

    from .._host.codecs import TypedCodec

    T = TypeVar("T")

    class CallSignature(Protocol):
        """The overloads of `Plugin.call`."""

        @overload
        def __call__(
            self,
            function_name: str,
            data: object = ...,
            parse: type[bytes] = ...,
            host_context: Any = ...,
            *,
            codec: TypedCodec | None = ...,
        ) -> bytes: ...
        @overload
        def __call__(
            self,
            function_name: str,
            data: object = ...,
            *,
            host_context: Any = ...,
            returns: type[T],
            codec: TypedCodec | None = ...,
        ) -> T: ...
        @overload
        def __call__(
            self,
            function_name: str,
            data: object = ...,
            *,
            host_context: Any = ...,
            returns: TypeForm[T],
            codec: TypedCodec | None = ...,
        ) -> T: ...
        @overload
        def __call__(
            self,
            function_name: str,
            data: object = ...,
            parse: None = ...,
            host_context: Any = ...,
            *,
            codec: TypedCodec | None = ...,
        ) -> memoryview: ...
        @overload
        def __call__(
            self,
            function_name: str,
            data: object = ...,
            parse: Callable[[bytes], T] = ...,
            host_context: Any = ...,
            *,
            codec: TypedCodec | None = ...,
        ) -> T: ...

    class CallAsyncSignature(Protocol):
        """The overloads of `Plugin.call_async`."""

        @overload
        async def __call__(
            self,
            function_name: str,
            data: object = ...,
            parse: type[bytes] = ...,
            host_context: Any = ...,
            *,
            codec: TypedCodec | None = ...,
            limiter: Any = ...,
        ) -> bytes: ...
        @overload
        async def __call__(
            self,
            function_name: str,
            data: object = ...,
            *,
            host_context: Any = ...,
            returns: type[T],
            codec: TypedCodec | None = ...,
            limiter: Any = ...,
        ) -> T: ...
        @overload
        async def __call__(
            self,
            function_name: str,
            data: object = ...,
            *,
            host_context: Any = ...,
            returns: TypeForm[T],
            codec: TypedCodec | None = ...,
            limiter: Any = ...,
        ) -> T: ...
        @overload
        async def __call__(
            self,
            function_name: str,
            data: object = ...,
            parse: None = ...,
            host_context: Any = ...,
            *,
            codec: TypedCodec | None = ...,
            limiter: Any = ...,
        ) -> memoryview: ...
        @overload
        async def __call__(
            self,
            function_name: str,
            data: object = ...,
            parse: Callable[[bytes], T] = ...,
            host_context: Any = ...,
            *,
            codec: TypedCodec | None = ...,
            limiter: Any = ...,
        ) -> T: ...

    def signature_of_call(method: object) -> CallSignature: ...
    def signature_of_call_async(method: object) -> CallAsyncSignature: ...

else:

    def signature_of_call(method):
        return method

    signature_of_call_async = signature_of_call
