"""Debugging guests: backtraces with source lines, dumps, profiles."""

from __future__ import annotations

import json
import os
import pickle
import random
import stat
import sys
import time
import weakref
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import plugwasm
from plugwasm import debugging
from plugwasm._debugging.backtrace import Frame
from plugwasm._debugging.code_map import CodeMap
from plugwasm._engine import wat_to_wasm
from plugwasm._runtime.modules import get_engine
from tests.support.guests import LOOP, export, guest, manifest
from tests.support.paths import PLUGINS, ROOT
from tests.support.threads import InThread
from tests.support.waiting import soon

FAULTY = ROOT / "examples" / "faulty.wasm"
SHOP = PLUGINS / "debug" / "shop.wasm"
COUNT = """(func $count (param $n i32) (loop $next
    (br_if $next (local.tee $n (i32.sub (local.get $n) (i32.const 1))))))"""
SLOW_NUMBERS = " ".join(["99991"] * 500)


def failure(plugin: plugwasm.Plugin, function: str, data: str = "") -> plugwasm.CallError:
    with pytest.raises(plugwasm.CallError) as caught:
        plugin.call(function, data)
    return caught.value


def places(frames: debugging.Backtrace) -> list[tuple[str, str | None, int | None, bool]]:
    return [(frame.function, frame.file, frame.line, frame.inlined) for frame in frames]


def line_of(source: Path, text: str) -> int:
    (line,) = [i for i, line in enumerate(source.read_text().splitlines(), 1) if text in line]
    return line


# ---- backtraces -------------------------------------------------------------------------------------------------------------------------


def test_a_backtrace_has_the_lines_of_the_source_and_the_functions_that_were_inlined() -> None:
    plugin = plugwasm.Plugin(FAULTY)
    frames = debugging.explain(failure(plugin, "primes", "12 1x"), plugin)
    source = FAULTY.with_suffix(".c")
    assert places(frames) == [
        ("digit", "faulty.c", line_of(source, "__builtin_trap()"), True),
        ("parse", "faulty.c", line_of(source, "+ digit(text[i])"), False),
        ("primes", "faulty.c", line_of(source, "parse(&list, text"), False),
    ]
    assert str(frames).splitlines()[0] == "  0: digit at faulty.c:13:9 (inlined)"


def test_names_of_cpp_are_demangled_and_inlined_ones_have_their_namespaces() -> None:
    plugin = plugwasm.Plugin(SHOP)
    source = SHOP.with_suffix(".cpp")
    assert places(debugging.explain(failure(plugin, "run", "too long"), plugin)) == [
        ("shop::Basket<int>::at", "shop.cpp", line_of(source, "__builtin_trap()"), True),
        ("shop::price", "shop.cpp", line_of(source, "sum += basket.at(i)"), True),
        (
            "shop::total(shop::Basket<int>, unsigned long)",
            "shop.cpp",
            line_of(source, "return price("),
            False,
        ),
        ("run", "shop.cpp", line_of(source, "return shop::total("), False),
    ]


def test_names_of_rust_are_demangled() -> None:
    name = "$_ZN4shop5total17h0123456789abcdefE"
    text = f"""(module {COUNT.replace("$count", name)} (func $fail (unreachable))
        (func {name.replace("total", "crash")} (call $fail))
        (func (export "fail") (call {name.replace("total", "crash")}))
        (func (export "run") (call {name} (i32.const 50000000))))"""
    plugin = plugwasm.Plugin(text)
    assert [frame.function for frame in debugging.explain(failure(plugin, "fail"), plugin)] == [
        "fail",
        "shop::crash",
        "fail",
    ]
    with debugging.profile(plugin) as profile:
        plugin.call("run")
    assert ("run", "shop::total") in profile.stacks


def test_without_debug_information_frames_have_functions_and_offsets() -> None:
    plugin = plugwasm.Plugin(
        '(module (func $inner unreachable) (func (export "outer") (call $inner)))'
    )
    frames = debugging.explain(failure(plugin, "outer"), plugin)
    assert [frame.function for frame in frames] == ["inner", "outer"], (
        "a function without a name is called by its export"
    )
    assert [frame.module for frame in frames] == ["main", "main"]
    assert all(
        isinstance(frame.offset, int) and frame.line is None and frame.file is None
        for frame in frames
    )


