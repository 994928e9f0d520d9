"""The answers of a case to what its plugin asks: host functions and HTTP requests.

A call or a request takes the first table that fits and was not used yet, or else the last that
fits. If none fits, the plugin's call ends with an error that says what was asked, and why the
closest table does not fit. Tables that were never used are a problem of the case.
"""

from __future__ import annotations

import errno
import re

from .._host.observed_values import shorten
from .._http.transport import EgressResponse
from .._http.url import Target
from ..errors import LinkError, escape_line
from ..testing import UnexpectedHostCallError, UnexpectedRequestError
from .case_model import Data, Response
from .differences import bytes_difference, json_difference, read_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ..testing import Harness, Request
    from .case_model import HostAnswer, HttpAnswer

__all__ = ["HostAnswers", "HttpAnswers", "data_difference"]


class HostAnswers:
    """The tables `[[test.host]]` of a case, as fakes of a harness.

    Raises:
        LinkError: The plugin imports no such function, or one of another type.
    """

    def __init__(self, answers: Sequence[HostAnswer], folder: str, harness: Harness) -> None:
        self._answers = answers
        self._folder = folder
        self._used: set[int] = set()
        wanted: dict[tuple[str, str], list[int]] = {}
        for number, answer in enumerate(answers):
            try:
                key, signature = harness._find_function(answer.name, answer.namespace)
                _check_types(answer, signature)
            except LinkError as error:
                raise LinkError(f"host[{number}]: {error.message}") from None
            wanted.setdefault(key, []).append(number)
        for key in harness._application_imports():
            self._fake(harness, key, wanted.get(key, []))

    def _fake(self, harness: Harness, key: tuple[str, str], numbers: list[int]) -> None:
        """Answer the calls of a function by these tables."""
        namespace, name = key
        types: tuple[type, ...] = ()
        for args in (self._answers[number].args for number in numbers):
            if args is not None:
                types = tuple(int if isinstance(arg, (int, float)) else bytes for arg in args)

        def answer(*args: Any) -> Any:
            differences: list[str] = []
            fitting = []
            for number in numbers:
                difference = self._args_difference(self._answers[number].args, args)
                if difference:
                    differences.append(f"host[{number}] does not fit: {difference}")
                else:
                    fitting.append(number)
            if not fitting:
                raise UnexpectedHostCallError(
                    _unexpected(
                        f"the host function `{name}` was called with "
                        f"({', '.join(map(shorten, args))})",
                        differences,
                        f'[[test.host]] with name = "{name}"',
                    )
                )
            chosen = self._answers[_take(fitting, self._used)]
            if chosen.error is not None:
                raise RuntimeError(chosen.error)
            if isinstance(chosen.returns, Data):
                return chosen.returns.read(self._folder)
            return chosen.returns

        harness.host(name, *types, returns=answer, namespace=namespace)

    def _args_difference(self, expected: Sequence[Any] | None, args: tuple[Any, ...]) -> str:
        for number, (wanted, got) in enumerate(zip(expected or (), args, strict=False)):
            if isinstance(wanted, (int, float)) or not isinstance(got, bytes):
                difference = (
                    "" if wanted == got else f"expected {shorten(wanted)}, got {shorten(got)}"
                )
            else:
                data = Data(text=wanted) if isinstance(wanted, str) else wanted
                difference = data_difference(data, got, self._folder)
            if difference:
                return f"args[{number}]: {difference}"
        return ""

    def unused(self) -> list[str]:
        """Return a sentence for each table that no call took."""
        return [
            f"host[{number}]: the plugin did not call `{escape_line(answer.name)}`"
            + (" with these arguments" if answer.args is not None else "")
            for number, answer in enumerate(self._answers)
            if number not in self._used
        ]


