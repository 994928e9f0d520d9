"""Modules for `guests`: functions that call every import of `extism:host/env`, WASI preview 1 and
host functions of several signatures, in any order and with any arguments.
"""

from __future__ import annotations

from typing import Annotated, Any

from plugwasm import CurrentPlugin, Function, Json, Val, ValType
from plugwasm._host.functions import USER_NAMESPACE, InferredFunction
from plugwasm._wasi.abi import SIGNATURES
from tests.support.guests import ENV, guest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .choices import Choices


class Planted(Exception):
    """The exception that host functions of this harness raise."""


def _look(plugin: CurrentPlugin, args: list[Val], results: list[Val]) -> None:
    memory = plugin.memory_at_offset(args[0])
    plugin.memory(memory)[:1] = b"x"[: len(memory)]
    results[0].value = plugin.alloc(args[0].value % 5000).offset


def _compute(plugin: CurrentPlugin, args: list[Val], results: list[Val]) -> None:
    results[0].value = args[2].value + args[3].value


def _raise(plugin: CurrentPlugin, args: list[Val], results: list[Val]) -> None:
    raise Planted


def _free(plugin: CurrentPlugin, args: list[Val], results: list[Val]) -> None:
    plugin.free(plugin.memory_at_offset(args[0]))


def _enter(plugin: CurrentPlugin, args: list[Val], results: list[Val]) -> None:
    context = plugin.host_context()
    if context is not None:
        context.call("good")


def _text(value: str) -> str:
    return value[::-1]


def _json(value: Annotated[Any, Json]) -> Annotated[Any, Json]:
    return {"given": value}


def _octets(plugin: CurrentPlugin, first: bytes, second: int, third: float) -> tuple[bytes, int]:
    return first * 2, second


I32, I64, F32, F64 = ValType.I32, ValType.I64, ValType.F32, ValType.F64
FUNCTIONS = [
    Function(None, "look", [I64], [I64], _look),
    Function(None, "compute", [I32, I64, F32, F64], [F64], _compute),
    Function("other", "raise", [], [], _raise),
    Function(None, "free_it", [I64], [], _free),
    Function(None, "enter", [], [], _enter),
    *(InferredFunction("inferred", f.__name__, f, ()) for f in (_text, _json, _octets)),
]
_KINDS = {I32: "i32", I64: "i64", F32: "f32", F64: "f64"}

# The parameters of WASI: f descriptor, p path and n its length, o where a result goes, b buffer and
# z its length, v vectors and c their number, s subscriptions, F flags, R rights, T time, O offset,
# K clock, x anything.
_TABLE = """
args_get/oo args_sizes_get/oo environ_get/oo environ_sizes_get/oo random_get/bz sched_yield/
clock_res_get/Ko clock_time_get/KTo poll_oneoff/sbco proc_exit/x proc_raise/x fd_advise/fOOF
fd_allocate/fOO fd_close/f fd_datasync/f fd_sync/f fd_tell/fo fd_seek/fOFo fd_fdstat_get/fo
fd_fdstat_set_flags/fF fd_fdstat_set_rights/fRR fd_renumber/ff fd_readdir/fbzOo fd_filestat_get/fo
fd_filestat_set_size/fO fd_filestat_set_times/fTTF fd_prestat_get/fo fd_prestat_dir_name/foz
fd_read/fvco fd_write/fvco fd_pread/fvcOo fd_pwrite/fvcOo path_create_directory/fpn
path_remove_directory/fpn path_unlink_file/fpn path_rename/fpnfpn path_filestat_get/fFpno
path_filestat_set_times/fFpnTTF path_link/fFpnfpn path_symlink/pnfpn path_open/fFpnFRRFo
path_readlink/fpnbzo sock_accept/fFo sock_recv/fvcFoo sock_send/fvcFo sock_shutdown/fF
"""
_WASI = {name: kinds for name, _, kinds in (word.partition("/") for word in _TABLE.split())}
_PATH_CALLS = tuple(name for name in _WASI if name.startswith("path_"))
assert {name: len(kinds) for name, kinds in _WASI.items()} == {
    name: len(types) for name, types in SIGNATURES.items()
}