def test_an_error_can_be_explained_elsewhere_by_the_bytes_of_the_module() -> None:
    with plugwasm.Plugin(FAULTY) as plugin:
        error = pickle.loads(pickle.dumps(failure(plugin, "primes", "x")))
    assert debugging.explain(error, FAULTY.read_bytes())[0].line == 13
    assert debugging.explain(error, {"wasm": [{"path": str(FAULTY)}]})[0].line == 13
    assert debugging.explain(error, plugwasm.CompiledPlugin(FAULTY))[0].line == 13


def test_an_error_of_an_isolated_plugin_can_be_explained() -> None:
    with plugwasm.IsolatedPlugin(FAULTY) as plugin:
        assert debugging.explain(failure(plugin, "primes", "x"), plugin)[0].line == 13


def test_frames_of_several_modules_are_told_apart() -> None:
    library = '(module $lib (func $fail (export "fail") unreachable))'
    main = '(module (import "lib" "fail" (func $f)) (func $fail (call $f)) (func (export "run") (call $fail)))'
    plugin = plugwasm.Plugin(manifest(("lib", library), ("main", main)))
    frames = debugging.explain(failure(plugin, "run"), plugin)
    assert [(frame.function, frame.module) for frame in frames] == [
        ("fail", "lib"),
        ("fail", "main"),
        ("run", "main"),
    ]


def test_an_error_without_frames_has_an_empty_backtrace() -> None:
    plugin = plugwasm.Plugin('(module (func (export "f") (result i32) (i32.const 1)))')
    frames = debugging.explain(failure(plugin, "f"), plugin)
    assert frames == ()
    assert str(frames) == ""


@pytest.mark.parametrize(
    "frame", ["", "x", "a @ 0x", "a @ 0xzz", "main!a @ 0xffffffffff", "a @ 0x1 @ 0x2", " @ 0x0"]
)
def test_frames_that_belong_to_no_module_stay_as_they_are(frame: str) -> None:
    (found,) = debugging.explain(plugwasm.TrapError("trapped", backtrace=(frame,)), FAULTY)
    assert found.line is None
    assert found.module is None


def test_names_that_a_guest_chose_stay_on_one_line() -> None:
    plugin = plugwasm.Plugin(
        '(module (func $"a! @ 0x1\\n  7: b" unreachable) (func (export "run") (call $"a! @ 0x1\\n  7: b")))'
    )
    frames = debugging.explain(failure(plugin, "run"), plugin)
    assert [frame.module for frame in frames] == ["main", "main"]
    assert len(str(frames).splitlines()) == 2


def custom_sections(wasm: bytes) -> Iterator[tuple[int, int]]:
    code = CodeMap(wasm)
    yield from (code._custom[name] for name in code._custom if name.startswith(".debug"))


def test_broken_debug_information_costs_only_the_lines() -> None:
    wasm = FAULTY.read_bytes()
    error = failure(plugwasm.Plugin(wasm), "primes", "x")
    dice = random.Random(7)
    ranges = list(custom_sections(wasm))
    assert len(ranges) >= 4
    spoilt = 0
    for _ in range(150):
        broken = bytearray(wasm)
        start, end = dice.choice(ranges)
        for _ in range(dice.randint(1, 8)):
            broken[dice.randrange(start, end)] = dice.choice(
                (0, 1, 127, 128, 255, dice.randrange(256))
            )
        began = time.process_time()
        frames = debugging.explain(error, bytes(broken))
        assert time.process_time() - began < 10
        assert [frame.function for frame in frames if not frame.inlined] == ["parse", "primes"]
        spoilt += places(frames) != places(debugging.explain(error, wasm)) if spoilt < 5 else 0
    assert spoilt >= 5, "nothing was broken"


def test_a_module_whose_name_section_is_broken_off_still_has_offsets() -> None:
    wasm = FAULTY.read_bytes()
    error = failure(plugwasm.Plugin(wasm), "primes", "x")
    start, end = CodeMap(wasm)._custom["name"]
    for cut in range(start, end, 7):
        broken = wasm[:cut] + b"\xff" * (end - cut) + wasm[end:]
        assert all(frame.function for frame in debugging.explain(error, broken))


def test_without_pyelftools_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    error = failure(plugwasm.Plugin(FAULTY), "primes", "x")
    for name in [name for name in sys.modules if name.startswith("elftools")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "elftools", None)
    with pytest.raises(ImportError, match=r"pip install 'plugwasm\[debug\]'"):
        debugging.explain(error, FAULTY)
    plain = plugwasm.Plugin('(module (func (export "f") unreachable))')
    assert debugging.explain(failure(plain, "f"), plain)[0].function == "f", (
        "it is not needed where there is no DWARF"
    )


