"""What a case says: `[[test]]` in `plugin.toml`, and the tables in it.

    [[test]]       a plugin with its config and vars, a call of it, and what the call must give
    [[test.then]]  another call of the same plugin, and what it must give
    [[test.host]]  what a host function returns
    [[test.http]]  what an HTTP request is answered with

Everything that a case says must come true: an answer that was not asked for fails it as much as a
call that has no answer. What it does not say may be anything. The words are those of
`conformance/cases.json` where both have one.

Decisions: docs/decisions.md, 55.1.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from typing import Any, Final, Literal

import msgspec

from .._http.url import HostRules, Target
from .._manifest.messages import field_error, quote
from ..errors import Error
from .paths import check_path, read_project_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Call", "Case", "Data", "HostAnswer", "HttpAnswer", "Response"]

DEFAULT_TIMEOUT_MS: Final = 10_000
_FORMS: Final = ("text", "json", "base64", "file")


class Data(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Data that is more than text: a table with exactly one of these fields, wherever text is
    allowed in `vars`, `args`, `returns` and `body`.

    Attributes:
        text: Text, which is encoded as UTF-8.
        json: A value, which is encoded as JSON. What a plugin gave is compared as a value.
        base64: Bytes, as base64.
        file: The path of a file in the project, whose bytes are used.
    """

    text: str | None = None
    json: Any = msgspec.UNSET
    base64: str | None = None
    file: str | None = None

    def __post_init__(self) -> None:
        if len(given := _given(self, _FORMS)) != 1:
            raise field_error("", f"expected one of {', '.join(_FORMS)}, got {_listed(given)}")
        _check_forms(self)

    @property
    def is_json(self) -> bool:
        """Whether it is compared as a JSON value."""
        return self.json is not msgspec.UNSET

    def read(self, folder: str) -> bytes:
        """Return the bytes that it stands for.

        Raises:
            SourceError: The file cannot be read.
        """
        if self.text is not None:
            return self.text.encode()
        if self.base64 is not None:
            return base64.b64decode(self.base64)
        if self.file is not None:
            return read_project_file(folder, self.file)
        return json.dumps(self.json, ensure_ascii=False, separators=(",", ":")).encode()


