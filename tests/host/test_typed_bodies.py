"""Bodies of typed host functions are made for each signature, and do for all of them the same."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugwasm import (
    ClosedError,
    CurrentPlugin,
    Function,
    HostFunctionError,
    Limits,
    OutOfMemoryError,
    Plugin,
    Val,
    ValType,
    host_fn,
)
from plugwasm._host.annotations import SHORT_TEXT, make_decoder, make_encoder
from plugwasm._host.kernel import FuelledKernel, Kernel
from plugwasm._host.typed_bodies import make_typed_body, make_val_body
from plugwasm._host.wasm_values import READ, WRITE
from tests.support.kernel_rig import Rig

TEXT = st.text(st.characters(codec="utf-8"), max_size=40) | st.just("é" * SHORT_TEXT)
VALUES: dict[Any, st.SearchStrategy[Any]] = {
    str: TEXT,
    bytes: st.binary(max_size=70) | st.just(bytes(SHORT_TEXT)),
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False),
    bool: st.booleans(),
    list[int]: st.lists(st.integers(0, 9), max_size=5),
}
KINDS = st.lists(st.sampled_from(list(VALUES)), max_size=4)


RIG = Rig(2)


class RigGuest:
    """A guest with the kernel of a rig, and without limits of its own."""

    cancelled = False
    deadline = float("inf")
    limits = Limits()

    def __init__(self, rig: Rig) -> None:
        self.kernel = rig.kernel

    def read_block(self, handle: int, what: str) -> bytes:
        assert handle == 0, what
        return b""

    def new_block(self, data: bytes) -> int:
        handle = self.kernel.new_block(data)
        assert handle or not data
        return handle


def raw_of(guest: RigGuest, kind: Any, value: Any) -> int:
    if kind in (int, bool):
        return int(value)
    if kind is float:
        return int.from_bytes(struct.pack("<d", value), "little", signed=True)
    data = value if kind is bytes else value.encode() if kind is str else json.dumps(value).encode()
    return guest.kernel.new_block(data)


def value_of(guest: RigGuest, kind: Any, raw: int) -> Any:
    if kind is int:
        return raw
    if kind is bool:
        return bool(raw)
    if kind is float:
        return struct.unpack("<d", struct.pack("<q", raw))[0]
    block = guest.kernel.block(raw)
    data = b"" if block is None else block.tobytes()
    return data if kind is bytes else data.decode() if kind is str else json.loads(data)


@given(data=st.data(), kinds=KINDS, results=KINDS, flags=st.tuples(*[st.booleans()] * 3))
@settings(max_examples=200, deadline=None)
def test_any_signature(
    data: st.DataObject, kinds: list[Any], results: list[Any], flags: tuple[bool, bool, bool]
) -> None:
    """The function gets what the guest passed, with the plugin first and the user data last, and
    the guest gets what it returned.
    """
    is_tuple, wants_plugin, fuelled = flags
    if not is_tuple:
        results = results[:1]
    rig = Rig(8)
    guest = RigGuest(rig)
    if fuelled:
        guest.kernel = FuelledKernel(rig.instance, rig.owner.pending)
    arguments = [data.draw(VALUES[kind]) for kind in kinds]
    returned = [data.draw(VALUES[kind]) for kind in results]
    got: list[Any] = []

    def f(*given: Any) -> Any:
        got.extend(given)
        return tuple(returned) if is_tuple else returned[0] if returned else None

    body = make_typed_body(
        "f",
        f,
        [make_decoder("f", "p", kind)[1] for kind in kinds],
        [make_encoder("f", kind)[1] for kind in results],
        is_tuple=is_tuple,
        wants_plugin=wants_plugin,
        user_data=(data, 5),
        make_error=lambda name, exception, _: exception,
        look_at_signals=lambda *_: None,
    )
    values: list[Any] = [0] * 2 * max(len(kinds), len(results), 1)
    for i, (kind, value) in enumerate(zip(kinds, arguments, strict=True)):
        values[2 * i] = raw_of(guest, kind, value)
    body(guest, 0, values)  # type: ignore[arg-type]
    if wants_plugin:
        assert isinstance(got.pop(0), CurrentPlugin)
    assert got == [*arguments, data, 5]
    for i, (kind, value) in enumerate(zip(results, returned, strict=True)):
        assert value_of(guest, kind, values[2 * i]) == value
        assert type(value_of(guest, kind, values[2 * i])) is type(value)


NUMBERS: dict[ValType, st.SearchStrategy[Any]] = {
    ValType.I32: st.integers(-(2**31), 2**32 - 1) | st.booleans(),
    ValType.I64: st.integers(-(2**63), 2**64 - 1) | st.booleans(),
    ValType.F32: st.floats(width=32) | st.integers(-9, 9),
    ValType.F64: st.floats() | st.integers(-9, 9),
}
TYPES = st.lists(st.sampled_from(list(NUMBERS)), max_size=4)


@given(data=st.data(), args=TYPES, returns=TYPES)
@settings(max_examples=200, deadline=None)
def test_any_signature_of_vals(
    data: st.DataObject, args: list[ValType], returns: list[ValType]
) -> None:
    """The function gets its parameters as `Val`, and the guest the same bits as from `WRITE`."""
    raws = [data.draw(st.integers(-(2**63), 2**63 - 1)) for _ in args]
    answers = [data.draw(NUMBERS[t]) for t in returns]
    seen: list[CurrentPlugin] = []

    def f(plugin: CurrentPlugin, inputs: list[Val], outputs: list[Val], *rest: Any) -> None:
        seen.append(plugin)
        assert [value.t for value in inputs] == args
        assert rest == (5, "data")
        for value, raw in zip(inputs, raws, strict=True):
            wanted = READ[value.t](raw)
            assert value.value == wanted or wanted != wanted
        assert [(value.t, value.value) for value in outputs] == [(t, 0) for t in returns]
        for output, answer in zip(outputs, answers, strict=True):
            output.value = answer

    body = make_val_body(
        "f",
        f,
        args,
        returns,
        (5, "data"),
        make_error=lambda name, exception, _: exception,
        look_at_signals=lambda *_: None,
    )
    values: list[Any] = [0] * 2 * max(len(args), len(returns), 1)
    values[: 2 * len(raws) : 2] = raws
    body(RigGuest(RIG), 0, values)  # type: ignore[arg-type]
    for i, (t, answer) in enumerate(zip(returns, answers, strict=True)):
        assert (values[2 * i] - WRITE[t](answer)) % 2**64 == 0
    with pytest.raises(ClosedError):
        seen[0].host_context()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda outputs: outputs.clear(), "it should set 1 results, but left 0"),
        (lambda outputs: outputs.append(outputs[0]), "it should set 1 results, but left 2"),
        (lambda outputs: setattr(outputs[0], "value", "5"), "a number for I64, but is str"),
        (lambda outputs: setattr(outputs[0], "value", None), "a number for I64, but is NoneType"),
        (lambda outputs: setattr(outputs[0], "value", 2**64), "does not fit into 64 bits"),
        (lambda outputs: setattr(outputs[0], "value", -(2**63) - 1), "does not fit into 64 bits"),
    ],
)
def test_wrong_val_is_named(change: Any, words: str) -> None:
    """A result that is no number, or too many or too few of them, is refused."""

    def f(plugin: CurrentPlugin, inputs: list[Val], outputs: list[Val]) -> None:
        change(outputs)

    function = Function(None, "f", [ValType.I64], [ValType.I64], f)
    with pytest.raises(HostFunctionError, match=words):
        Plugin(WAT.encode(), functions=[function]).call("run")


WAT = """(module (import "extism:host/user" "f" (func $f (param i64) (result i64)))
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (func (export "run") (result i32) (drop (call $f (call $alloc (i64.const 8)))) (i32.const 0)))"""


def plugin_returning(kind: Any, value: Any, **options: Any) -> Plugin:
    def f(given: bytes) -> kind:
        return value

    f.__annotations__.update({"given": bytes, "return": kind})
    return Plugin(WAT.encode(), functions=[host_fn(register=False)(f)], **options)


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        (str, b"bytes", "it should return str, but returned bytes"),
        (str, None, "it should return str, but returned NoneType"),
        (str, "\ud800", "surrogates not allowed"),
        (bytes, "text", "it should return bytes, but returned str"),
        (int, "5", "it should return int, but returned str"),
        (int, 2**64, "does not fit into 64 bits"),
        (int, -(2**63) - 1, "does not fit into 64 bits"),
        (tuple[int], 5, "it should return a tuple of 1 values, but returned int"),
        (tuple[int], (1, 2), "it should return a tuple of 1 values, but returned 2 values"),
    ],
)
def test_wrong_result_is_named(kind: Any, value: Any, words: str) -> None:
    """What a function returns in place of its type is refused, with the words for it."""
    with pytest.raises(HostFunctionError, match=words):
        plugin_returning(kind, value).call("run")


class Word(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (str, ""),
        (str, Word("of a subclass")),
        (bytes, b""),
        (bytes, bytearray(b"other")),
        (bytes, memoryview(b"view")),
        (int, True),
        (int, 2**63),
        (int, 2**64 - 1),
        (int, -(2**63)),
    ],
)
def test_unusual_results_are_given(kind: Any, value: Any) -> None:
    """Empty results, values of subclasses and numbers at the edges are given as any others."""
    plugin_returning(kind, value).call("run")


@pytest.mark.parametrize("value", ["x" * 2**21, b"x" * 2**21])
def test_result_without_room(value: Any) -> None:
    """A result for which the plugin has no room ends the call, and says how much that was."""
    plugin = plugin_returning(type(value), value, limits=Limits(memory_bytes=2**20))
    with pytest.raises((HostFunctionError, OutOfMemoryError), match="no room for 2097152 bytes"):
        plugin.call("run")


def test_no_wasm_for_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function of text enters Wasm neither for its parameter nor for its result."""

    def f(given: str) -> str:
        return given + "!"

    plugin = Plugin(WAT.encode(), functions=[host_fn(register=False)(f)])
    plugin.call("run")
    monkeypatch.setattr(Kernel, "new_block_of_kernel", lambda *_: pytest.fail("it entered Wasm"))
    plugin.call("run")