IMPORTS = """(module
    (type $f (func)) (import "a" "f" (func (type $f))) (import "a" "t" (table 1 2 funcref)) (import "a" "m" (memory 1 200))
    (import "a" "g" (global (mut i64))) (import "a" "tag" (tag)) (import "a" "m64" (memory i64 1)) (import "a" "g2" (global externref))
    (import "b" "f" (func (param i32))) (memory $own (export "own") 1) (func $first (nop)) (func (export "second") (nop) (nop)))"""


def test_functions_are_counted_past_imports_of_every_kind() -> None:
    code = CodeMap(wat_to_wasm(IMPORTS.encode()))
    assert code.imported == 2
    assert code.memories == ["own"]
    assert [code.title(i) for i in (2, 3, 4)] == ["first", "second", "function 4"]
    assert code.function_at(code.start(2)) == 2
    assert code.function_at(code.start(3)) == 3
    assert code.function_at(code.code) is None
    assert code.function_at(10**9) is None


def test_a_frame_says_what_it_knows() -> None:
    assert str(Frame("f")) == "f"
    assert str(Frame("f", "main", 31)) == "f @ 0x1f"
    assert str(Frame("f", "main", 31, "a.c", 3)) == "f at a.c:3"
    assert str(Frame("f", "main", 31, "a.c", 3, 4, True)) == "f at a.c:3:4 (inlined)"


# ---- dumps ------------------------------------------------------------------------------------------------------------------------------


class Core:
    """A core dump, read by the words of the format's description."""

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


def test_a_trap_leaves_a_core_dump_and_the_memories(tmp_path: Path) -> None:
    plugin = plugwasm.Plugin(SCRIBBLE, name="scribbler")
    with debugging.dump_on_trap(plugin, tmp_path / "dumps") as dumper:
        error = failure(plugin, "scribble", "the input")
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
        (1, f, at - code.start(f), [], [])
        for f, at in zip(functions, offsets, strict=True)
        if f is not None and at is not None
    ]
    assert [code.title(f) for _, f, *_ in core.frames] == ["deeper", "scribble"]
    assert core.frames[0][2] == 2, "after the number of locals and a nop"
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
    failure(plugin, "scribble")
    count, pages, _ = (
        get_engine(pooled=False).compile(Path(dumper.dumps[0].core).read_bytes()).own_memories
    )
    assert (count, pages) == (2, 4)


def test_a_deadline_leaves_a_dump_and_an_error_that_is_returned_does_not(tmp_path: Path) -> None:
    plugin = plugwasm.Plugin({**manifest(SCRIBBLE), "timeout_ms": 50})
    dumper = debugging.dump_on_trap(plugin, tmp_path)
    failure(plugin, "report")
    assert dumper.dumps == []
    assert not list(tmp_path.iterdir())
    assert isinstance(failure(plugin, "wait"), plugwasm.TimeoutError)
    assert len(dumper.dumps) == 1


def test_dumps_can_be_had_for_some_errors_only(tmp_path: Path) -> None:
    plugin = plugwasm.Plugin({**manifest(SCRIBBLE), "timeout_ms": 50})
    dumper = debugging.dump_on_trap(plugin, tmp_path, on=plugwasm.TrapError)
    assert not hasattr(failure(plugin, "wait"), "__notes__")
    failure(plugin, "scribble")
    assert len(dumper.dumps) == 1


def test_a_plugin_that_traps_all_the_time_does_not_fill_the_disk(tmp_path: Path) -> None:
    plugin = plugwasm.Plugin(SCRIBBLE)
    dumper = debugging.dump_on_trap(plugin, tmp_path, most=2)
    for _ in range(5):
        failure(plugin, "scribble")
    assert len(dumper.dumps) == 2
    assert len(list(tmp_path.iterdir())) == 6, "a core dump and two memories each"


def test_after_close_there_are_no_more_dumps_and_another_may_begin(tmp_path: Path) -> None:
    plugin = plugwasm.Plugin(SCRIBBLE)
    first = debugging.dump_on_trap(plugin, tmp_path)
    with pytest.raises(ValueError, match="writes dumps already"):
        debugging.dump_on_trap(plugin, tmp_path)
    first.close()
    first.close()
    failure(plugin, "scribble")
    second = debugging.dump_on_trap(plugin, tmp_path)
    failure(plugin, "scribble")
    assert (len(first.dumps), len(second.dumps)) == (0, 1)