class Response(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The response to a request. Of `text`, `json`, `base64` and `file` it has at most one.

    Attributes:
        status: The status, 200 by default.
        headers: The headers. With `text` and `json` there is a fitting `Content-Type`.
        text: The body, as text.
        json: The body, as a value.
        base64: The body, as base64.
        file: The path of a file in the project, whose bytes are the body.
    """

    status: int = 200
    headers: dict[str, str] = {}
    text: str | None = None
    json: Any = msgspec.UNSET
    base64: str | None = None
    file: str | None = None

    def __post_init__(self) -> None:
        if len(given := _given(self, _FORMS)) > 1:
            raise field_error(
                "", f"expected at most one of {', '.join(_FORMS)}, got {_listed(given)}"
            )
        _check_forms(self)
        if not 200 <= self.status <= 999:
            raise field_error("status", f"expected a status from 200 to 999, got {self.status}")

    @property
    def body(self) -> Data | None:
        """The body, if there is one."""
        return _make_data(self, _FORMS)


class HostAnswer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table `[[test.host]]`: what a host function returns. It answers every call that fits; if
    several tables fit, the first is for the first call and so on, and the last for all later ones.

    Attributes:
        name: The name of the function.
        namespace: The module that the plugin imports it from. It is needed only if it imports the
            name from several.
        args: The arguments that the plugin must pass: a number for each number, text or a table
            for each block of memory. If left out, any arguments fit.
        returns: What it returns: a number, or text or a table for a block of memory. By default
            nothing, or 0.
        error: In place of `returns`: the function fails with this message, and with it the
            plugin's call.
    """

    name: str
    namespace: str | None = None
    args: list[int | float | str | Data] | None = None
    returns: int | float | str | Data | None = None
    error: str | None = None

    def __post_init__(self) -> None:
        if self.error is not None and self.returns is not None:
            raise field_error("error", "a function that fails returns nothing: leave out `returns`")


class HttpAnswer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table `[[test.http]]`: what an HTTP request is answered with. It answers every request that
    fits; if several tables fit, the first is for the first request and so on, and the last for all
    later ones. No request reaches the network.

    Attributes:
        url: The URL of the request.
        method: The method of the request, `GET` by default.
        headers: Headers that the request must have; it may have others.
        body: The body that the request must have, as text or a table. If left out, any body fits.
        response: The response: a table, or text as its body. 200 without a body by default.
        error: In place of `response`: there is no response, for this reason, and the plugin's call
            fails.
    """

    url: str
    method: str = "GET"
    headers: dict[str, str] = {}
    body: str | Data | None = None
    response: str | Response = msgspec.field(default_factory=Response)
    error: str | None = None

    def __post_init__(self) -> None:
        try:
            Target.parse(self.url)
        except Error as error:
            raise field_error("url", error.message) from None
        if not (self.method.isascii() and self.method.isalpha()):
            raise field_error("method", f"expected one such as GET, got {quote(self.method)}")
        if self.error is not None and self.response != Response():
            raise field_error("error", "a request that fails has no response: leave out `response`")


class Call(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table `[[test.then]]`: another call of the plugin, after the one of the case. It has at
    most one input, and at most one output or an error.

    Attributes:
        function: The export to call.
        input: The input, as text.
        input_json: The input, as a value that is encoded as JSON.
        input_base64: The input, as base64.
        input_file: The path of a file in the project, whose bytes are the input.
        output: The output that the plugin must return, as text.
        output_json: The output, as a value: it may be written in any way that JSON allows.
        output_base64: The output, as base64.
        output_file: The path of a file in the project with the output, compared byte by byte.
        output_json_file: The path of a JSON file in the project, which is compared as a value.
        error: The call must fail, with a message that contains this text.
        error_code: The call must fail, and the plugin return this code.
    """

    function: str
    input: str | None = None
    input_json: Any = msgspec.UNSET
    input_base64: str | None = None
    input_file: str | None = None
    output: str | None = None
    output_json: Any = msgspec.UNSET
    output_base64: str | None = None
    output_file: str | None = None
    output_json_file: str | None = None
    error: str | None = None
    error_code: int | None = None

    def __post_init__(self) -> None:
        inputs = _given(self, _INPUTS)
        if len(inputs) > 1:
            raise field_error(inputs[1], f"there is `{inputs[0]}` already; a call has one input")
        outputs = _given(self, (*_OUTPUTS, "output_json_file"))
        if len(outputs) > 1:
            raise field_error(outputs[1], f"there is `{outputs[0]}` already; a call has one output")
        if outputs and self.fails:
            which = "error" if self.error is not None else "error_code"
            raise field_error(which, f"a call that fails has no output: leave out `{outputs[0]}`")
        if self.output_json_file is not None:
            check_path("output_json_file", self.output_json_file)
        for names in _INPUTS, _OUTPUTS:
            _check_forms(self, names)

    @property
    def fails(self) -> bool:
        """Whether the call must fail."""
        return self.error is not None or self.error_code is not None

    @property
    def input_data(self) -> Data:
        """The input."""
        return _make_data(self, _INPUTS) or Data(text="")

    @property
    def output_data(self) -> Data | None:
        """The output, unless it is in `output_json_file`; None if it may be anything."""
        return _make_data(self, _OUTPUTS)


_INPUTS: Final = ("input", "input_json", "input_base64", "input_file")
_OUTPUTS: Final = ("output", "output_json", "output_base64", "output_file")

Level = Literal["trace", "debug", "info", "warn", "error"]


class Case(Call, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table `[[test]]`: a new plugin, a call of it as in `[[test.then]]`, and what must be so
    afterwards.

    Attributes:
        name: What the case shows. No other case has this name.
        config: What the plugin reads as its config, besides the manifest's and the defaults of
            `[plugin.settings]`.
        vars: The vars that the plugin begins with: text or a table for each name.
        vars_after: All vars after the last call. If left out, they may be anything.
        allowed_hosts: The hosts that it may reach, in place of those of the manifest.
        allowed_paths: The directories that it may use, in place of those of the manifest: a path
            in the project (`ro:` in front for read-only) and the plugin's path for it.
        timeout_ms: How long a call may take, in milliseconds. By default as long as the manifest
            says, or 10,000.
        log_level: The lowest level that is logged, `trace` by default.
        logs: All lines that it logs, in order: a list of a level (`trace`, `debug`, `info`,
            `warn`, `error`) and a message for each. If left out, they may be anything.
        then: Further calls.
        host: What host functions return.
        http: What HTTP requests are answered with.
    """

    name: str
    config: dict[str, str] = {}
    vars: dict[str, str | Data] = {}
    vars_after: dict[str, str | Data] | None = None
    allowed_hosts: list[str] | None = None
    allowed_paths: dict[str, str] | None = None
    timeout_ms: int | None = None
    log_level: Level = "trace"
    logs: list[tuple[Level, str]] | None = None
    then: list[Call] = []
    host: list[HostAnswer] = []
    http: list[HttpAnswer] = []

    def __post_init__(self) -> None:
        Call.__post_init__(self)
        if not self.name.strip() or not self.name.isprintable() or len(self.name) > 200:
            raise field_error("name", "expected printable text of 1 to 200 characters")
        if self.timeout_ms is not None and not 1 <= self.timeout_ms <= 3_600_000:
            raise field_error("timeout_ms", "expected a number from 1 to 3600000")
        for path in self.allowed_paths or {}:
            if path.removeprefix("ro:") != ".":
                check_path("allowed_paths", path.removeprefix("ro:"))
        if self.allowed_hosts is not None:
            try:
                HostRules(self.allowed_hosts)
            except Error as error:
                raise field_error("allowed_hosts", error.message) from None
        _check_same_types(self.host)

    @property
    def calls(self) -> tuple[Call, ...]:
        """All calls, in order."""
        return (self, *self.then)


def _given(table: msgspec.Struct, fields: Sequence[str]) -> list[str]:
    """Return which of these fields are there. A JSON value may be null, and is there then."""
    return [
        field
        for field in fields
        if getattr(table, field) is not (msgspec.UNSET if field.endswith("json") else None)
    ]


def _listed(fields: list[str]) -> str:
    return " and ".join(fields) or "none"


def _make_data(table: msgspec.Struct, fields: Sequence[str]) -> Data | None:
    """Return the data in one of the fields for text, JSON, base64 and a file."""
    for field in _given(table, fields):
        return Data(**{_FORMS[fields.index(field)]: getattr(table, field)})
    return None


def _check_forms(table: msgspec.Struct, names: Sequence[str] = _FORMS) -> None:
    """Check the fields for a text, a JSON value, base64 and a file, in this order."""
    if (value := getattr(table, names[1])) is not msgspec.UNSET:
        _check_json(names[1], value)
    if (encoded := getattr(table, names[2])) is not None:
        try:
            base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError) as error:
            raise field_error(names[2], f"expected base64: {error}") from None
    if (path := getattr(table, names[3])) is not None:
        check_path(names[3], path)


def _check_json(field: str, value: Any) -> None:
    """Check that a value of TOML can be one of JSON."""
    if isinstance(value, dict):
        for key, item in value.items():
            _check_json(f"{field}.{key}", item)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_json(f"{field}[{index}]", item)
    elif isinstance(value, float) and not math.isfinite(value):
        raise field_error(field, f"expected a value of JSON, which has no {value}")
    elif not (value is None or isinstance(value, (str, int, float, bool))):
        raise field_error(
            field,
            "expected a value of JSON, which has no dates and times: write text, in quotes",
        )


def _check_same_types(answers: list[HostAnswer]) -> None:
    """Check that each argument of a function is a number in all tables, or a block in all."""
    seen: dict[tuple[str | None, str], list[bool]] = {}
    for number, answer in enumerate(answers):
        if answer.args is None:
            continue
        kinds = [isinstance(value, (int, float)) for value in answer.args]
        before = seen.setdefault((answer.namespace, answer.name), kinds)
        if kinds != before:
            raise field_error(
                f"host[{number}].args",
                f"expected {_kinds(before)} as in the table of `{answer.name}` before, "
                f"got {_kinds(kinds)}",
            )


def _kinds(kinds: list[bool]) -> str:
    return f"({', '.join('a number' if is_number else 'data' for is_number in kinds)})"
