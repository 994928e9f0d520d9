"""The bodies of host functions, made for their signatures.

One body for all signatures spends more time on its loops than the conversions take. So a body is
compiled from source in which each parameter and each result has its own expression; the most common
types without a call of a function. Functions of equal signatures share the code.

Decisions: docs/decisions.md, 63.5.
"""

from __future__ import annotations

import functools
import struct
from time import monotonic
from typing import Any

from .._engine import EngineFailure, after_host_function
from .annotations import (
    SHORT_TEXT,
    decode_bytes,
    decode_int,
    decode_text,
    encode_bytes,
    encode_int,
    encode_text,
)
from .current_plugin import CurrentPlugin
from .wasm_values import READ, WRITE, Val, ValType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .annotations import Decoder, Encoder
    from .guest import Guest

    Body = Callable[[Guest, int, Any], None]

__all__ = ["make_typed_body", "make_val_body"]

_FILE = f"{__file__}: <body>"
"""What the bodies say where they are: in the package, so that profiles take them for part of it."""
_PARAMETERS: dict[Any, str] = {
    decode_int: "{raw}",
    decode_text: (
        "block.tobytes().decode() if (block := guest.kernel.block({raw})) is not None"
        f" and len(block) < {SHORT_TEXT} else {{function}}(guest, {{raw}})"
    ),
    decode_bytes: (
        "block.tobytes() if (block := guest.kernel.block({raw})) is not None"
        " else {function}(guest, {raw})"
    ),
}
_RESULTS: dict[Any, str] = {
    encode_int: (
        f"{{value}} if type({{value}}) is int and {-(2**63)} <= {{value}} < {2**63}"
        " else {function}(guest, {value})"
    ),
    encode_text: (
        "type({value}) is str and guest.kernel.push({value}.encode()) or {function}(guest, {value})"
    ),
    encode_bytes: (
        "type({value}) is bytes and guest.kernel.push({value}) or {function}(guest, {value})"
    ),
}
"""What is done without a call of the decoder or encoder, where it is that simple."""

_SOURCE = """
def make({names}):
    def body(guest, caller, values):
        try:
            {statements}
        except (KeyboardInterrupt, EngineFailure):
            raise
        except BaseException as exception:
            raise make_error(name, exception, guest) from exception
        now = monotonic()
        if guest.cancelled or now >= guest.deadline:
            guest.remaining()
        if now >= after_host_function.next:
            look_at_signals(name, guest, now)
    return body
"""
_WITH_PLUGIN = """plugin = CurrentPlugin(guest)
            try:
                {statements}
            finally:
                plugin._expire()"""


def make_typed_body(
    name: str,
    f: Callable[..., Any],
    decoders: Sequence[Decoder],
    encoders: Sequence[Encoder],
    *,
    is_tuple: bool,
    wants_plugin: bool,
    user_data: tuple[Any, ...],
    make_error: Callable[..., BaseException],
    look_at_signals: Callable[[str, Guest, float], None],
) -> Body:
    """Return the body of a host function (`HostFunction`).

    Args:
        name: Its name, for errors.
        f: The function of the application.
        decoders, encoders: Make its parameters from what the guest passes, and give its results.
        is_tuple: Whether it returns its results as a tuple.
        wants_plugin: Whether it gets the calling plugin first.
        user_data: Passed to it last.
        make_error: Makes the error for what it raises.
        look_at_signals: Called from time to time after it.
    """
    known = tuple(d if d in _PARAMETERS else None for d in decoders)
    made = tuple(e if e in _RESULTS else None for e in encoders)
    make = _compile(known, made, is_tuple, wants_plugin, bool(user_data))
    body: Body = make(name, f, make_error, look_at_signals, user_data, *decoders, *encoders)
    return body