def test_where_nothing_can_be_written_the_error_still_arrives(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    plugin = plugwasm.Plugin(SCRIBBLE)
    dumper = debugging.dump_on_trap(plugin, tmp_path / "file")
    error = failure(plugin, "scribble")
    assert isinstance(error, plugwasm.TrapError)
    assert error.__notes__[0].startswith("no core dump could be written: ")
    assert dumper.dumps == []


def test_half_a_dump_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from plugwasm._debugging import coredump

    created: list[str] = []

    def create(path: str, create: Any = coredump._create) -> Any:
        if created:
            raise OSError("disk full")
        created.append(path)
        return create(path)

    monkeypatch.setattr(coredump, "_create", create)
    plugin = plugwasm.Plugin(SCRIBBLE)
    debugging.dump_on_trap(plugin, tmp_path)
    assert failure(plugin, "scribble").__notes__ == ["no core dump could be written: disk full"]
    assert not list(tmp_path.iterdir())


def test_a_trap_while_the_plugin_starts_leaves_a_dump(tmp_path: Path) -> None:
    text = '(module (memory (export "memory") 1) (func (export "_initialize") (i32.store8 (i32.const 5) (i32.const 6)) unreachable) (func (export "f")))'
    plugin = plugwasm.Plugin(text)
    dumper = debugging.dump_on_trap(plugin, tmp_path)
    failure(plugin, "f")
    core = Core(dumper.dumps[0].core)
    assert core.memory(1)[5] == 6
    assert [frame[0] for frame in core.frames] == [1]


def test_a_memory_that_modules_share_is_dumped_once(tmp_path: Path) -> None:
    library = '(module (memory (export "memory") 1) (func (export "fail") (i32.store8 (i32.const 3) (i32.const 4)) unreachable))'
    main = '(module (import "lib" "memory" (memory 1)) (import "lib" "fail" (func $fail)) (export "memory" (memory 0)) (func (export "f") (call $fail)))'
    plugin = plugwasm.Plugin(manifest(("main", main), ("lib", library)))
    dumper = debugging.dump_on_trap(plugin, tmp_path)
    failure(plugin, "f")
    core = Core(dumper.dumps[0].core)
    assert core.modules == ["extism:host/env", "lib", "main"]
    assert [memories for _, memories, _ in core.instances] == [[0], [1], [1]]
    assert core.memory(1)[3] == 4
    assert [core.modules[instance] for instance, *_ in core.frames] == ["lib", "main"]


def test_the_name_of_a_plugin_leads_to_no_other_directory(tmp_path: Path) -> None:
    plugin = plugwasm.Plugin(SCRIBBLE, name="../../a/b\0c" + "x" * 300)
    dumper = debugging.dump_on_trap(plugin, tmp_path)
    failure(plugin, "scribble")
    assert Path(dumper.dumps[0].core).parent == tmp_path


def test_only_a_plugin_of_this_process_can_be_dumped_or_profiled(tmp_path: Path) -> None:
    with plugwasm.IsolatedPlugin(FAULTY) as plugin:
        for attempt in (
            lambda: debugging.dump_on_trap(plugin, tmp_path),
            lambda: debugging.profile(plugin),
        ):
            with pytest.raises(TypeError, match="runs in this process, got IsolatedPlugin"):
                attempt()


# ---- profiles ---------------------------------------------------------------------------------------------------------------------------

BUSY = f"""(module $busy
    (import "extism:host/user" "nap" (func $nap))
    {COUNT.replace("$count", "$short")} {COUNT.replace("$count", "$long")}
    (func $both (call $short (i32.const 8000000)) (call $long (i32.const 72000000)))
    (func $rest (call $short (i32.const 40000000)) (call $nap) (call $short (i32.const 100)))
    (func (export "work") (call $both))
    (func (export "wait") (call $rest))
    (func (export "nothing"))
    (func (export "forever") {LOOP}))"""


def nap(plugin: plugwasm.CurrentPlugin, parameters: list[Any], results: list[Any]) -> None:
    time.sleep(0.2)


NAP = plugwasm.Function(None, "nap", [], [], nap)


@pytest.fixture(scope="module")
def worked() -> debugging.Profile:
    with plugwasm.Plugin(BUSY, functions=[NAP], name='<busy> & "loud"') as plugin:
        plugin.call("nothing")
        with debugging.profile(plugin) as profile:
            for _ in range(5):  # where the machine is busy, there are few samples
                plugin.call("work")
    return profile


def test_a_profile_shows_where_the_time_went(worked: debugging.Profile) -> None:
    assert worked.samples > 5
    first, second = worked.functions[:2]
    assert (first.function, second.function) == ("long", "short")
    assert first.own > second.own
    times = {time.function: time for time in worked.functions}
    assert times["both"].total == pytest.approx(first.own + second.own, rel=0.2)
    assert times["work"].total >= times["both"].total > times["both"].own
    assert ("work", "both", "long") in worked.stacks


def test_the_collapsed_form_has_a_line_for_each_stack(worked: debugging.Profile) -> None:
    lines = dict(line.rsplit(" ", 1) for line in worked.collapsed().splitlines())
    assert "work;both;long" in lines
    assert sum(map(int, lines.values())) == pytest.approx(worked.seconds * 1e6, rel=0.01)


def test_the_profile_for_firefox_is_whole(worked: debugging.Profile, tmp_path: Path) -> None:
    worked.save(tmp_path / "profile.json")
    profile = json.loads((tmp_path / "profile.json").read_bytes())
    assert {"meta", "libs", "threads"} <= set(profile)
    assert profile["meta"]["product"] == '<busy> & "loud"'
    assert {
        "interval",
        "startTime",
        "processType",
        "version",
        "preprocessedProfileVersion",
        "categories",
    } <= set(profile["meta"])
    (thread,) = profile["threads"]
    check_tables(profile, thread)
    names = {thread["stringArray"][i] for i in thread["funcTable"]["name"]}
    assert {"work", "both", "long"} <= names
    assert not any("wasm function" in name for name in names)


def check_tables(profile: dict[str, Any], thread: dict[str, Any]) -> None:
    """What refers to a row of another table does so within that table."""
    for table in (
        "samples",
        "stackTable",
        "frameTable",
        "funcTable",
        "resourceTable",
        "nativeSymbols",
    ):
        columns = [column for column in thread[table].values() if isinstance(column, list)]
        assert {len(column) for column in columns} == {thread[table]["length"]}
    texts = thread["stringArray"]
    assert all(
        stack is None or 0 <= stack < thread["stackTable"]["length"]
        for stack in thread["samples"]["stack"]
    )
    assert all(
        prefix is None or prefix < i for i, prefix in enumerate(thread["stackTable"]["prefix"])
    )
    assert all(
        0 <= frame < thread["frameTable"]["length"] for frame in thread["stackTable"]["frame"]
    )
    assert all(
        0 <= function < thread["funcTable"]["length"] for function in thread["frameTable"]["func"]
    )
    assert all(0 <= name < len(texts) for name in thread["funcTable"]["name"])
    assert all(0 <= lib < len(profile["libs"]) for lib in thread["resourceTable"]["lib"])


def test_the_flame_graph_is_an_image_of_the_stacks(
    worked: debugging.Profile, tmp_path: Path
) -> None:
    worked.save(tmp_path / "profile.svg")
    tree = ElementTree.parse(tmp_path / "profile.svg").getroot()
    space = {"s": "http://www.w3.org/2000/svg"}
    boxes = {
        box.attrib["data-n"]: {
            key: float(value) for key, value in rect.attrib.items() if key in ("x", "y", "width")
        }
        for box in tree.findall("s:g", space)
        for rect in box.findall("s:rect", space)
    }
    assert {"all", "work", "both", "long"} <= set(boxes)
    assert boxes["long"]["y"] < boxes["both"]["y"] < boxes["work"]["y"] < boxes["all"]["y"], (
        "what is called stands above"
    )
    assert boxes["long"]["width"] <= boxes["both"]["width"] <= boxes["all"]["width"]
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= 1200 for box in boxes.values())
    assert tree.findall("s:text", space)[0].text == '<busy> & "loud"'


