"""`manifest.parse` of anything gives a Manifest or raises a ManifestError; neither shows a secret.

An accepted manifest equals what is parsed from itself, from its dict and from its JSON. Errors stay
short and can be pickled.
"""

from __future__ import annotations

import json
import math
import pickle
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any

from plugwasm.errors import ManifestError
from plugwasm.manifest import Manifest, MemoryOptions, WasmSource, parse

from .choices import Choices

COVERED = [
    "plugwasm._manifest.model",
    "plugwasm._manifest.plain",
    "plugwasm._manifest.parsing",
    "plugwasm._manifest.messages",
    "plugwasm._manifest.resolve",
    "plugwasm._manifest.files",
    "plugwasm._manifest.download",
    "tomllib",
]
SIZES = (0, 10)
SECRET = "s3cr3t-9f1c"
MOST_SHOWN = 5000

_FIELDS = tuple(
    dict.fromkeys(
        [
            *Manifest.__struct_fields__,
            *WasmSource.__struct_fields__,
            *MemoryOptions.__struct_fields__,
        ]
    )
)
_TEXTS = (
    "",
    "main",
    "extism:host/env",
    "m.wasm",
    "http://h/m.wasm",
    "https://user:pass@h:1/m?token=x#y",
    "http://",
    "ftp://h/",
    "AGFzbQEAAAA=",
    "AGFz bQEA\nAAA=",
    "not base64!",
    "0" * 64,
    "F" * 64,
    "0" * 63 + "g",
    "GET",
    "G E T",
    "X-Key",
    "ro:/tmp",
    "ro:",
    "*",
    "*.test",
    "a\r\nb",
    "\ud800",
    "\u2028é𝒳\0",
    "x" * 3000,
)
_NUMBERS = (
    0,
    1,
    -1,
    65536,
    65537,
    2**32,
    2**63 - 1,
    2**63,
    2**64 - 1,
    2**64,
    2**200,
    -(2**200),
    10**4000,
    0.5,
    math.inf,
    math.nan,
    -0.0,
)
_JSON = b"""{"wasm":[{"data":"AGFzbQEAAAA=","name":"main","hash":"%s"},{"url":"https://h/m","headers":{"X-Key":"v"},"method":"GET"}],
"memory":{"max_pages":4,"max_http_response_bytes":0,"max_var_bytes":1},"config":{"k":"v"},"allowed_hosts":["*.test"],
"allowed_paths":{"ro:/tmp":"/"},"timeout_ms":1000}""" % (b"0" * 64)
_TOML = b"""timeout_ms = 1_000
allowed_hosts = ['a', "b"]
[[wasm]]
path = "m.wasm"
[memory]
max_pages = 0x10
[config]
"a b" = '''
v'''
a.b = 1979-05-27T07:32:00Z
"""
_TOKENS = (
    *(field.encode() for field in _FIELDS),
    *b'{ } [ ] [[ ]] : , . = " \' """ # \\ \\u0000 \\ud800 null true NaN 1e999 0x 1_0'.split(b" "),
    *b"1979-05-27 \n \r \0 \xef\xbb\xbf \xff".split(b" "),
)
_TEXT, _BROKEN_TEXT, _OBJECT = range(3)
_DEEP = 240
"""Kinds from this number on are rare, since they cost most."""
SEEDS = [
    bytes([_TEXT]) + _JSON,
    bytes([_TEXT]) + _TOML,
    bytes([_BROKEN_TEXT, 0]) + bytes(range(64)),
    bytes([_BROKEN_TEXT, 1]) + bytes(range(64)),
    *(bytes([_OBJECT, shape]) + bytes(range(0, 200, 1 + shape)) for shape in range(6)),
    *(bytes([_DEEP, kind, 200]) for kind in range(12)),
]


def check(data: bytes) -> None:
    value, secret = build(data)
    try:
        manifest = parse(value)
    except ManifestError as error:
        shown = f"{error} {error!r} {error.__dict__} {error.__cause__!r}"
        assert len(shown) < MOST_SHOWN, f"an error of {len(shown)} characters"
        assert not secret or SECRET not in shown, "a secret in an error"
        copy = pickle.loads(pickle.dumps(error))
        assert (str(copy), copy.field) == (str(error), error.field)
        return
    assert type(manifest) is Manifest
    assert parse(manifest) == manifest
    assert not secret or SECRET not in repr(manifest) + str(manifest), "a secret in a repr"
    assert parse(manifest.to_dict()) == manifest
    try:
        text = manifest.to_json()
    except ManifestError:
        assert any(
            0xD800 <= ord(character) < 0xE000 for character in "".join(_texts(manifest.to_dict()))
        ), "refused without a reason"
        return
    assert parse(text) == manifest
    assert parse(text.encode()) == manifest


