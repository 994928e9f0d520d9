"""A hostile guest written in Python: a plugin that makes any WASI call it is asked to."""

from __future__ import annotations

import itertools
import os
import stat
import struct
from pathlib import Path

import plugwasm
from plugwasm import Plugin
from plugwasm._wasi import abi
from tests.support.guests import export, guest, manifest, number
from tests.support.wasi_guest import Guest

MASK = 2**64 - 1


def _call(name: str, params: tuple[str, ...]) -> str:
    loads = [f"(call $input_load_u64 (i64.const {8 * i}))" for i in range(len(params))]
    arguments = [
        load if param == "i64" else f"(i32.wrap_i64 {load})"
        for load, param in zip(loads, params, strict=True)
    ]
    return f"(call $wasi_{name} {' '.join(arguments)})"


DRIVER = guest(
    "".join(
        export(
            name,
            _call(name, params)
            if name == "proc_exit"
            else f"(call $answer (i64.extend_i32_u {_call(name, params)}))",
        )
        for name, params in abi.SIGNATURES.items()
    )
    + """
    (func (export "peek")
      (call $give (call $put (i32.wrap_i64 (call $input_load_u64 (i64.const 0))) (i32.wrap_i64 (call $input_load_u64 (i64.const 8))))))
    (func (export "poke") (local $i i64)
      (local.set $i (i64.const 8))
      (block $done (loop $next
        (br_if $done (i64.ge_u (local.get $i) (call $input_length)))
        (i32.store8 (i32.add (i32.wrap_i64 (call $input_load_u64 (i64.const 0))) (i32.wrap_i64 (i64.sub (local.get $i) (i64.const 8))))
                    (call $input_load_u8 (local.get $i)))
        (local.set $i (i64.add (local.get $i) (i64.const 1)))
        (br $next))))
    (func (export "spin") (loop $forever (br $forever)))
    (func (export "trap") unreachable)""",
    *(
        f'(import "wasi_snapshot_preview1" "{name}" (func $wasi_{name} (param {" ".join(params)}) '
        f"{'' if name == 'proc_exit' else '(result i32)'}))"
        for name, params in abi.SIGNATURES.items()
    ),
    memory='(memory (export "memory") 17)',
)


class PluginMemory:
    def __init__(self, plugin: Plugin) -> None:
        self.plugin = plugin

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self.plugin.call("peek", struct.pack("<QQ", offset, length)))

    def write(self, offset: int, data: bytes) -> None:
        self.plugin.call("poke", struct.pack("<Q", offset) + data)

    def u32(self, offset: int) -> int:
        return int.from_bytes(self.read(offset, 4), "little")

    def u64(self, offset: int) -> int:
        return int.from_bytes(self.read(offset, 8), "little")


class Attacker(Guest):
    """Python's access to a plugin that makes WASI calls. Its granted directories are descriptors
    3, 4, …."""

    def __init__(
        self, *granted: str | Path, compiled: plugwasm.CompiledPlugin | None = None
    ) -> None:
        self.plugin = Plugin(compiled or compile_for(*granted))
        self.memory = PluginMemory(self.plugin)  # type: ignore[assignment]

    def call(self, name: str, *args: int) -> int:
        return number(
            self.plugin.call(name, struct.pack(f"<{len(args)}Q", *(arg & MASK for arg in args)))
        )


def compile_for(*granted: str | Path) -> plugwasm.CompiledPlugin:
    paths = {str(path): f"/{i}" for i, path in enumerate(granted)}
    return plugwasm.CompiledPlugin(manifest(DRIVER, allowed_paths=paths), wasi=True)


def state(*roots: Path) -> dict[str, object]:
    """Return all that a change would affect: names and contents, and each name's inode, links,
    mode, owner and times."""
    seen: dict[str, object] = {}
    for path in itertools.chain.from_iterable([root, *root.rglob("*")] for root in roots):
        status = path.lstat()
        content: object = None
        if stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        elif stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)
        kept = (
            status.st_ino,
            status.st_nlink,
            status.st_mode,
            status.st_uid,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
        )
        seen[str(path)] = (kept, content)
    return seen


def plant(root: Path) -> Path:
    """Create a small tree of files, directories and links to them."""
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "file").write_bytes(b"content")
    (root / "sub" / "inner").write_bytes(b"inner")
    (root / "empty").mkdir()
    (root / "link").symlink_to("file")
    (root / "folder").symlink_to("sub")
    (root / "dangling").symlink_to("nowhere")
    (root / "twin").hardlink_to(root / "sub" / "inner")
    return root