class Scripts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]


def test_what_a_guest_calls_its_functions_is_no_markup(tmp_path: Path) -> None:
    name = "</title><script>alert(1)</script>\\01 ; \\\" ' &amp;"
    quoted = f'"{name}"'
    text = f'(module {COUNT.replace("count", quoted)} (func (export "f") (call ${quoted} (i32.const 150000000))))'
    plugin = plugwasm.Plugin(text)
    with debugging.profile(plugin) as profile:
        plugin.call("f")
    for suffix in ("html", "svg", "json", "txt"):
        profile.save(tmp_path / f"profile.{suffix}")
    html = (tmp_path / "profile.html").read_text()
    assert "alert(1)" in html
    page = Scripts()
    page.feed(html)
    assert page.tags.count("script") == 1
    assert not {
        name for name in page.attributes if name.startswith("on") or name in ("src", "href")
    }
    ElementTree.parse(tmp_path / "profile.svg")
    (line,) = [
        line for line in (tmp_path / "profile.txt").read_text().splitlines() if "alert" in line
    ]
    assert line.count(";") == 1


def test_the_time_of_a_host_function_is_shown_by_its_name_below_the_export() -> None:
    plugin = plugwasm.Plugin(BUSY, functions=[NAP])
    plugin.call("nothing")
    with debugging.profile(plugin) as profile:
        plugin.call("wait")
    assert profile.stacks["wait", "[host] nap"] > 0.1
    assert "[host] nap" in profile.collapsed()