_PATHS = (
    *(
        b"a",
        b"dir",
        b"dir/b",
        b"new",
        b"new/",
        b"dir/new",
        b"a/",
        b".",
        b"..",
        b"/",
        b"",
        b"dir/..",
        b"dir/../..",
        b"x" * 256,
    ),
    *(
        b"link",
        b"link/",
        b"link/secret",
        b"absolute",
        b"absolute/secret",
        b"loop",
        b"../outside/secret",
        b"../../outside/secret",
        b"../ro/a",
    ),
    *(
        b"dir/../../outside/secret",
        b"/etc/passwd",
        b"nul\0",
        b"\xff",
        b"./a",
        b"dir//b",
        b"dangling",
        b"up/../outside/secret",
        b"up",
    ),
)
_PATHS_AT, _VECTORS_AT, _SUBSCRIPTIONS_AT, _RESULTS_AT, _BUFFER_AT, _PAGE = (
    0x8000,
    0xB000,
    0xB800,
    0xC000,
    0xD000,
    0x10000,
)
_PATH_PLACES = [
    (_PATHS_AT + sum(map(len, _PATHS[:index])), len(path)) for index, path in enumerate(_PATHS)
]
_VECTORS = b"".join(
    offset.to_bytes(4, "little") + length.to_bytes(4, "little")
    for offset, length in (
        (_BUFFER_AT, 100),
        (_BUFFER_AT, 0),
        (_PAGE - 1, 1),
        (_BUFFER_AT, 4096),
        (_PAGE, 1),
        (0, 2**32 - 1),
        (2**32 - 1, 2),
    )
)
_SUBSCRIPTIONS = b"".join(
    (7).to_bytes(8, "little")
    + bytes([kind, 0, 0, 0, 0, 0, 0, 0])
    + what.to_bytes(8, "little")
    + when.to_bytes(8, "little")
    + bytes(8 + flags)
    + bytes(8 - flags)
    for kind, what, when, flags in (
        (0, 1, 1000, 0),
        (0, 0, 0, 0),
        (1, 3, 0, 0),
        (2, 1, 0, 0),
        (0, 1, 2**40, 0),
        (0, 7, 0, 0),
        (3, 0, 0, 0),
    )
)
_I64 = (
    0,
    1,
    7,
    31,
    32,
    33,
    511,
    512,
    513,
    4096,
    65535,
    65536,
    131072,
    2**20,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**32,
    2**32 + 512,
    2**40,
)
_I64 += (2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1)
_I32 = (0, 1, 2, 3, 8, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 16, 2**32 - 1)
_TEXTS = (
    *(
        "k",
        "key",
        "empty",
        "a value",
        "\0",
        "é𝒳",
        "line\nline",
        "x" * 300,
        "[1, {}]",
        "[" * 200,
        '"\\ud800"',
        "1" * 60,
        "{}",
        "null",
    ),
    *(
        '{"url":"http://a.test/"}',
        '{"url":"http://a.test/x","method":"POST","headers":{"a":"b"}}',
        '{"url":"http://127.0.0.1/"}',
        '{"url":1}',
    ),
    *(
        '{"url":"http://a.test:99999/"}',
        '{"url":"https://b.test/","nope":1}',
        '{"url":"http://user@a.test/"}',
        '{"url":',
    ),
)
_HANDLES = 6


# ---- the generator -------------------------------------------------------------------------------


def generate_module(choices: Choices) -> tuple[str, bool]:
    """Return the text of a module, and whether its start does anything that its other functions
    do."""
    starts_badly = choices.rarely(12)
    functions = [
        f'(func $f{index} (export "f{index}") (result i32) {_body(choices)}'
        f" (i32.const {choices.pick((0, 0, 0, 1, -1))}))"
        for index in range(3)
    ]
    if starts_badly:
        functions.append(f'(func (export "_initialize") {_body(choices)})')
    handles = "".join(f"(global $h{index} (mut i64) (i64.const 0))" for index in range(_HANDLES))
    body = "\n".join(['(func (export "good") (call $echo))', handles, *functions])
    wasi = [
        f'(import "wasi_snapshot_preview1" "{name}" (func $wasi_{name}'
        f" {_signature(types, () if name == 'proc_exit' else ('i32',))}))"
        for name, types in SIGNATURES.items()
        if f"$wasi_{name} " in body or f"$wasi_{name})" in body
    ]
    host = [
        f'(import "{function.namespace or USER_NAMESPACE}" "{function.name}"'
        f" (func $host_{function.name} {_function_signature(function)}))"
        for function in FUNCTIONS
        if f"$host_{function.name} " in body or f"$host_{function.name})" in body
    ]
    placed = (
        (_PATHS_AT, b"".join(_PATHS)),
        (_VECTORS_AT, _VECTORS),
        (_SUBSCRIPTIONS_AT, _SUBSCRIPTIONS),
    )
    data = "".join(f'(data (i32.const {at}) "{_escaped(content)}")' for at, content in placed)
    return guest(body, *wasi, *host, memory=f'(memory (export "memory") 1 80) {data}'), starts_badly


def _escaped(content: bytes) -> str:
    return "".join(f"\\{byte:02x}" for byte in content)


def _signature(params: tuple[str, ...] | list[str], results: tuple[str, ...] | list[str]) -> str:
    return f"(param {' '.join(params)}) (result {' '.join(results)})"


def _function_signature(function: Function) -> str:
    return _signature([_KINDS[t] for t in function.args], [_KINDS[t] for t in function.returns])


def _body(choices: Choices) -> str:
    return "\n  ".join(_statement(choices) for _ in range(choices.below(24)))


