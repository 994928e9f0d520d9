"""Signatures of the methods of `PluginSet` that call hooks, for type checkers.

As in `_runtime.signatures`. Other options are not checked.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol, TypeVar, overload

    from typing_extensions import TypeForm

    from .dispatch import Result

    D = TypeVar("D")
    T = TypeVar("T")

    class SetFirst(Protocol):
        """The signature of `PluginSet.first`."""

        @overload
        def __call__(
            self,
            hook: str,
            data: object = ...,
            *,
            returns: type[T],
            stop_on_error: bool = ...,
            **options: Any,
        ) -> T | None: ...
        @overload
        def __call__(
            self,
            hook: str,
            data: object = ...,
            *,
            returns: TypeForm[T],
            stop_on_error: bool = ...,
            **options: Any,
        ) -> T | None: ...
        @overload
        def __call__(
            self,
            hook: str,
            data: object = ...,
            *,
            parse: Callable[[bytes], T],
            stop_on_error: bool = ...,
            **options: Any,
        ) -> T | None: ...
        @overload
        def __call__(
            self,
            hook: str,
            data: object = ...,
            *,
            returns: None = ...,
            stop_on_error: bool = ...,
            **options: Any,
        ) -> bytes | None: ...

    class SetFirstAsync(Protocol):
        """The signature of `PluginSet.first_async`."""

        @overload
        async def __call__(
            self,
            hook: str,
            data: object = ...,
            *,
            returns: type[T],
            stop_on_error: bool = ...,
            limiter: Any = ...,
            **options: Any,
        ) -> T | None: ...
        @overload
        async def __call__(
            self,
            hook: str,
            data: object = ...,
            *,
            returns: TypeForm[T],
            stop_on_error: bool = ...,
            limiter: Any = ...,
            **options: Any,
        ) -> T | None: ...
        @overload
        async def __call__(
            self,
            hook: str,
            data: object = ...,
            *,
            parse: Callable[[bytes], T],
            stop_on_error: bool = ...,
            limiter: Any = ...,
            **options: Any,
        ) -> T | None: ...
        @overload
        async def __call__(
            self,
            hook: str,
            data: object = ...,
            *,
            returns: None = ...,
            stop_on_error: bool = ...,
            limiter: Any = ...,
            **options: Any,
        ) -> bytes | None: ...

    class SetAll(Protocol):
        """The signature of `PluginSet.all`."""

        @overload
        def __call__(
            self,
            hook: str,
            data: object = ...,
            *,
            returns: type[T],
            stop_on_error: bool = ...,
            **options: Any,
        ) -> list[Result[T]]: ...
        @overload
        def __call__(
            self,
            hook: str,
            data: object = ...,
            *,
            returns: TypeForm[T],
            stop_on_error: bool = ...,
            **options: Any,
        ) -> list[Result[T]]: ...
        @overload
        def __call__(
            self,
            hook: str,
            data: object = ...,
            *,
            parse: Callable[[bytes], T],
            stop_on_error: bool = ...,
            **options: Any,
        ) -> list[Result[T]]: ...
        @overload
        def __call__(
            self,
            hook: str,
            data: object = ...,
            *,
            returns: None = ...,
            stop_on_error: bool = ...,
            **options: Any,
        ) -> list[Result[bytes]]: ...

    class SetAllAsync(Protocol):
        """The signature of `PluginSet.all_async`."""

        @overload
        async def __call__(
            self,
            hook: str,
            data: object = ...,
            *,
            returns: type[T],
            stop_on_error: bool = ...,
            limiter: Any = ...,
            **options: Any,
        ) -> list[Result[T]]: ...
        @overload
        async def __call__(
            self,
            hook: str,
            data: object = ...,
            *,
            returns: TypeForm[T],
            stop_on_error: bool = ...,
            limiter: Any = ...,
            **options: Any,
        ) -> list[Result[T]]: ...
        @overload
        async def __call__(
            self,
            hook: str,
            data: object = ...,
            *,
            parse: Callable[[bytes], T],
            stop_on_error: bool = ...,
            limiter: Any = ...,
            **options: Any,
        ) -> list[Result[T]]: ...
        @overload
        async def __call__(
            self,
            hook: str,
            data: object = ...,
            *,
            returns: None = ...,
            stop_on_error: bool = ...,
            limiter: Any = ...,
            **options: Any,
        ) -> list[Result[bytes]]: ...

    class SetChain(Protocol):
        """The signature of `PluginSet.chain`."""

        @overload
        def __call__(
            self,
            hook: str,
            data: D = ...,
            *,
            returns: type[T],
            stop_on_error: bool = ...,
            **options: Any,
        ) -> T | D: ...
        @overload
        def __call__(
            self,
            hook: str,
            data: D = ...,
            *,
            returns: TypeForm[T],
            stop_on_error: bool = ...,
            **options: Any,
        ) -> T | D: ...
        @overload
        def __call__(
            self,
            hook: str,
            data: D = ...,
            *,
            parse: Callable[[bytes], T],
            stop_on_error: bool = ...,
            **options: Any,
        ) -> T | D: ...
        @overload
        def __call__(
            self,
            hook: str,
            data: D = ...,
            *,
            returns: None = ...,
            stop_on_error: bool = ...,
            **options: Any,
        ) -> bytes | D: ...

    class SetChainAsync(Protocol):
        """The signature of `PluginSet.chain_async`."""

        @overload
        async def __call__(
            self,
            hook: str,
            data: D = ...,
            *,
            returns: type[T],
            stop_on_error: bool = ...,
            limiter: Any = ...,
            **options: Any,
        ) -> T | D: ...
        @overload
        async def __call__(
            self,
            hook: str,
            data: D = ...,
            *,
            returns: TypeForm[T],
            stop_on_error: bool = ...,
            limiter: Any = ...,
            **options: Any,
        ) -> T | D: ...
        @overload
        async def __call__(
            self,
            hook: str,
            data: D = ...,
            *,
            parse: Callable[[bytes], T],
            stop_on_error: bool = ...,
            limiter: Any = ...,
            **options: Any,
        ) -> T | D: ...
        @overload
        async def __call__(
            self,
            hook: str,
            data: D = ...,
            *,
            returns: None = ...,
            stop_on_error: bool = ...,
            limiter: Any = ...,
            **options: Any,
        ) -> bytes | D: ...

    class SetCall(Protocol):
        """The signature of `PluginSet.call`."""

        @overload
        def __call__(
            self,
            name: str,
            function_name: str,
            data: object = ...,
            *,
            returns: type[T],
            **options: Any,
        ) -> T: ...
        @overload
        def __call__(
            self,
            name: str,
            function_name: str,
            data: object = ...,
            *,
            returns: TypeForm[T],
            **options: Any,
        ) -> T: ...
        @overload
        def __call__(
            self,
            name: str,
            function_name: str,
            data: object = ...,
            *,
            parse: Callable[[bytes], T],
            **options: Any,
        ) -> T: ...
        @overload
        def __call__(
            self,
            name: str,
            function_name: str,
            data: object = ...,
            *,
            returns: None = ...,
            **options: Any,
        ) -> bytes: ...

    class SetCallAsync(Protocol):
        """The signature of `PluginSet.call_async`."""

        @overload
        async def __call__(
            self,
            name: str,
            function_name: str,
            data: object = ...,
            *,
            returns: type[T],
            limiter: Any = ...,
            **options: Any,
        ) -> T: ...
        @overload
        async def __call__(
            self,
            name: str,
            function_name: str,
            data: object = ...,
            *,
            returns: TypeForm[T],
            limiter: Any = ...,
            **options: Any,
        ) -> T: ...
        @overload
        async def __call__(
            self,
            name: str,
            function_name: str,
            data: object = ...,
            *,
            parse: Callable[[bytes], T],
            limiter: Any = ...,
            **options: Any,
        ) -> T: ...
        @overload
        async def __call__(
            self,
            name: str,
            function_name: str,
            data: object = ...,
            *,
            returns: None = ...,
            limiter: Any = ...,
            **options: Any,
        ) -> bytes: ...

    def of_first(method: object) -> SetFirst: ...
    def of_first_async(method: object) -> SetFirstAsync: ...
    def of_all(method: object) -> SetAll: ...
    def of_all_async(method: object) -> SetAllAsync: ...
    def of_chain(method: object) -> SetChain: ...
    def of_chain_async(method: object) -> SetChainAsync: ...
    def of_call(method: object) -> SetCall: ...
    def of_call_async(method: object) -> SetCallAsync: ...

else:

    def of_first(method):
        return method

    of_all = of_chain = of_call = of_first_async = of_all_async = of_chain_async = of_call_async = (
        of_first
    )