def test_time_between_calls_is_not_counted() -> None:
    plugin = plugwasm.Plugin(BUSY, functions=[NAP])
    with debugging.profile(plugin) as profile:
        plugin.call("nothing")
        time.sleep(0.5)
        plugin.call("nothing")
    assert profile.seconds < 0.25


def test_calls_that_are_too_short_give_an_empty_profile(tmp_path: Path) -> None:
    plugin = plugwasm.Plugin(BUSY, functions=[NAP])
    with debugging.profile(plugin, interval=5) as profile:
        plugin.call("nothing")
    assert (profile.samples, profile.seconds, profile.functions, profile.collapsed()) == (
        0,
        0,
        [],
        "",
    )
    for suffix in ("svg", "html", "json", "folded"):
        profile.save(tmp_path / f"empty.{suffix}")
    assert "too short" in (tmp_path / "empty.svg").read_text()
    assert json.loads((tmp_path / "empty.json").read_text())["threads"]


def test_instances_with_and_without_a_pool_are_in_one_profile() -> None:
    plugin = plugwasm.Plugin(BUSY, functions=[NAP])
    engines = set()
    with debugging.profile(plugin) as profile:
        for _ in range(5):
            plugin.call("work")
            assert plugin._guest is not None
            engines.add(plugin._guest.store.engine)
            plugin.reset()
    threads = json.loads(profile.firefox())["threads"]
    assert len(threads) == len(engines)
    assert len({thread["tid"] for thread in threads}) == len(threads)
    for thread in threads:
        check_tables(json.loads(profile.firefox()), thread)
    assert set(profile.stacks) >= {("work", "both", "long")}
    assert all(stack for stack in profile.stacks), "no sample without frames"


def test_a_deadline_holds_while_a_profile_is_taken() -> None:
    plugin = plugwasm.Plugin({**manifest(BUSY), "timeout_ms": 200}, functions=[NAP])
    with debugging.profile(plugin) as profile:
        assert isinstance(failure(plugin, "forever"), plugwasm.TimeoutError)
    assert profile.functions[0].function == "forever"


def test_modules_and_the_kernel_are_told_apart() -> None:
    library = f'(module {COUNT} (func (export "work") (call $count (i32.const 100000000))))'
    main = guest(
        """(func (export "f") (local $i i32) (call $work) (loop $next (drop (call $alloc (i64.const 8)))
        (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 2000000)))))""",
        '(import "lib" "work" (func $work))',
    )
    plugin = plugwasm.Plugin(manifest(("lib", library), ("main", main)))
    with debugging.profile(plugin) as profile:
        plugin.call("f")
    assert ("f", "lib!work", "lib!count") in profile.stacks
    assert any(stack[:2] == ("f", "extism:host/env!alloc") for stack in profile.stacks)


def test_a_command_is_profiled_in_its_own_store() -> None:
    command = f'(module {COUNT} (func (export "_start")) (func (export "work") (call $count (i32.const 100000000))))'
    main = '(module (import "tool" "work" (func $work)) (func (export "f") (call $work)))'
    plugin = plugwasm.Plugin(manifest(("tool", command), ("main", main)))
    with debugging.profile(plugin) as profile:
        plugin.call("f")
    assert any(stack[-1] == "tool!count" for stack in profile.stacks)