def _statement(choices: Choices) -> str:
    match choices.below(16):
        case 0 | 1 | 2 | 3 | 4 | 5:
            name = choices.pick(tuple(ENV))
            params = [
                "i32" if word == "i32" else "i64"
                for word in ENV[name].partition("(param ")[2].partition(")")[0].split()
            ]
            result = ENV[name].partition("(result ")[2].partition(")")[0]
            return _kept(
                choices,
                f"(call ${name} {' '.join(_value(choices, kind) for kind in params)})",
                [result] if result else [],
            )
        case 6 | 7 | 8 | 9 | 10:
            name = choices.pick(_PATH_CALLS if choices.below(2) else tuple(SIGNATURES))
            if name == "proc_exit" and choices.below(4):
                name = "path_open"
            call = f"(call $wasi_{name} {_wasi_values(choices, name)})"
            return call if name == "proc_exit" else f"(drop {call})"
        case 11 | 12:
            function = choices.pick(FUNCTIONS)
            values = " ".join(_value(choices, _KINDS[t]) for t in function.args)
            return _kept(
                choices,
                f"(call $host_{function.name} {values})",
                [_KINDS[t] for t in function.returns],
            )
        case 13:
            made = choices.pick(
                ("(call $alloc (i64.const 64))", "(call $alloc (i64.const 5000))", "<<key>>")
            )
            return f"(global.set $h{choices.below(_HANDLES)} {made})"
        case 14:
            start = choices.pick((0, 480, 496, 512, 65536, 2**32 - 16))
            return "\n  ".join(
                f"(call $store_u64 (i64.const {start + 8 * step}) {_value(choices, 'i64')})"
                for step in range(4)
            )
        case _:
            return _control(choices)


def _control(choices: Choices) -> str:
    match choices.below(24):
        case 0:
            return "unreachable"
        case 1:
            return "(loop $forever (br $forever))"
        case 2:
            return f"(drop (call $f{choices.below(3)}))"
        case 3:
            return "(drop (i32.load (i32.const -4)))"
        case 4:
            return f"(return (i32.const {choices.pick((0, 1, -1, 7))}))"
        case _:
            return f"(drop (memory.grow (i32.const {choices.pick((0, 1, 60, 70, 65536))})))"


def _kept(choices: Choices, call: str, results: list[str]) -> str:
    if results == ["i64"]:
        return f"(global.set $h{choices.below(_HANDLES)} {call})"
    return f"{call} {' '.join('drop' for _ in results)}"


def _value(choices: Choices, kind: str) -> str:
    if kind in ("f32", "f64"):
        floats = ("0", "-0", "1.5", "inf", "-inf", "nan", "nan:0x1", "1e30")
        return f"({kind}.const {choices.pick(floats)})"
    if kind == "i32":
        return f"(i32.const {choices.pick(_I32)})"
    match choices.below(10):
        case 0 | 1 | 2 | 3:
            return f"(global.get $h{choices.below(_HANDLES)})"
        case 4:
            handle = choices.below(_HANDLES)
            shift = choices.pick((1, -1, 8, 32, -32, 2**32))
            return f"(i64.add (global.get $h{handle}) (i64.const {shift}))"
        case 5 | 6:
            return f"<<{choices.pick(_TEXTS)}>>"
        case 7:
            return choices.pick(
                (
                    "(call $input_offset)",
                    "(call $input_length)",
                    "(call $output_offset)",
                    "(call $error_get)",
                    "(call $memory_bytes)",
                )
            )
        case 8:
            return f"(i64.const {choices.integer(8)})"
        case _:
            return f"(i64.const {choices.pick(_I64)})"


def _wasi_values(choices: Choices, name: str) -> str:
    values = []
    length = 0
    for kind, type_ in zip(_WASI[name], SIGNATURES[name], strict=True):
        if choices.rarely(32):
            value = choices.pick(_I32 if type_ == "i32" else _I64)
        elif kind == "f":
            value = choices.pick(
                (3, 3, 4, 4, 5, 6) if name in _PATH_CALLS else (3, 4, 5, 6, 7, 8, 0, 1, 2, 70)
            )
        elif kind == "p":
            value, length = choices.pick(_PATH_PLACES)
        elif kind == "n":
            value = length
        elif kind == "F":
            value = choices.pick((0, 1, 1, 2, 4, 8, 9, 5, 16))
        elif kind == "R":
            value = choices.pick((2**30 - 1, 2**30 - 1, 2, 64, 66, 0, 2**64 - 1))
        elif kind in "TO":
            value = choices.pick(
                (0, 0, 1, 5, 100, 4096, 2**20, 2**31, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
            )
        elif kind == "z":
            value = choices.pick((0, 1, 7, 24, 100, 4096))
        elif kind in "cK":
            value = choices.pick((1, 1, 0, 2, 3, 7, 1025))
        else:
            places = {
                "o": (_RESULTS_AT, _RESULTS_AT + 1, _PAGE - 4),
                "b": (_BUFFER_AT, _PAGE - 7),
                "x": _I32,
            }
            starts = {
                "v": [_VECTORS_AT + 8 * n for n in range(7)],
                "s": [_SUBSCRIPTIONS_AT + 48 * n for n in range(7)],
            }
            value = choices.pick(places.get(kind) or starts[kind])
        values.append(f"({type_}.const {value})")
    return " ".join(values)
