"""The kit of plugins in Python, for editors and type checkers."""

from collections.abc import Callable
from typing import Any, TypeVar

_F = TypeVar("_F", bound=Callable[..., Any])
I32 = int
I64 = int
F32 = float
F64 = float

class Error(Exception):
    """An error of the call with exactly this message and code."""

    message: str
    code: int
    def __init__(self, message: str, code: int = 1) -> None: ...

class LogLevel:
    """The levels of the log."""

    Trace: int
    Debug: int
    Info: int
    Warn: int
    Error: int

def log(level: int, message: object) -> None: ...
def input_bytes() -> bytes: ...
def input_str() -> str: ...
def input_json(type: type | None = None) -> Any: ...
def input(type: type | None = None) -> Any: ...
def output_bytes(content: bytes) -> None: ...
def output_str(text: str) -> None: ...
def output_json(value: object) -> None: ...
def output(value: object = None) -> None: ...

class Config:
    """The settings that the application gave to the plugin."""

    @staticmethod
    def get(key: str) -> str | None: ...
    @staticmethod
    def get_str(key: str) -> str | None: ...
    @staticmethod
    def get_json(key: str) -> Any: ...

class Var:
    """Values that the host keeps from one call to the next."""

    @staticmethod
    def get_bytes(key: str) -> bytes | None: ...
    @staticmethod
    def get_str(key: str) -> str | None: ...
    @staticmethod
    def get_json(key: str) -> Any: ...
    @staticmethod
    def set(key: str, value: str | bytes) -> None: ...
    @staticmethod
    def delete(key: str) -> None: ...

class HttpResponse:
    """An answer to a request."""

    @property
    def status_code(self) -> int: ...
    def data_bytes(self) -> bytes: ...
    def data_str(self) -> str: ...
    def data_json(self) -> Any: ...
    def headers(self) -> dict[str, str]: ...

class Http:
    """Requests, to the hosts that the application allows."""

    @staticmethod
    def request(
        url: str,
        meth: str = "GET",
        body: str | bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> HttpResponse: ...

class MemoryHandle:
    """A block of the host's memory."""

    offset: int
    length: int

class memory:
    """Blocks of the host's memory."""

    @staticmethod
    def find(offset: int) -> MemoryHandle | None: ...
    @staticmethod
    def bytes(handle: MemoryHandle) -> bytes: ...
    @staticmethod
    def string(handle: MemoryHandle) -> str: ...
    @staticmethod
    def free(handle: MemoryHandle) -> None: ...
    @staticmethod
    def alloc(content: str | bytes) -> MemoryHandle: ...

def plugin_fn(function: _F) -> _F: ...
def import_fn(module: str, name: str) -> Callable[[_F], _F]: ...
