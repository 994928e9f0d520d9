"""Dumps: the files written when a plugin's call is ended."""

from __future__ import annotations

import os
import stat
import weakref
from pathlib import Path
from typing import Any

import pytest

import plugwasm
from plugwasm import debugging
from plugwasm._debugging.code_map import CodeMap
from plugwasm._engine import may_use_signals, wat_to_wasm
from plugwasm._runtime.modules import get_engine
from tests.support.debugged_plugins import FAULTY, call_error
from tests.support.guests import LOOP, export, guest, manifest


class Core:
    """A core dump, parsed by the names in the format's description."""

    def __init__(self, path: str) -> None:
        self.wasm = Path(path).read_bytes()
        assert self.wasm[:8] == b"\0asm\1\0\0\0"
        self.at = 8
        self.memories: list[int] = []
        self.segments: list[tuple[int, int, bytes]] = []
        while self.at < len(self.wasm):
            section = self.byte()
            end = self.u32() + self.at
            if section == 0:
                getattr(self, self.text())()
            elif section == 5:
                self.memories = [self.byte() or self.u32() for _ in range(self.u32())]
            elif section == 11:
                self.segments = [self.segment() for _ in range(self.u32())]
            assert self.at == end

    def core(self) -> None:
        assert self.byte() == 0
        self.name = self.text()

    def coremodules(self) -> None:
        self.modules = [self.byte() or self.text() for _ in range(self.u32())]

    def coreinstances(self) -> None:
        self.instances = [
            self.byte() or (self.u32(), self.numbers(), self.numbers()) for _ in range(self.u32())
        ]

    def corestack(self) -> None:
        assert self.byte() == 0
        self.thread = self.text()
        self.frames = [
            self.byte() or (self.u32(), self.u32(), self.u32(), self.numbers(), self.numbers())
            for _ in range(self.u32())
        ]

    def segment(self) -> tuple[int, int, bytes]:
        assert self.byte() == 2
        memory = self.u32()
        assert self.byte() == 0x41
        offset = shift = 0
        while True:
            byte = self.byte()
            offset |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        if byte & 64:
            offset -= 1 << shift
        assert self.byte() == 0x0B
        length = self.u32()
        self.at += length
        return memory, offset, self.wasm[self.at - length : self.at]

    def memory(self, index: int) -> bytes:
        content = bytearray(self.memories[index] * 65536)
        for memory, offset, data in self.segments:
            if memory == index:
                content[offset : offset + len(data)] = data
        return bytes(content)

    def numbers(self) -> list[int]:
        return [self.u32() for _ in range(self.u32())]

    def byte(self) -> int:
        self.at += 1
        return self.wasm[self.at - 1]

    def u32(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def text(self) -> str:
        length = self.u32()
        self.at += length
        return self.wasm[self.at - length : self.at].decode()


SCRIBBLE = guest(
    export(
        "scribble",
        """(i32.store (i32.const 0) (i32.const 0x11223344)) (i32.store8 (i32.const 70000) (i32.const 7))
        (i32.store8 (i32.const 131071) (i32.const 9)) (call $deeper)""",
    )
    + export("wait", LOOP)
    + '(func (export "report") (result i32) (i32.const 3)) (func $deeper (nop) (unreachable))',
    memory='(memory (export "memory") 2)',
)


def test_trap_writes_dump_and_memories(tmp_path: Path) -> None:
    """A trap writes a core dump and the memories."""
    plugin = plugwasm.Plugin(SCRIBBLE, name="scribbler")
    with debugging.dump_on_trap(plugin, tmp_path / "dumps") as dumper:
        error = call_error(plugin, "scribble", "the input")
    (dump,) = dumper.dumps
    assert error.__notes__ == [f"core dump: {dump.core}"]
    core = Core(dump.core)
    assert (core.name, core.thread) == ("scribbler", "main")
    assert core.modules == ["extism:host/env", "main"]
    assert core.instances == [(0, [0], []), (1, [1], [])]
    code = CodeMap(wat_to_wasm(SCRIBBLE.encode()))
    offsets = [frame.offset for frame in debugging.explain(error, plugin)]
    functions = [code.function_at(offset) for offset in offsets if offset is not None]
    assert core.frames == [
        (1, f, at - code.body_start(f), [], [])
        for f, at in zip(functions, offsets, strict=True)
        if f is not None and at is not None
    ]
    assert [code.display_name(f) for _, f, *_ in core.frames] == ["deeper", "scribble"]
    # With signals the engine reports the last branch before the trap: here, the function's start.
    assert core.frames[0][2] == (0 if may_use_signals() else 2), "after the locals and a nop"
    memory = core.memory(1)
    assert memory[:4] == bytes.fromhex("44332211")
    assert (memory[70000], memory[131071]) == (7, 9)
    assert b"the input" in core.memory(0)
    heap, own = (Path(path).read_bytes() for path in dump.memories)
    assert own == memory
    assert heap == core.memory(0)
    assert {stat.S_IMODE(os.stat(path).st_mode) for path in (dump.core, *dump.memories)} == {0o600}


def test_a_core_dump_is_a_valid_module(tmp_path: Path) -> None:
    plugin = plugwasm.Plugin(SCRIBBLE)
    dumper = debugging.dump_on_trap(plugin, tmp_path)
    call_error(plugin, "scribble")
    count, pages, _ = (
        get_engine(pooled=False).compile(Path(dumper.dumps[0].core).read_bytes()).defined_memories
    )
    assert (count, pages) == (2, 4)


def test_deadline_writes_dump(tmp_path: Path) -> None:
    """A deadline writes a dump, and an error that the guest returns does not."""
    plugin = plugwasm.Plugin({**manifest(SCRIBBLE), "timeout_ms": 50})
    dumper = debugging.dump_on_trap(plugin, tmp_path)
    call_error(plugin, "report")
    assert dumper.dumps == []
    assert not list(tmp_path.iterdir())
    assert isinstance(call_error(plugin, "wait"), plugwasm.TimeoutError)
    assert len(dumper.dumps) == 1


def test_dumps_for_selected_errors(tmp_path: Path) -> None:
    """Dumps can be limited to some errors."""
    plugin = plugwasm.Plugin({**manifest(SCRIBBLE), "timeout_ms": 50})
    dumper = debugging.dump_on_trap(plugin, tmp_path, on=plugwasm.TrapError)
    assert not hasattr(call_error(plugin, "wait"), "__notes__")
    call_error(plugin, "scribble")
    assert len(dumper.dumps) == 1


def test_dumps_are_limited(tmp_path: Path) -> None:
    """A plugin that traps repeatedly does not fill the disk."""
    plugin = plugwasm.Plugin(SCRIBBLE)
    dumper = debugging.dump_on_trap(plugin, tmp_path, most=2)
    for _ in range(5):
        call_error(plugin, "scribble")
    assert len(dumper.dumps) == 2
    assert len(list(tmp_path.iterdir())) == 6, "a core dump and two memories each"


def test_close_ends_dumps(tmp_path: Path) -> None:
    """After close, no dumps are written, and another writer may begin."""
    plugin = plugwasm.Plugin(SCRIBBLE)
    first = debugging.dump_on_trap(plugin, tmp_path)
    with pytest.raises(ValueError, match="writes dumps already"):
        debugging.dump_on_trap(plugin, tmp_path)
    first.close()
    first.close()
    call_error(plugin, "scribble")
    second = debugging.dump_on_trap(plugin, tmp_path)
    call_error(plugin, "scribble")
    assert (len(first.dumps), len(second.dumps)) == (0, 1)


def test_unwritable_directory_keeps_error(tmp_path: Path) -> None:
    """If no dump can be written, the error is still raised."""
    (tmp_path / "file").write_text("in the way")
    plugin = plugwasm.Plugin(SCRIBBLE)
    dumper = debugging.dump_on_trap(plugin, tmp_path / "file")
    error = call_error(plugin, "scribble")
    assert isinstance(error, plugwasm.TrapError)
    assert error.__notes__[0].startswith("no core dump could be written: ")
    assert dumper.dumps == []


def test_half_a_dump_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from plugwasm._debugging import coredump

    created: list[str] = []

    def create(path: str, create: Any = coredump._create_private_file) -> Any:
        if created:
            raise OSError("disk full")
        created.append(path)
        return create(path)

    monkeypatch.setattr(coredump, "_create_private_file", create)
    plugin = plugwasm.Plugin(SCRIBBLE)
    debugging.dump_on_trap(plugin, tmp_path)
    assert call_error(plugin, "scribble").__notes__ == ["no core dump could be written: disk full"]
    assert not list(tmp_path.iterdir())


def test_trap_at_start_writes_dump(tmp_path: Path) -> None:
    """A trap while the plugin starts writes a dump."""
    text = '(module (memory (export "memory") 1) (func (export "_initialize") (i32.store8 (i32.const 5) (i32.const 6)) unreachable) (func (export "f")))'
    plugin = plugwasm.Plugin(text)
    dumper = debugging.dump_on_trap(plugin, tmp_path)
    call_error(plugin, "f")
    core = Core(dumper.dumps[0].core)
    assert core.memory(1)[5] == 6
    assert [frame[0] for frame in core.frames] == [1]


def test_shared_memory_is_dumped_once(tmp_path: Path) -> None:
    """A memory that modules share is written once."""
    library = '(module (memory (export "memory") 1) (func (export "fail") (i32.store8 (i32.const 3) (i32.const 4)) unreachable))'
    main = '(module (import "lib" "memory" (memory 1)) (import "lib" "fail" (func $fail)) (export "memory" (memory 0)) (func (export "f") (call $fail)))'
    plugin = plugwasm.Plugin(manifest(("main", main), ("lib", library)))
    dumper = debugging.dump_on_trap(plugin, tmp_path)
    call_error(plugin, "f")
    core = Core(dumper.dumps[0].core)
    assert core.modules == ["extism:host/env", "lib", "main"]
    assert [memories for _, memories, _ in core.instances] == [[0], [1], [1]]
    assert core.memory(1)[3] == 4
    assert [core.modules[instance] for instance, *_ in core.frames] == ["lib", "main"]


def test_plugin_name_cannot_leave_directory(tmp_path: Path) -> None:
    """A plugin's name cannot lead to another directory."""
    plugin = plugwasm.Plugin(SCRIBBLE, name="../../a/b\0c" + "x" * 300)
    dumper = debugging.dump_on_trap(plugin, tmp_path)
    call_error(plugin, "scribble")
    assert Path(dumper.dumps[0].core).parent == tmp_path


def test_only_local_plugins(tmp_path: Path) -> None:
    """Only a plugin of this process can be dumped or profiled."""
    with plugwasm.IsolatedPlugin(FAULTY) as plugin:
        for attempt in (
            lambda: debugging.dump_on_trap(plugin, tmp_path),
            lambda: debugging.profile(plugin),
        ):
            with pytest.raises(TypeError, match="runs in this process, got IsolatedPlugin"):
                attempt()


def test_dumps_do_not_keep_the_plugin(tmp_path: Path) -> None:
    plugin = plugwasm.Plugin(SCRIBBLE)
    with debugging.dump_on_trap(plugin, tmp_path):
        gone = weakref.ref(plugin)
        del plugin
        assert gone() is None
