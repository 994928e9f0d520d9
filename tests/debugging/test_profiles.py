"""Profiles of guests: which functions take the time of calls."""

from __future__ import annotations

import json
import time
import weakref
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import plugwasm
from plugwasm import debugging
from tests.support.debugged_plugins import COUNT, FAULTY, call_error
from tests.support.guests import LOOP, guest, manifest
from tests.support.threads import InThread
from tests.support.waiting import soon

SLOW_NUMBERS = " ".join(["99991"] * 500)


# ---- profiles ------------------------------------------------------------------------------------

BUSY = f"""(module $busy
    (import "extism:host/user" "nap" (func $nap))
    {COUNT.replace("$count", "$short")} {COUNT.replace("$count", "$long")}
    (func $both (call $short (i32.const 8000000)) (call $long (i32.const 72000000)))
    (func $rest (call $short (i32.const 40000000)) (call $nap) (call $short (i32.const 100)))
    (func (export "work") (call $both))
    (func (export "wait") (call $rest))
    (func (export "nothing"))
    (func (export "forever") {LOOP}))"""


def sleep(plugin: plugwasm.CurrentPlugin, parameters: list[Any], results: list[Any]) -> None:
    time.sleep(0.2)


NAP = plugwasm.Function(None, "nap", [], [], sleep)


@pytest.fixture(scope="module")
def profile_of_work() -> debugging.Profile:
    with plugwasm.Plugin(BUSY, functions=[NAP], name='<busy> & "loud"') as plugin:
        plugin.call("nothing")
        with debugging.profile(plugin) as profile:
            for _ in range(5):  # where the machine is busy, there are few samples
                plugin.call("work")
    return profile


def test_profile_shows_hot_functions(profile_of_work: debugging.Profile) -> None:
    """A profile shows the functions that take the time."""
    assert profile_of_work.samples > 5
    first, second = profile_of_work.functions[:2]
    assert (first.function, second.function) == ("long", "short")
    assert first.own > second.own
    times = {time.function: time for time in profile_of_work.functions}
    assert times["both"].total == pytest.approx(first.own + second.own, rel=0.2)
    assert times["work"].total >= times["both"].total > times["both"].own
    assert ("work", "both", "long") in profile_of_work.stacks


def test_collapsed_format(profile_of_work: debugging.Profile) -> None:
    """The collapsed format has a line for each stack."""
    lines = dict(line.rsplit(" ", 1) for line in profile_of_work.collapsed().splitlines())
    assert "work;both;long" in lines
    assert sum(map(int, lines.values())) == pytest.approx(profile_of_work.seconds * 1e6, rel=0.01)


def test_firefox_format(profile_of_work: debugging.Profile, tmp_path: Path) -> None:
    """The profile for Firefox is complete."""
    profile_of_work.save(tmp_path / "profile.json")
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
    """Check that references between rows stay within their tables."""
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


def test_flame_graph_format(profile_of_work: debugging.Profile, tmp_path: Path) -> None:
    """The flame graph is an image of the stacks."""
    profile_of_work.save(tmp_path / "profile.svg")
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


def test_flame_graph_escapes_names(tmp_path: Path) -> None:
    """A guest's function names are escaped in the flame graph."""
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


def test_host_function_time() -> None:
    """The time of a host function is shown under its name below the export."""
    plugin = plugwasm.Plugin(BUSY, functions=[NAP])
    plugin.call("nothing")
    with debugging.profile(plugin) as profile:
        plugin.call("wait")
    assert profile.stacks["wait", "[host] sleep"] > 0.1
    assert "[host] sleep" in profile.collapsed()


def test_time_between_calls_not_counted() -> None:
    """Time between calls is not counted."""
    plugin = plugwasm.Plugin(BUSY, functions=[NAP])
    with debugging.profile(plugin) as profile:
        plugin.call("nothing")
        time.sleep(0.5)
        plugin.call("nothing")
    assert profile.seconds < 0.25


def test_short_calls_give_empty_profile(tmp_path: Path) -> None:
    """Calls that are too short give an empty profile."""
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


def test_pooled_and_unpooled_instances() -> None:
    """Instances from the pool and others are in one profile."""
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