@functools.cache
def _compile(
    known: tuple[Any, ...],
    made: tuple[Any, ...],
    is_tuple: bool,
    wants_plugin: bool,
    has_user_data: bool,
) -> Callable[..., Body]:
    """Return a function that makes the bodies for a signature.

    Args:
        known, made: The decoders and encoders that `_PARAMETERS` and `_RESULTS` have, and None in
            place of others.
    """
    arguments = ["plugin"] if wants_plugin else []
    for i, decoder in enumerate(known):
        form = _PARAMETERS.get(decoder, "{function}(guest, {raw})")
        arguments.append(f"({form.format(raw=f'values[{2 * i}]', function=f'decode{i}')})")
    arguments += ["*user_data"] if has_user_data else []
    call = f"f({', '.join(arguments)})"
    results = [f"result{i}" for i in range(len(made))]
    if is_tuple and made:
        call = f"check_tuple({call}, {len(made)})"
    statements = [f"{', '.join(results)}{',' * is_tuple} = {call}" if made else call]
    for i, encoder in enumerate(made):
        form = _RESULTS.get(encoder, "{function}(guest, {value})")
        given = form.format(value=results[i], function=f"encode{i}")
        statements.append(f"values[{2 * i}] = {given}")
    names = [f"decode{i}" for i in range(len(known))] + [f"encode{i}" for i in range(len(made))]
    return _compile_body(statements, ["user_data", *names], wants_plugin)


def make_val_body(
    name: str,
    f: Callable[..., Any],
    args: Sequence[ValType],
    returns: Sequence[ValType],
    user_data: tuple[Any, ...],
    make_error: Callable[..., BaseException],
    look_at_signals: Callable[[str, Guest, float], None],
) -> Body:
    """Return the body of a host function that gets the plugin, its parameters and its results as
    lists of `Val`, and the user data.
    """
    make = _compile_for_val(tuple(args), tuple(returns))
    writers = [WRITE[t] for t in returns]

    def write(i: int, result: Any) -> int:
        try:
            return writers[i](result.value)
        except (TypeError, struct.error):
            raise TypeError(
                f"its result {i} should be a number for {result.t.name}, but is "
                f"{type(result.value).__name__}"
            ) from None

    body: Body = make(name, f, make_error, look_at_signals, user_data, write)
    return body


@functools.cache
def _compile_for_val(args: tuple[ValType, ...], returns: tuple[ValType, ...]) -> Any:
    """Return a function that makes the bodies for such parameters and results."""
    given = [
        f"Val({t}, values[{2 * i}])" if t is ValType.I64 else f"Val({t}, {t.name}(values[{2 * i}]))"
        for i, t in enumerate(args)
    ]
    statements = [
        f"results = [{', '.join(f'Val({t}, 0)' for t in returns)}]",
        f"f(plugin, [{', '.join(given)}], results, *user_data)",
        f"check_results(results, {len(returns)})",
    ]
    for i, t in enumerate(returns):
        form = f"write({i}, results[{i}])"
        if t in _SMALL:
            is_small = f"type(value := results[{i}].value) is int and {_SMALL[t]}"
            form = f"value if {is_small} else {form}"
        statements.append(f"values[{2 * i}] = {form}")
    return _compile_body(statements, ["user_data", "write"], wants_plugin=True)


_SMALL = {
    ValType.I32: f"0 <= value < {2**31}",
    ValType.I64: f"{-(2**63)} <= value < {2**63}",
}
"""Which numbers are given as they are."""


def _compile_body(
    statements: list[str], names: list[str], wants_plugin: bool
) -> Callable[..., Any]:
    """Compile a function that makes bodies.

    Nothing in its source comes from outside: it has numbers of parameters and results, and types,
    but no names of the application.
    """
    lines = "; ".join(statements)
    source = _SOURCE.format(
        statements=_WITH_PLUGIN.format(statements=lines) if wants_plugin else lines,
        names=", ".join(["name", "f", "make_error", "look_at_signals", *names]),
    )
    scope: dict[str, Any] = {
        "CurrentPlugin": CurrentPlugin,
        "EngineFailure": EngineFailure,
        "Val": Val,
        "ValType": ValType,
        "after_host_function": after_host_function,
        "check_results": _check_results,
        "check_tuple": _check_tuple,
        "monotonic": monotonic,
        **{t.name: read for t, read in READ.items()},
    }
    exec(compile(source, _FILE, "exec"), scope)
    make: Callable[..., Any] = scope["make"]
    return make


def _check_results(results: Any, count: int) -> None:
    if len(results) != count:
        raise TypeError(
            f"it should set {count} results, but left {len(results)} in the list of them"
        )


def _check_tuple(result: Any, count: int) -> Any:
    is_sequence = isinstance(result, (tuple, list))
    if is_sequence and len(result) == count:
        return result
    what = f"{len(result)} values" if is_sequence else type(result).__name__
    raise TypeError(f"it should return a tuple of {count} values, but returned {what}")
