"""Signatures of `PluginPool.call`, `call_async`, `map` and `map_async` for type checkers.

As in `_runtime.signatures`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Generator, Iterable
    from typing import Any, Literal, Protocol, TypeVar, overload

    from typing_extensions import TypeForm

    from .._host.codecs import TypedCodec
    from .map import AsyncOutputs

    T = TypeVar("T")

    class PoolCall(Protocol):
        """The signature of `PluginPool.call`."""

        @overload
        def __call__(
            self,
            function_name: str,
            data: object = ...,
            parse: type[bytes] = ...,
            host_context: Any = ...,
            *,
            codec: TypedCodec | None = ...,
            wait: float | None = ...,
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
            wait: float | None = ...,
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
            wait: float | None = ...,
        ) -> T: ...
        @overload
        def __call__(
            self,
            function_name: str,
            data: object = ...,
            parse: Callable[[bytes], T] = ...,
            host_context: Any = ...,
            *,
            codec: TypedCodec | None = ...,
            wait: float | None = ...,
        ) -> T: ...

    class PoolCallAsync(Protocol):
        """The signature of `PluginPool.call_async`."""

        @overload
        async def __call__(
            self,
            function_name: str,
            data: object = ...,
            parse: type[bytes] = ...,
            host_context: Any = ...,
            *,
            codec: TypedCodec | None = ...,
            wait: float | None = ...,
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
            wait: float | None = ...,
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
            wait: float | None = ...,
        ) -> T: ...
        @overload
        async def __call__(
            self,
            function_name: str,
            data: object = ...,
            parse: Callable[[bytes], T] = ...,
            host_context: Any = ...,
            *,
            codec: TypedCodec | None = ...,
            wait: float | None = ...,
        ) -> T: ...

    class PoolMap(Protocol):
        """The signature of `PluginPool.map`."""

        @overload
        def __call__(
            self,
            function_name: str,
            inputs: Iterable[object],
            *,
            workers: int | None = ...,
            ahead: int | None = ...,
            return_exceptions: Literal[False] = ...,
            on_progress: Callable[[int, int | None], object] | None = ...,
            wait: float | None = ...,
            host_context: Any = ...,
            codec: TypedCodec | None = ...,
            parse: type[bytes] = ...,
        ) -> Generator[bytes, None, None]: ...
        @overload
        def __call__(
            self,
            function_name: str,
            inputs: Iterable[object],
            *,
            workers: int | None = ...,
            ahead: int | None = ...,
            return_exceptions: Literal[False] = ...,
            on_progress: Callable[[int, int | None], object] | None = ...,
            wait: float | None = ...,
            host_context: Any = ...,
            codec: TypedCodec | None = ...,
            returns: type[T],
        ) -> Generator[T, None, None]: ...
        @overload
        def __call__(
            self,
            function_name: str,
            inputs: Iterable[object],
            *,
            workers: int | None = ...,
            ahead: int | None = ...,
            return_exceptions: Literal[False] = ...,
            on_progress: Callable[[int, int | None], object] | None = ...,
            wait: float | None = ...,
            host_context: Any = ...,
            codec: TypedCodec | None = ...,
            returns: TypeForm[T],
        ) -> Generator[T, None, None]: ...
        @overload
        def __call__(
            self,
            function_name: str,
            inputs: Iterable[object],
            *,
            workers: int | None = ...,
            ahead: int | None = ...,
            return_exceptions: Literal[False] = ...,
            on_progress: Callable[[int, int | None], object] | None = ...,
            wait: float | None = ...,
            host_context: Any = ...,
            codec: TypedCodec | None = ...,
            parse: Callable[[bytes], T],
        ) -> Generator[T, None, None]: ...
        @overload
        def __call__(
            self,
            function_name: str,
            inputs: Iterable[object],
            *,
            workers: int | None = ...,
            ahead: int | None = ...,
            return_exceptions: bool,
            on_progress: Callable[[int, int | None], object] | None = ...,
            wait: float | None = ...,
            host_context: Any = ...,
            codec: TypedCodec | None = ...,
            returns: Any = ...,
            parse: Callable[[bytes], Any] = ...,
        ) -> Generator[Any, None, None]: ...

    class PoolMapAsync(Protocol):
        """The signature of `PluginPool.map_async`."""

        @overload
        def __call__(
            self,
            function_name: str,
            inputs: Iterable[object] | AsyncIterable[object],
            *,
            workers: int | None = ...,
            ahead: int | None = ...,
            return_exceptions: Literal[False] = ...,
            on_progress: Callable[[int, int | None], object] | None = ...,
            wait: float | None = ...,
            host_context: Any = ...,
            codec: TypedCodec | None = ...,
            parse: type[bytes] = ...,
        ) -> AsyncOutputs[bytes]: ...
        @overload
        def __call__(
            self,
            function_name: str,
            inputs: Iterable[object] | AsyncIterable[object],
            *,
            workers: int | None = ...,
            ahead: int | None = ...,
            return_exceptions: Literal[False] = ...,
            on_progress: Callable[[int, int | None], object] | None = ...,
            wait: float | None = ...,
            host_context: Any = ...,
            codec: TypedCodec | None = ...,
            returns: type[T],
        ) -> AsyncOutputs[T]: ...
        @overload
        def __call__(
            self,
            function_name: str,
            inputs: Iterable[object] | AsyncIterable[object],
            *,
            workers: int | None = ...,
            ahead: int | None = ...,
            return_exceptions: Literal[False] = ...,
            on_progress: Callable[[int, int | None], object] | None = ...,
            wait: float | None = ...,
            host_context: Any = ...,
            codec: TypedCodec | None = ...,
            returns: TypeForm[T],
        ) -> AsyncOutputs[T]: ...
        @overload
        def __call__(
            self,
            function_name: str,
            inputs: Iterable[object] | AsyncIterable[object],
            *,
            workers: int | None = ...,
            ahead: int | None = ...,
            return_exceptions: Literal[False] = ...,
            on_progress: Callable[[int, int | None], object] | None = ...,
            wait: float | None = ...,
            host_context: Any = ...,
            codec: TypedCodec | None = ...,
            parse: Callable[[bytes], T],
        ) -> AsyncOutputs[T]: ...
        @overload
        def __call__(
            self,
            function_name: str,
            inputs: Iterable[object] | AsyncIterable[object],
            *,
            workers: int | None = ...,
            ahead: int | None = ...,
            return_exceptions: bool,
            on_progress: Callable[[int, int | None], object] | None = ...,
            wait: float | None = ...,
            host_context: Any = ...,
            codec: TypedCodec | None = ...,
            returns: Any = ...,
            parse: Callable[[bytes], Any] = ...,
        ) -> AsyncOutputs[Any]: ...

    def signature_of_pool_call(method: object) -> PoolCall: ...
    def signature_of_pool_call_async(method: object) -> PoolCallAsync: ...
    def signature_of_pool_map(method: object) -> PoolMap: ...
    def signature_of_pool_map_async(method: object) -> PoolMapAsync: ...

else:

    def signature_of_pool_call(method):
        return method

    signature_of_pool_call_async = signature_of_pool_map = signature_of_pool_map_async = (
        signature_of_pool_call
    )
