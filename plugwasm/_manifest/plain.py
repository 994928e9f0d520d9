"""From a manifest as an application writes it to the built-in types that msgspec converts.

`data` may be base64 text, paths may be ``os.PathLike``, and fields with a default may be null.
"""

from __future__ import annotations

import binascii
import os
from collections.abc import Mapping

import msgspec

from .messages import field_error, json_type, quote
from .validation import is_encodable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["plain_manifest"]


def plain_manifest(value: object, structs: tuple[type[msgspec.Struct], ...]) -> object:
    """Return a value in the built-in types that msgspec converts; wrong types are left for msgspec
    to refuse.

    `structs` are the types of a manifest and its parts, which are taken apart.
    """
    plain = _fields(value, structs)
    if plain is None:
        return value
    _drop_null(plain, "memory", "config")
    if isinstance(plain.get("wasm"), (str, bytes, os.PathLike, Mapping, *structs)):
        from .mistakes import describe_type, suggest_source

        one = plain["wasm"]
        item = "{…}" if isinstance(one, (Mapping, *structs)) else suggest_source(one)
        raise field_error("wasm", f"expected a list, got {describe_type(one)}; write [{item}]")
    if isinstance(plain.get("wasm"), (list, tuple)):
        plain["wasm"] = [
            _plain_source(source, f"wasm[{index}]", structs)
            for index, source in enumerate(plain["wasm"])
        ]
    if "memory" in plain and (memory := _fields(plain["memory"], structs)) is not None:
        plain["memory"] = memory
    for field in ("config", "allowed_paths"):
        if isinstance(plain.get(field), Mapping):
            plain[field] = _strings(plain[field], field, paths=field == "allowed_paths")
    return plain


def _plain_source(value: object, where: str, structs: tuple[type[msgspec.Struct], ...]) -> object:
    plain = _fields(value, structs)
    if isinstance(value, (str, bytes, os.PathLike)):
        from .mistakes import describe_type, suggest_source

        raise field_error(
            where, f"expected an object, got {describe_type(value)}; write {suggest_source(value)}"
        )
    if plain is None:
        return value
    _drop_null(plain, "headers")
    if isinstance(plain.get("path"), os.PathLike):
        plain["path"] = os.fsdecode(plain["path"])
    data = plain.get("data")
    if isinstance(data, str):
        try:
            plain["data"] = binascii.a2b_base64("".join(data.split()), strict_mode=True)
        except ValueError:
            raise field_error(
                f"{where}.data", f"expected base64 text, got {len(data)} characters that are not"
            ) from None
    elif isinstance(data, (bytearray, memoryview)):
        plain["data"] = bytes(data)
    if isinstance(plain.get("headers"), Mapping):
        plain["headers"] = _strings(plain["headers"], f"{where}.headers")
    return plain


def _drop_null(plain: dict[Any, Any], *fields: str) -> None:
    for field in fields:
        if plain.get(field, "") is None:
            del plain[field]


def _strings(value: Mapping[Any, Any], where: str, *, paths: bool = False) -> dict[str, str]:
    plain: dict[str, str] = {}
    for key, item in value.items():
        if paths:
            key, item = (
                os.fsdecode(part) if isinstance(part, os.PathLike) else part for part in (key, item)
            )
        if not isinstance(key, str):
            hint = f'; write "{key}"' if isinstance(key, (int, float)) and abs(key) < 2**64 else ""
            raise field_error(
                where, f"expected keys that are strings, got {json_type(key)} as a key{hint}"
            )
        if not isinstance(item, str):
            raise field_error(f"{where}[{quote(key)}]", f"expected a string, got {json_type(item)}")
        if not paths and not (is_encodable(key) and is_encodable(item)):
            raise field_error(
                f"{where}[{quote(key)}]",
                "expected text that can be encoded as UTF-8, got lone surrogates",
            )
        plain[key] = item
    return plain


def _fields(value: object, structs: tuple[type[msgspec.Struct], ...]) -> dict[Any, Any] | None:
    """Return the fields of a mapping or of one of `structs`; None for anything else."""
    if isinstance(value, structs):
        return msgspec.structs.asdict(value)
    return dict(value) if isinstance(value, Mapping) else None