def test_deadline_during_profile() -> None:
    """A deadline applies while a profile is taken."""
    plugin = plugwasm.Plugin({**manifest(BUSY), "timeout_ms": 200}, functions=[NAP])
    with debugging.profile(plugin) as profile:
        assert isinstance(call_error(plugin, "forever"), plugwasm.TimeoutError)
    assert profile.functions[0].function == "forever"


def test_modules_and_kernel_are_separate() -> None:
    """Modules and the kernel are distinguished."""
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


def test_command_in_own_store() -> None:
    """A command is profiled in its own store."""
    command = f'(module {COUNT} (func (export "_start")) (func (export "work") (call $count (i32.const 100000000))))'
    main = '(module (import "tool" "work" (func $work)) (func (export "f") (call $work)))'
    plugin = plugwasm.Plugin(manifest(("tool", command), ("main", main)))
    with debugging.profile(plugin) as profile:
        plugin.call("f")
    assert any(stack[-1] == "tool!count" for stack in profile.stacks)


def test_plugin_with_fuel() -> None:
    """A plugin with fuel can be profiled."""
    plugin = plugwasm.Plugin(BUSY, functions=[NAP], fuel_limit=10**12)
    with debugging.profile(plugin) as profile:
        plugin.call("work")
    assert ("work", "both", "long") in profile.stacks


def test_profile_ended_during_call() -> None:
    """Ending a profile during a call does not affect the call."""
    plugin = plugwasm.Plugin(BUSY, functions=[NAP])
    for _ in range(5):
        with debugging.profile(plugin) as profile:
            call = InThread(plugin.call, "work")
            assert soon(lambda: plugin._guest is not None and plugin._guest.sampler is not None)
        assert call.result() == b""
        assert plugin._guest is not None
        assert plugin._guest.sampler is None
    assert profile.seconds >= 0


def test_one_profile_at_a_time() -> None:
    """Only one profile of a plugin can be taken at a time."""
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


def test_other_plugins_not_in_profile() -> None:
    """Another plugin on the same engine is not in the profile."""
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
def test_interval_is_validated(interval: float) -> None:
    """An invalid interval is refused."""
    with pytest.raises(ValueError, match="interval: expected seconds"):
        debugging.profile(plugwasm.Plugin(FAULTY), interval=interval)


def test_unknown_file_type_is_refused(profile_of_work: debugging.Profile, tmp_path: Path) -> None:
    """An unknown file type is refused."""
    with pytest.raises(ValueError, match=r"not as `\.png`"):
        profile_of_work.save(tmp_path / "profile.png")


def test_profile_does_not_keep_plugin() -> None:
    """A profile does not keep the plugin alive."""
    plugin = plugwasm.Plugin(FAULTY)
    with debugging.profile(plugin) as profile:
        plugin.call("primes", "2 3")
    gone = weakref.ref(plugin)
    del plugin
    assert soon(lambda: gone() is None)
    assert profile.seconds >= 0


# ---- the command line ----------------------------------------------------------------------------


def test_cli_writes_profile(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The command line writes a profile."""
    from plugwasm.cli import main

    path = tmp_path / "primes.txt"
    assert (
        main(["call", str(FAULTY), "primes", "--input", SLOW_NUMBERS, "--profile", str(path)]) == 0
    )
    assert capfd.readouterr().out.strip() == "500"
    assert "primes;count_primes;is_prime " in path.read_text()


def test_cli_writes_profile_of_failed_call(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The command line writes the profile of a call that fails."""
    from plugwasm.cli import main

    path = tmp_path / "primes.svg"
    assert main(["call", str(FAULTY), "primes", "--input", "x", "--profile", str(path)]) == 1
    assert "trapped: unreachable" in capfd.readouterr().err
    assert ElementTree.parse(path).getroot() is not None


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [("a.png", 2, "--profile: expected the name of a file"), ("missing/a.svg", 2, "cannot write")],
)
def test_unwritable_profile_is_error(
    name: str, code: int, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The error for a profile that cannot be written says so."""
    from plugwasm.cli import main

    assert main(["call", str(FAULTY), "primes", "--profile", str(tmp_path / name)]) == code
    assert message in capfd.readouterr().err
