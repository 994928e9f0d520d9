"""Host functions as a script imports them: from an application, or declared in TypeScript.

The declarations are those of the official JavaScript kit:

    declare module "extism:host" {
      interface user {
        lookup(name: I64): I64;
      }
    }

Functions of another namespace are those of a module of that name:

    declare module "my:namespace" {
      function count(): void;
    }
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import OptionError, ScriptError, truncate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .._host.functions import Function

MOST_PARAMS = 16
MOST_NAME = 1000
_NUMBERS = frozenset(("i32", "i64", "f32", "f64"))
_LETTERS = {"i32": "i", "i64": "l", "f32": "f", "f64": "d"}
_HOST = "extism:host"
_EXPORTS = "main"
"""The module whose functions are the exports of the script."""

# Each is linear: a comment that does not end takes the rest, and what was read is not read again.
_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)|//[^\n]*", re.S)
_SPACE = re.compile(r"\s*")
_BRACE = re.compile(r"[{}]")
_MODULE = re.compile(r"\bdeclare\s++module\s++(?P<quote>[\"'])(?P<name>[^\"'\n]*)(?P=quote)\s*\{")
_INTERFACE = re.compile(r"(?:export\s++)?\binterface\s++(?P<name>[\w$]+)\s*\{(?P<body>[^{}]*)\}")
_METHOD = re.compile(r"\s*(?P<name>[\w$]+)\s*\((?P<params>[^()]*)\)\s*:\s*(?P<result>\w+)\s*;?")
_FUNCTION = re.compile(r"\s*(?:export\s+)?function\b(?P<method>[^;]*;)")
_TOLD_TYPE = re.compile(rf"[ilfd]{{0,{MOST_PARAMS}}}:[ilfd]?")
_PARAM = re.compile(r"\s*[\w$]+\s*:\s*(?P<type>\w+)\s*")


@dataclass(frozen=True, slots=True)
class ToldImport:
    """A host function that a script declares by itself, as an engine says it."""

    namespace: str
    name: str
    type: str

    def __post_init__(self) -> None:
        if not _TOLD_TYPE.fullmatch(self.type):
            raise ValueError(f"a host function of the type {self.type!r:.40}")
        if len(self.namespace) + len(self.name) > MOST_NAME:
            raise ValueError(f"the name of a host function has more than {MOST_NAME} characters")


@dataclass(frozen=True, slots=True)
class HostImport:
    """A host function and its type: names of value types of Wasm."""

    namespace: str
    name: str
    params: tuple[str, ...]
    results: tuple[str, ...]

    @classmethod
    def from_told(cls, told: ToldImport) -> HostImport:
        """Return what an engine says that a script declares."""
        names = {letter: name for name, letter in _LETTERS.items()}
        params, _, results = told.type.partition(":")
        return cls(
            told.namespace,
            told.name,
            tuple(names[one] for one in params),
            tuple(names[one] for one in results),
        )

    def describe_type(self) -> str:
        """Return the type as an engine is told it."""
        letters = _LETTERS.__getitem__
        return "".join(map(letters, self.params)) + ":" + "".join(map(letters, self.results))


def of_functions(functions: Iterable[Function]) -> tuple[HostImport, ...]:
    """Return what a script imports of an application.

    Raises:
        OptionError: A script could not call one of them.
    """
    return tuple(map(_of_function, functions))


def _of_function(function: Function) -> HostImport:
    kind = function._host.type
    if (
        not _NUMBERS.issuperset(kind.params + kind.results)
        or len(kind.results) > 1
        or len(kind.params) > MOST_PARAMS
    ):
        raise OptionError(
            f"functions: `{truncate(function.name)}` is a function {kind}; one that scripts call "
            f"has at most {MOST_PARAMS} parameters and one result, all of them numbers or blocks",
            field="functions",
        )
    namespace, name = function._imported_as
    return HostImport(namespace, name, kind.params, kind.results)


def read_declarations(text: str, file: str) -> tuple[HostImport, ...]:
    """Return the host functions that are declared in TypeScript.

    Raises:
        ScriptError: Something in a module of host functions is not a declaration of a function.
    """
    found: dict[tuple[str, str], HostImport] = {}
    text = _COMMENT.sub(lambda comment: re.sub(r"[^\n]", " ", comment[0]), text)
    end = 0
    while (module := _MODULE.search(text, end)) is not None:
        start, end = module.end(), _find_end(text, module.end(), file)
        if module["name"] == _EXPORTS:
            continue
        reader = _Reader(text, file)
        if module["name"] == _HOST:
            declared = reader.interfaces(start, end)
        else:
            declared = reader.functions(module["name"], start, end)
        for one in declared:
            found[one.namespace, one.name] = one
    return tuple(found.values())


def _find_end(text: str, at: int, file: str) -> int:
    """Return where the block ends that starts at an offset."""
    depth = 1
    for brace in _BRACE.finditer(text, at):
        depth += 1 if brace[0] == "{" else -1
        if not depth:
            return brace.start()
    raise _error(text, file, at, "the module is not closed by `}`")


class _Reader:
    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.file = file

    def skip_space(self, at: int, end: int) -> int:
        """Return where the next thing begins."""
        space = _SPACE.match(self.text, at, end)
        return at if space is None else space.end()

    def interfaces(self, at: int, end: int) -> Iterator[HostImport]:
        """Yield the methods of interfaces."""
        while (at := self.skip_space(at, end)) < end:
            interface = _INTERFACE.match(self.text, at, end)
            if interface is None:
                raise self.error(at, "expected `interface user { … }`")
            yield from self.methods(f"{_HOST}/{interface['name']}", *interface.span("body"))
            at = interface.end()

    def methods(self, namespace: str, at: int, end: int) -> Iterator[HostImport]:
        while (at := self.skip_space(at, end)) < end:
            method = _METHOD.match(self.text, at, end)
            if method is None:
                raise self.error(at, "expected `name(parameter: I64): I64;`")
            yield self.method(namespace, method)
            at = method.end()

    def functions(self, namespace: str, at: int, end: int) -> Iterator[HostImport]:
        """Yield functions of a module."""
        while (at := self.skip_space(at, end)) < end:
            function = _FUNCTION.match(self.text, at, end)
            if function is None:
                raise self.error(at, "expected `function name(parameter: I64): I64;`")
            yield from self.methods(namespace, *function.span("method"))
            at = function.end()

    def method(self, namespace: str, method: re.Match[str]) -> HostImport:
        params = []
        for one in filter(str.strip, method["params"].split(",")):
            param = _PARAM.fullmatch(one)
            if param is None:
                raise self.error(
                    method.start("params"), f"expected `name: type`, not `{one.strip()}`"
                )
            params.append(self.type(param["type"], method.start("params")))
        if len(params) > MOST_PARAMS:
            raise self.error(method.start("params"), f"more than {MOST_PARAMS} parameters")
        void = method["result"] == "void"
        results = () if void else (self.type(method["result"], method.start("result")),)
        return HostImport(namespace, method["name"], tuple(params), results)

    def type(self, name: str, at: int) -> str:
        kind = "i64" if name == "PTR" else name.lower()
        if kind not in _NUMBERS:
            raise self.error(at, f"expected I32, I64, F32, F64 or PTR, not `{name}`")
        return kind

    def error(self, at: int, what: str) -> ScriptError:
        return _error(self.text, self.file, at, what)


def _error(text: str, file: str, at: int, what: str) -> ScriptError:
    line = text.count("\n", 0, at) + 1
    column = at - (text.rfind("\n", 0, at) + 1) + 1
    return ScriptError(
        f"{truncate(file)}:{line}:{column}: {truncate(what)}", file=file, line=line, column=column
    )