def test_a_plugin_with_fuel_can_be_profiled() -> None:
    plugin = plugwasm.Plugin(BUSY, functions=[NAP], fuel_limit=10**12)
    with debugging.profile(plugin) as profile:
        plugin.call("work")
    assert ("work", "both", "long") in profile.stacks


def test_a_profile_that_ends_during_a_call_leaves_the_call_alone() -> None:
    plugin = plugwasm.Plugin(BUSY, functions=[NAP])
    for _ in range(5):
        with debugging.profile(plugin) as profile:
            call = InThread(plugin.call, "work")
            assert soon(lambda: plugin._guest is not None and plugin._guest.sampler is not None)
        assert call.result() == b""
        assert plugin._guest is not None
        assert plugin._guest.sampler is None
    assert profile.seconds >= 0


def test_one_profile_of_a_plugin_is_taken_at_a_time() -> None:
    plugin = plugwasm.Plugin(BUSY, functions=[NAP])
    with debugging.profile(plugin) as profile:
        assert soon(
            lambda: (
                plugin.call("work") == b""
                and plugin._guest is not None
                and plugin._guest.sampler is not None
            )
        )
        with pytest.raises(ValueError, match="another profile"), debugging.profile(plugin):
            pass
    with pytest.raises(ValueError, match="once only"), profile:
        pass
    with debugging.profile(plugin) as again:
        plugin.call("work")
    assert ("work", "both", "long") in again.stacks


def test_another_plugin_of_the_engine_is_not_in_the_profile() -> None:
    plugin, other = plugwasm.Plugin(BUSY, functions=[NAP]), plugwasm.Plugin(FAULTY)
    with debugging.profile(plugin) as profile:
        call = InThread(other.call, "primes", SLOW_NUMBERS)
        plugin.call("work")
        assert call.result() == b"500"
    assert not {name for stack in profile.stacks for name in stack} & {
        "primes",
        "count_primes",
        "is_prime",
    }
    assert ("work", "both", "long") in profile.stacks


@pytest.mark.parametrize("interval", [0, -1, 0.00001, 11, float("nan")])
def test_an_interval_that_makes_no_sense_is_refused(interval: float) -> None:
    with pytest.raises(ValueError, match="interval: expected seconds"):
        debugging.profile(plugwasm.Plugin(FAULTY), interval=interval)


def test_a_file_of_another_kind_is_refused(worked: debugging.Profile, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"not as `\.png`"):
        worked.save(tmp_path / "profile.png")


def test_dumps_do_not_keep_the_plugin(tmp_path: Path) -> None:
    plugin = plugwasm.Plugin(SCRIBBLE)
    with debugging.dump_on_trap(plugin, tmp_path):
        gone = weakref.ref(plugin)
        del plugin
        assert gone() is None


def test_a_profile_does_not_keep_the_plugin() -> None:
    plugin = plugwasm.Plugin(FAULTY)
    with debugging.profile(plugin) as profile:
        plugin.call("primes", "2 3")
    gone = weakref.ref(plugin)
    del plugin
    assert soon(lambda: gone() is None)
    assert profile.seconds >= 0


# ---- the command line -------------------------------------------------------------------------------------------------------------------


def test_the_command_line_writes_a_profile(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from plugwasm.cli import main

    path = tmp_path / "primes.txt"
    assert (
        main(["call", str(FAULTY), "primes", "--input", SLOW_NUMBERS, "--profile", str(path)]) == 0
    )
    assert capfd.readouterr().out.strip() == "500"
    assert "primes;count_primes;is_prime " in path.read_text()


def test_the_command_line_writes_the_profile_of_a_call_that_fails(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from plugwasm.cli import main

    path = tmp_path / "primes.svg"
    assert main(["call", str(FAULTY), "primes", "--input", "x", "--profile", str(path)]) == 1
    assert "trapped: unreachable" in capfd.readouterr().err
    assert ElementTree.parse(path).getroot() is not None


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [("a.png", 2, "--profile: expected the name of a file"), ("missing/a.svg", 2, "cannot write")],
)
def test_a_profile_that_cannot_be_written_is_a_clear_error(
    name: str, code: int, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from plugwasm.cli import main

    assert main(["call", str(FAULTY), "primes", "--profile", str(tmp_path / name)]) == code
    assert message in capfd.readouterr().err
