"""Modules, and entries of the cache of compiled code, for tests of that cache."""

from __future__ import annotations

from pathlib import Path
from zlib import crc32

from plugwasm._engine import Environment, ExportName, Module, Store
from plugwasm._runtime import code_cache, modules

ONE = b'(module (func (export "f") (result i32) (i32.const 1)))'
TWO = b'(module (func (export "f") (result i32) (i32.const 2)))'


def compiled(wasm: bytes = ONE, *, fuel: bool = False) -> Module:
    """Compile as in a process that has not seen the module yet."""
    modules._seen.clear()
    return modules.compile_module(wasm, modules.get_engine(fuel=fuel, pooled=False))


def answer(module: Module) -> int:
    environment = Environment()
    store = Store(module.engine, environment)
    if module.engine.fuel:
        store.set_fuel(10_000)
    function = store.instantiate(module, b"", environment.pending).function(ExportName("f"), 1)
    function.call(environment.pending)
    return function.values[0] & 0xFFFFFFFF


def run() -> int:
    return answer(compiled())


def entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix == ".code")


def put_code(code: bytes, wasm: bytes = ONE) -> None:
    """Store code for a module."""
    settings = modules._cached_as(modules.get_engine(pooled=False), False)
    code_cache.store(settings, wasm, code, bytes(code_cache.NOTE))


def put_bytes(name: object, size: int) -> None:
    """Store an entry that is no code of any module."""
    code_cache.store(b"settings", f"{name}".encode(), bytes(size), bytes(code_cache.NOTE))


def is_there(name: object) -> bool:
    entry = code_cache.load(b"settings", f"{name}".encode())
    if entry is not None:
        entry.close()
    return entry is not None


def _leb(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def put(entry: Path, content: bytes) -> None:
    """Write a new file, since the old one may still be mapped into this process."""
    new = entry.with_name("new")
    new.write_bytes(content)
    new.chmod(0o600)
    new.replace(entry)


def with_code_of(entry: bytes, other: bytes) -> bytes:
    """Return an entry for the module of one, with the code of the other, and a right checksum."""
    (code, *_), note = _parts(other)
    (_, wasm, settings), _ = _parts(entry)
    parts = [code, wasm, settings, note]
    content = b"".join([*parts, *(len(part).to_bytes(8, "little") for part in parts[:3])])
    return content + crc32(content).to_bytes(4, "little") + code_cache._MAGIC


def _parts(entry: bytes) -> tuple[list[bytes], bytes]:
    """Return code, module and settings, and the note."""
    trailer = entry[-code_cache._TRAILER :]
    note, sizes = trailer[: code_cache.NOTE], trailer[code_cache.NOTE :]
    parts, at = [], 0
    for i in range(3):
        size = int.from_bytes(sizes[8 * i : 8 * i + 8], "little")
        parts.append(entry[at : at + size])
        at += size
    return parts, note


def padded(module: bytes, payload: bytes) -> bytes:
    """Return the module with one more custom section."""
    return module + b"\0" + _leb(len(payload) + 2) + b"\1x" + payload