class HttpAnswers:
    """The tables `[[test.http]]` of a case, which answer all requests of a harness."""

    def __init__(self, answers: Sequence[HttpAnswer], folder: str, harness: Harness) -> None:
        self._answers = answers
        self._folder = folder
        self._used: set[int] = set()
        harness.http.route(None, re.compile(".*", re.DOTALL)).respond_with(self._answer)

    def _answer(self, request: Request) -> EgressResponse:
        differences: list[str] = []
        fitting = []
        for number, answer in enumerate(self._answers):
            difference = self._difference(answer, request)
            if difference:
                differences.append(f"http[{number}] does not fit: {difference}")
            else:
                fitting.append(number)
        if not fitting:
            body = f" with {shorten(request.body)}" if request.body else ""
            raise UnexpectedRequestError(
                _unexpected(
                    f"the plugin requested {request.method} {request.url}{body}",
                    differences,
                    f'[[test.http]] with method = "{request.method}" and url = "{request.url}"',
                )
            )
        chosen = self._answers[_take(fitting, self._used)]
        if chosen.error is not None:
            raise ConnectionError(errno.ECONNABORTED, chosen.error)
        response = chosen.response
        if isinstance(response, str):
            response = Response(text=response)
        headers = response.headers
        if not any(name.lower() == "content-type" for name in headers):
            if response.text is not None:
                headers = {"Content-Type": "text/plain; charset=utf-8", **headers}
            elif response.body is not None and response.body.is_json:
                headers = {"Content-Type": "application/json", **headers}
        content = response.body.read(self._folder) if response.body is not None else b""
        return EgressResponse(response.status, headers, content)

    def _difference(self, answer: HttpAnswer, request: Request) -> str:
        """Return why a request does not fit; empty if it does."""
        url = Target.parse(answer.url).url
        if (answer.method.upper(), url) != (request.method, request.url):
            return f"it is for {answer.method.upper()} {escape_line(url)}"
        for name, wanted in answer.headers.items():
            got = request.headers.get(name)
            if got != wanted:
                shown = "none" if got is None else repr(got)
                return f"header {escape_line(name)}: expected {wanted!r}, got {escape_line(shown)}"
        if answer.body is None:
            return ""
        data = Data(text=answer.body) if isinstance(answer.body, str) else answer.body
        difference = data_difference(data, request.body, self._folder)
        return f"body: {difference}" if difference else ""

    def unused(self) -> list[str]:
        """Return a sentence for each table that no request took."""
        return [
            f"http[{number}]: the plugin did not request "
            f"{answer.method.upper()} {escape_line(answer.url)}"
            for number, answer in enumerate(self._answers)
            if number not in self._used
        ]


def data_difference(expected: Data, got: bytes, folder: str) -> str:
    """Return how data differs from what is expected; empty if it does not."""
    if not expected.is_json:
        return bytes_difference(expected.read(folder), got)
    try:
        value = read_json(got)
    except ValueError as error:
        return f"expected JSON, got {escape_line(shorten(got))}: {escape_line(str(error))}"
    return json_difference(expected.json, value)


def _take(fitting: list[int], used: set[int]) -> int:
    number = next((number for number in fitting if number not in used), fitting[-1])
    used.add(number)
    return number


def _unexpected(what: str, differences: list[str], table: str) -> str:
    lines = [f"{what}, and no table of the case answers that"]
    lines += differences[:5] or [f"to answer it, add {table}"]
    return "\n".join(lines)


def _check_types(answer: HostAnswer, signature: Any) -> None:
    """Raise `LinkError` if a function cannot have these arguments or this result."""
    name = answer.name
    if answer.args is not None:
        if len(answer.args) != len(signature.params):
            raise LinkError(
                f"args: `{name}` has {len(signature.params)} parameters, not {len(answer.args)}"
            )
        for number, (arg, type) in enumerate(zip(answer.args, signature.params, strict=True)):
            if reason := _misfit(arg, type):
                raise LinkError(f"args[{number}]: parameter {number} of `{name}` is {reason}")
    if answer.returns is None:
        return
    if not signature.results:
        raise LinkError(f"returns: `{name}` has no result")
    if reason := _misfit(answer.returns, signature.results[0]):
        raise LinkError(f"returns: the result of `{name}` is {reason}")


def _misfit(value: float | str | Data, type: str) -> str:
    """Return why a value cannot have a type of Wasm; empty if it can."""
    if type in ("f32", "f64"):
        return "" if isinstance(value, (int, float)) else f"a number ({type}), not data"
    if isinstance(value, float):
        return f"an integer ({type}), not a number with a fraction"
    if isinstance(value, int):
        bits = 32 if type == "i32" else 64
        fits = -(1 << bits - 1) <= value < 1 << bits
        return "" if fits else f"an {type}, which {value} does not fit into"
    return "a number (i32), not data" if type == "i32" else ""
