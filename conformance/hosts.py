"""Run a case on a host: plugwasm, or the official package."""

from __future__ import annotations

import json
import logging
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from .table import Case, Step, is_output, to_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class WrongResultError(Exception):
    """A step gave something else than the table says."""


class Host(Protocol):
    """A host that runs cases. `lacks` says what its API does not take: features, or `vars`."""

    name: str
    lacks: ClassVar[dict[str, str]]

    def run(self, wasm: bytes, wasi: bool, case: Case, server: str) -> None:
        """Run a case.

        Raises:
            WrongResultError: Something is not as the table says.
        """


def _host_functions(decorate: Callable[..., Any], sdk: Any, called: list[str]) -> list[Any]:
    """Return the host functions of README.md, made with an SDK's `host_fn`."""
    types, values = sdk.ValType, sdk.Val

    def number(name: str, type: Any, apply: Callable[[Any], Any]) -> Any:
        def function(plugin: Any, inputs: Any, outputs: Any, *_: Any) -> None:
            called.append(name)
            outputs[0] = values(type, apply(inputs[0].value))

        return decorate(name=name, namespace="extism:host/user", signature=([type], [type]))(
            function
        )

    def block(name: str, apply: Callable[[bytes], bytes]) -> Any:
        def function(plugin: Any, inputs: Any, outputs: Any, *_: Any) -> None:
            called.append(name)
            data = plugin.input_bytes(inputs[0])
            plugin.return_bytes(outputs[0], apply(bytes(data)))

        pointer = types.PTR
        return decorate(name=name, namespace="extism:host/user", signature=([pointer], [pointer]))(
            function
        )

    def other(plugin: Any, inputs: Any, outputs: Any, *_: Any) -> None:
        called.append("host_other")

    def add(data: bytes) -> bytes:
        fields = json.loads(data)
        return json.dumps({"sum": fields["a"] + fields["b"]}).encode()

    return [
        number("host_i32", types.I32, lambda value: _wrap(value + 1, "i")),
        number("host_i64", types.I64, lambda value: _wrap(value + 1, "q")),
        number("host_f32", types.F32, lambda value: value * 2),
        number("host_f64", types.F64, lambda value: value * 2),
        block("host_text", lambda data: b"Hello, " + data + b"!"),
        block("host_bytes", lambda data: data[::-1]),
        block("host_json", add),
        decorate(name="host_other", namespace="conformance:host", signature=([], []))(other),
    ]


def _wrap(value: int, code: str) -> int:
    size = struct.calcsize(code)
    wrapped: int = struct.unpack(code, (value & ((1 << 8 * size) - 1)).to_bytes(size, "little"))[0]
    return wrapped


def _manifest(wasm: bytes, case: Case) -> dict[str, Any]:
    manifest: dict[str, Any] = {"wasm": [{"data": wasm}], "config": case.config}
    if case.allowed_hosts:
        manifest["allowed_hosts"] = list(case.allowed_hosts)
    if case.max_pages is not None:
        manifest["memory"] = {"max_pages": case.max_pages}
    return manifest


def _run_steps(
    case: Case,
    server: str,
    call: Callable[[str, bytes], bytes],
    error_type: type[Exception],
    describe: Callable[[Any, Step], dict[str, object]],
) -> None:
    for number, step in enumerate(case.steps, 1):
        where = f"step {number}, {step.function}"
        try:
            output = call(step.function, to_bytes(step.input, server))
        except error_type as error:
            if step.error is None:
                raise WrongResultError(f"{where}: failed: {error}") from error
            found = describe(error, step)
            for field, value in found.items():
                wanted = getattr(step.error, field)
                if wanted is not None and value != wanted:
                    raise WrongResultError(
                        f"{where}: {field} is {value!r:.200}, not {wanted!r:.200}"
                    ) from error
            continue
        if step.error is not None:
            raise WrongResultError(f"{where}: returned {output!r:.100}, and should fail")
        if not is_output(output, step.output, server):
            raise WrongResultError(f"{where}: returned {output!r:.200}, not {step.output!r:.200}")


class Plugwasm:
    name = "plugwasm"
    lacks: ClassVar[dict[str, str]] = {}

    def run(self, wasm: bytes, wasi: bool, case: Case, server: str) -> None:
        import plugwasm

        called: list[str] = []
        functions = _host_functions(plugwasm.host_fn, plugwasm, called)
        with (
            _logs(case.log_level) as records,
            plugwasm.Plugin(
                _manifest(wasm, case),
                wasi,
                functions=functions,
                vars={name: value.encode() for name, value in case.vars.items()},
                http_response_headers="http_headers" in case.needs,
                name="conformance",
            ) as plugin,
        ):

            def describe(error: plugwasm.CallError, step: Step) -> dict[str, object]:
                code = error.code
                return {
                    "code": code,
                    "message": error.guest_message,
                    "exit": code if isinstance(error, plugwasm.ExitError) else None,
                }

            _run_steps(
                case,
                server,
                lambda function, data: plugin.call(function, data),
                plugwasm.Error,
                describe,
            )
        if case.log_level is not None and tuple(records) != case.logs:
            raise WrongResultError(f"the log is {records!r:.200}, not {case.logs!r:.200}")
        _check_calls(case, called)


@contextmanager
def _logs(level: str | None) -> Iterator[list[tuple[str, str]]]:
    """Collect what plugins log, from this level on."""
    logger = logging.getLogger("plugwasm.plugin.conformance")
    numbers = {"trace": 5, "debug": 10, "info": 20, "warn": 30, "error": 40}
    names = {number: name for name, number in numbers.items()}
    records: list[tuple[str, str]] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append((names[record.levelno], record.getMessage()))

    handler, before = Collect(), logger.level
    if level is not None:
        logger.addHandler(handler)
        logger.setLevel(numbers[level])
    try:
        yield records
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def _check_calls(case: Case, called: list[str]) -> None:
    for name in case.calls:
        if name not in called:
            raise WrongResultError(f"the host function `{name}` was not called")


class Extism:
    """The official Python package. What its API does not take is left out."""

    name = "extism"
    lacks: ClassVar[dict[str, str]] = dict.fromkeys(
        ("vars", "http_headers", "floats"), "not in the API of this host"
    )

    def run(self, wasm: bytes, wasi: bool, case: Case, server: str) -> None:
        import extism

        called: list[str] = []
        plugin = extism.Plugin(
            _manifest(wasm, case),
            wasi,
            functions=_host_functions(extism.host_fn, extism, called),
        )

        def describe(error: Exception, step: Step) -> dict[str, object]:
            assert step.error is not None
            message = step.error.message
            return {"message": message if message is not None and message in str(error) else None}

        _run_steps(
            case,
            server,
            lambda function, data: bytes(plugin.call(function, data)),
            extism.Error,
            describe,
        )
        _check_calls(case, called)


HOSTS: tuple[Host, ...] = (Plugwasm(), Extism())