def _texts(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for pair in value.items() for part in pair for text in _texts(part)]
    return (
        [text for part in value for text in _texts(part)]
        if isinstance(value, list)
        else [value]
        if isinstance(value, str)
        else []
    )


def describe(data: bytes) -> str:
    value, _ = build(data)
    shown = repr(value)
    return (
        f"plugwasm.manifest.parse({shown})"
        if len(shown) < 20_000
        else f"parse of {shown[:200]} … {len(shown)} characters … {shown[-200:]}"
    )


def build(data: bytes) -> tuple[object, bool]:
    """Return what to parse, and whether it has `SECRET`, only at places that may not be shown."""
    choices = Choices(data)
    kind = choices.byte()
    if kind >= _DEEP:
        return _deep(choices), False
    if kind % 3 == _OBJECT:
        return _object(choices)
    if kind % 3 == _BROKEN_TEXT:
        return choices.splice(choices.pick((_JSON, _TOML)), _TOKENS), False
    content = choices.rest()
    return (
        (content, False)
        if len(content) % 2
        else (content.decode("utf-8", "surrogateescape"), False)
    )


def _object(choices: Choices) -> tuple[object, bool]:
    form = choices.below(6)
    plain: dict[Any, Any] = {
        "wasm": [_source(choices) for _ in range(choices.below(4))],
        "config": {"k": SECRET},
    }
    for _ in range(choices.below(6)):
        plain[_key(choices)] = _value(choices, 3)
    if choices.rarely(3):
        plain["memory"] = {choices.pick(MemoryOptions.__struct_fields__): choices.pick(_NUMBERS)}
    if form == 0:
        try:
            return json.dumps(plain, default=repr), True
        except (
            TypeError,
            ValueError,
        ):  # keys that JSON does not have, numbers with too many digits
            return plain, True
    if form == 1:
        return MappingProxyType(plain), True
    return plain, True


def _source(choices: Choices) -> object:
    if choices.rarely(8):
        return _value(choices, 2)
    source: dict[Any, Any] = {choices.pick(("path", "data", "url")): choices.pick(_TEXTS)}
    if choices.rarely(3):
        source = {"url": "https://h/m", "headers": {"X-Key": SECRET, choices.pick(_TEXTS): SECRET}}
    for _ in range(choices.below(4)):
        source[
            choices.pick(WasmSource.__struct_fields__) if choices.below(3) else _key(choices)
        ] = _value(choices, 2)
    return source


def _key(choices: Choices) -> object:
    return (
        choices.pick(_FIELDS)
        if choices.below(4)
        else choices.pick((*_TEXTS, 1, None, b"x", 0.5, (), True))
    )


def _value(choices: Choices, depth: int) -> object:
    match choices.below(12):
        case 0:
            return None
        case 1:
            return choices.pick((True, False))
        case 2:
            return choices.pick(_NUMBERS)
        case 3 | 4:
            return choices.pick(_TEXTS)
        case 5:
            return choices.take(choices.below(20)).decode("utf-8", "surrogateescape")
        case 6:
            return choices.pick((bytes, bytearray, memoryview))(choices.take(8))
        case 7:
            return PurePosixPath("a/b")
        case 8:
            return choices.pick((object(), object, {1}, 1j, print, ...))
        case 9 | 10 if depth:
            return choices.pick((list, tuple))(
                _value(choices, depth - 1) for _ in range(choices.below(4))
            )
        case _ if depth:
            return {_key(choices): _value(choices, depth - 1) for _ in range(choices.below(4))}
        case _:
            return choices.integer(9)


def _deep(choices: Choices) -> object:
    """Return a large document: deeply nested, or megabytes long."""
    kind, count = choices.byte() % 12, 2 ** (choices.byte() % 18) + choices.byte()
    part = choices.take(8) or b"a"
    match kind:
        case 0:
            return b'{"a":' * count
        case 1:
            return b'{"wasm":' + b"[" * count + b"]" * count + b"}"
        case 2:
            return b"a = " + b"[" * count
        case 3:
            return b"a." * count + b"a = 1"
        case 4:
            return b"[" + b".".join([b"a"] * count) + b"]"
        case 5:
            return part * count
        case 6:
            return b"{" + part * count
        case 7:
            return b'x = """' + part * count
        case 8:
            return b"".join(b"[a%d]\n" % index for index in range(min(count, 20_000)))
        case 9:
            return b'{"wasm":[' + b",".join([b'{"path":"m"}'] * min(count, 5000)) + b"]}"
        case 10:
            return {"wasm": [{"path": "m"}], "config": {str(index): "v" for index in range(count)}}
        case _:
            nested: object = 1
            for _ in range(min(count, 3000)):
                nested = [nested] if part[0] % 2 else {"a": nested}
            return {"wasm": nested} if part[0] % 3 else {"wasm": [{"path": "m"}], "config": nested}
