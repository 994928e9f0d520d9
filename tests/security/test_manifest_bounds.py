"""The cost of a stranger's manifest before anything of it runs: time, memory, descriptors and
native stack.

The kinds: text that takes long to parse, too many entries, patterns that take long to match, files
that never end.
"""

from __future__ import annotations

import fnmatch
import inspect
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import plugwasm
from plugwasm import CompiledPlugin, Plugin, PluginRef, PluginSet, recording
from plugwasm._http.url import HostRules
from plugwasm._manifest.files import read_file
from plugwasm._manifest.resolve import ModuleSpec, PluginSpec, resolve
from plugwasm.errors import ManifestError, OptionError, RecordingError, SourceError
from plugwasm.manifest import Manifest, WasmSource, load, parse
from tests.support.guests import export, guest, manifest, number

WASM = b"\0asm\1\0\0\0"
MIB = 2**20


# ---- text


def repeat_to_size(part: str, size: int = 30 * MIB) -> str:
    return part * (size // len(part))


def repeat_numbered(part: str, count: int) -> str:
    return "".join(part.replace("#", str(index)) for index in range(count))


JUNK: dict[str, Callable[[], str]] = {
    "empty lists": lambda: repeat_to_size("[],"),
    "empty lists as modules, in JSON": lambda: '{"wasm":[' + repeat_to_size("[],") + "[]]}",
    "empty objects as modules": lambda: '{"wasm":[' + repeat_to_size("{},") + "{}]}",
    "closing brackets": lambda: '{"wasm":[' + repeat_to_size("]"),
    "strings as modules": lambda: '{"wasm":[' + repeat_to_size('"",') + '""]}',
    "numbers": lambda: '{"wasm":[' + repeat_to_size("1,") + "1]}",
    "names of config": lambda: (
        '{"wasm":[{"path":"m"}],"config":{' + repeat_numbered('"#":"",', 500_000) + '"x":""}}'
    ),
    "unknown names": lambda: "{" + repeat_numbered('"#":0,', 500_000) + '"x":0}',
    "an escape after the other": lambda: '{"wasm":"' + repeat_to_size("\\n"),
    "empty lists, in TOML": lambda: "wasm=[" + repeat_to_size("[],", 3 * MIB) + "]",
    "lines": lambda: "a=1" + repeat_to_size("\n", 3 * MIB),
    "lines in a list": lambda: "a=[" + repeat_to_size("\n", 3 * MIB),
    "comments": lambda: repeat_to_size("#\n", 3 * MIB),
    "tables": lambda: repeat_numbered("[a#]\n", 400_000),
    "one array of tables": lambda: repeat_to_size("[[a]]\n", 3 * MIB),
    "keys": lambda: repeat_numbered("a#=1\n", 400_000),
    "keys of an inline table": lambda: "a={" + repeat_numbered("a#=1,", 400_000) + "b=1}",
    "dotted keys": lambda: repeat_numbered("a." * 30 + "b#=1\n", 40_000),
    "escapes, in TOML": lambda: 'a="' + repeat_to_size("\\n", 3 * MIB) + '"',
    "quotes that open again": lambda: repeat_to_size('"""', 3 * MIB),
    "quotes of both kinds": lambda: repeat_to_size("'''\"\"\"", 3 * MIB),
    "one string": lambda: 'a="' + repeat_to_size("x", 3 * MIB) + '"',
    "a number of a million digits": lambda: (
        'a={b="c"}\ntimeout_ms=' + repeat_to_size("1", 1_000_000)
    ),
    "a hexadecimal number of a million digits": lambda: (
        "timeout_ms=0x" + repeat_to_size("1", 1_000_000)
    ),
    "TOML that is too long": lambda: 'a="' + repeat_to_size("x") + '"',
    "a number of a million digits, in JSON": lambda: (
        '{"timeout_ms":' + repeat_to_size("1", 1_000_000) + "}"
    ),
    "a negative one": lambda: (
        '{"wasm":[{"path":"m"}],"timeout_ms":-' + repeat_to_size("1", 1_000_000) + "}"
    ),
    "a fraction of a million digits": lambda: (
        '{"timeout_ms":1.' + repeat_to_size("1", 1_000_000) + "}"
    ),
}


@pytest.mark.parametrize("text", JUNK.values(), ids=JUNK)
@pytest.mark.parametrize("as_bytes", [True, False], ids=["bytes", "str"])
def test_junk_is_refused_in_good_time(text: Callable[[], str], as_bytes: bool) -> None:
    content = text()
    started = time.monotonic()
    with pytest.raises((ManifestError, SourceError)) as caught:
        parse(content.encode()) if as_bytes else resolve(content)
    assert time.monotonic() - started < 8, "seconds, on a machine that does a lot besides"
    assert len(str(caught.value)) < 1000


def test_junk_takes_little_memory() -> None:
    """Junk takes little memory beyond its own size."""
    program = """
import resource, plugwasm
from plugwasm.manifest import parse
text = b'{"wasm":[' + b"[]," * 10_000_000 + b"[]]}"
parse({"wasm": [{"path": "m"}]})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    parse(text)
except plugwasm.ManifestError:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert int(done.stdout) < 150_000, (
        "KiB; the text is there three times: as bytes, as str, and without what stands before it"
    )


def test_largest_manifest_needs_long_text() -> None:
    """A manifest with megabytes in its strings can be read.

    Strings may be of any length, also if they contain characters that count outside strings.
    """
    config = {
        "json": json.dumps([[]] * 200_000),
        "lines": "a = [1]\n" * 100_000,
        "quotes": '"' * 1000,
    }
    module = "AGFzbQEAAAA=" + " " * (20 * MIB)
    assert parse(json.dumps({"wasm": [{"data": module}], "config": config})).config == config
    toml = f"config.lines = '''{config['lines']}'''\nconfig.json = '{config['json']}'\n[[wasm]]\ndata = 'AGFzbQEAAAA='\n"
    assert parse(toml).config == {name: config[name] for name in ("lines", "json")}


@given(st.text("\"'#\\\n[]{}=.,a ", max_size=60))
def test_count_of_small_text_is_small(text: str) -> None:
    """The estimated cost of a small text is always within the limits."""
    try:
        parse(text)
    except ManifestError as error:
        assert (
            "more than" not in error.message
            or "dotted key" in error.message
            or "nested" in error.message
        )


# ---- entries

CHARACTERS = "x" * 100_000
COUNTS: list[tuple[str, Callable[[int], dict[str, Any]], int]] = [
    ("wasm", lambda n: {"wasm": [{"path": "m"}] * n}, 256),
    ("config", lambda n: {"config": {str(i): "" for i in range(n)}}, 10_000),
    ("allowed_hosts", lambda n: {"allowed_hosts": [f"h{i}" for i in range(n)]}, 1000),
    ("allowed_hosts[1]", lambda n: {"allowed_hosts": ["a", ("a." * n)[:n]]}, 254),
    ("allowed_paths", lambda n: {"allowed_paths": {f"/d/{i}": f"/{i}" for i in range(n)}}, 100),
    ("allowed_paths", lambda n: {"allowed_paths": {"/d": CHARACTERS[:n]}}, 4100),
    (
        "wasm[0].headers",
        lambda n: {"wasm": [{"url": "http://h/m", "headers": {f"x{i}": "" for i in range(n)}}]},
        100,
    ),
    (
        "wasm[0].headers",
        lambda n: {"wasm": [{"url": "http://h/m", "headers": {"x": CHARACTERS[: n - 1]}}]},
        65536,
    ),
    ("wasm[0].name", lambda n: {"wasm": [{"path": "m", "name": CHARACTERS[:n]}]}, 4096),
    ("wasm[0].path", lambda n: {"wasm": [{"path": CHARACTERS[:n]}]}, 4096),
    ("wasm[0].url", lambda n: {"wasm": [{"url": "http://" + CHARACTERS[: n - 7]}]}, 65536),
]


@pytest.mark.parametrize(("field", "document", "most"), COUNTS)
@pytest.mark.parametrize("form", [dict, json.dumps], ids=["mapping", "JSON"])
def test_excess_names_field_and_limit(
    form: Callable[[Any], Any], field: str, document: Callable[[int], dict[str, Any]], most: int
) -> None:
    """The error for an exceeded limit names the field and the limit."""
    assert parse(form({"wasm": [{"path": "m"}]} | document(most))).wasm
    with pytest.raises(
        ManifestError, match=f"expected at most {most} .*, got {most + 1}"
    ) as caught:
        parse(form({"wasm": [{"path": "m"}]} | document(most + 1)))
    assert caught.value.field == field


def test_bounds_of_manifest_in_code() -> None:
    """A manifest built in code has the same bounds."""
    with pytest.raises(ManifestError, match="at most 256 modules, got 257"):
        Manifest(wasm=[WasmSource(path="m")] * 257)
    with pytest.raises(ManifestError, match="at most 100 headers, got 101"):
        WasmSource(url="http://h/m", headers={str(index): "" for index in range(101)})


def test_config_has_a_bound_on_its_size() -> None:
    with pytest.raises(
        ManifestError,
        match="expected at most 67108864 characters, names and values together, got 67108865",
    ):
        Manifest(wasm=[WasmSource(path="m")], config={"x": "y" * (64 * MIB)})


@pytest.mark.parametrize(
    "method", ["DELETE", "PUT", "PATCH", "HEAD", "OPTIONS", "CONNECT", "get /"]
)
def test_modules_by_get_or_post_only(method: str) -> None:
    """A module can be fetched by GET or POST only."""
    with pytest.raises(ManifestError, match="expected GET or POST") as caught:
        parse({"wasm": [{"url": "http://h/m", "method": method}]})
    assert caught.value.field == "wasm[0].method"


def test_total_module_size(tmp_path: Path) -> None:
    """The total size of all modules is limited.

    One file may be named as often as there may be modules.
    """
    path = tmp_path / "m.wasm"
    with open(path, "wb") as file:
        file.write(WASM)
        file.truncate(100 * MIB)
    with pytest.raises(
        SourceError, match=r"manifest field `wasm\[2\]`: .* larger than the limit of 58720256 bytes"
    ):
        resolve(
            {"wasm": [{"path": str(path), "name": str(index)} for index in range(200)]},
            module_bytes=100 * MIB,
        )


# ---- chains of modules

SECOND = '(module (import "{}" "f" (func $f (result i64))) (func (export "f") (result i64) (i64.add (i64.const 1) (call $f))))'
FIRST = '(module (func (export "f") (result i64) (i64.const 1)))'


def chain(length: int) -> list[tuple[str, str]]:
    """Return modules that each import from the next one, the main module first."""
    main = guest(
        f'(import "m{length - 1}" "f" (func $f (result i64)))'
        + export("run", "(call $answer (call $f))")
    )
    return [
        ("main", main),
        *((f"m{index}", SECOND.format(f"m{index - 1}")) for index in range(length - 1, 0, -1)),
        ("m0", FIRST),
    ]


def test_longest_chain_runs() -> None:
    """A chain of the maximum number of modules runs."""
    with Plugin(
        {"wasm": [{"name": name, "data": text.encode()} for name, text in chain(255)]}
    ) as plugin:
        assert number(plugin.call("run")) == 255


def test_longer_chain_is_error() -> None:
    """A longer chain is a manifest error."""
    with pytest.raises(ManifestError, match="at most 256 modules, got 1501"):
        CompiledPlugin(
            {"wasm": [{"name": name, "data": text.encode()} for name, text in chain(1500)]}
        )


def test_chain_linking_does_not_recurse() -> None:
    """Linking a chain does not recurse.

    The chain has more modules than Python's stack has frames left.
    """
    spec = PluginSpec([ModuleSpec(name, text.encode(), name) for name, text in chain(300)])
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 200)
    try:
        order = CompiledPlugin(spec)._plan.order
    finally:
        sys.setrecursionlimit(before)
    assert [unit.name for unit in order] == [*(f"m{index}" for index in range(300)), "main"]


# ---- patterns


@pytest.mark.parametrize(
    "pattern",
    ["*a" * 150_000, "a" * 150_000, "?" * 1000, "*" * 300, "é" * 10_000, "*a" * 127 + "b"],
)
def test_impossible_pattern_is_refused(pattern: str) -> None:
    """A pattern longer than any host name is refused when the manifest is read."""
    started = time.monotonic()
    with pytest.raises(
        ManifestError, match=r"allowed_hosts\[0\]`: expected at most 254 characters"
    ) as caught:
        Plugin(manifest(FIRST, allowed_hosts=[pattern]))
    with pytest.raises(OptionError, match="allowed_hosts: "):
        plugwasm.Egress(allowed_hosts=[pattern])
    assert time.monotonic() - started < 2
    assert len(str(caught.value)) < 300


def test_application_pattern_limit() -> None:
    """For an application, the number of patterns is limited, and that of plain names is not."""
    HostRules([f"h{index}.example" for index in range(20_000)])
    HostRules([f"h{index}.*" for index in range(1000)])
    with pytest.raises(OptionError, match="expected at most 1000 patterns, got 1001"):
        HostRules([f"h{index}.*" for index in range(1001)])


@pytest.mark.parametrize("part", ["*a", "*aa", "*?", "?*", "*a?a", "*a*b"])
def test_worst_patterns_are_fast(part: str) -> None:
    """The most expensive patterns are matched quickly against the most expensive name.

    A thousand of the longest patterns, which match up to the last character of the longest name.
    """
    patterns = [
        (f"{index:03}"[::-1].replace("0", "*") + part * 130)[:252] + "b" for index in range(1000)
    ]
    rules = HostRules(patterns)
    started = time.monotonic()
    assert not rules.allows("a" * 253)
    assert time.monotonic() - started < 3


@given(st.text("ab*?.", max_size=12), st.text("ab.", min_size=1, max_size=12))
def test_patterns_match_like_shell(pattern: str, host: str) -> None:
    """A pattern matches like one of a shell."""
    if "*" in pattern or "?" in pattern:
        assert HostRules([pattern]).allows(host) == fnmatch.fnmatchcase(
            host, pattern.removesuffix(".")
        )


def test_random_patterns_match_like_shell() -> None:
    """Random patterns match like those of a shell."""
    numbers = random.Random(5)
    for _ in range(3000):
        pattern = (
            "".join(numbers.choices("abc*?.", [3, 3, 1, 2, 2, 1], k=numbers.randint(1, 30))) + "*a"
        )
        host = "".join(numbers.choices("abc.", k=numbers.randint(1, 40)))
        assert HostRules([pattern]).allows(host) == fnmatch.fnmatchcase(host, pattern)


# ---- files that never end

KMSG = "/proc/kmsg"


@pytest.fixture(
    params=[
        "pipe",
        "device",
        "terminal",
        "socket",
        "directory",
        "kernel's log",
        "file of the kernel",
        "link to a pipe",
    ]
)
def endless(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Return a path whose read blocks forever or never ends."""
    path = str(tmp_path / "m.wasm")
    if request.param == "pipe":
        os.mkfifo(path)
        yield path
    elif request.param == "link to a pipe":
        os.mkfifo(f"{path}.pipe")
        os.symlink(f"{path}.pipe", path)
        yield path
    elif request.param == "device":
        yield "/dev/zero"
    elif request.param == "terminal":
        ours, theirs = os.openpty()
        yield os.ttyname(theirs)
        os.close(ours)
        os.close(theirs)
    elif request.param == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            monkeypatch.chdir(tmp_path)
            listener.bind("m.wasm")
            yield path
    elif request.param == "directory":
        yield str(tmp_path)
    else:
        # Regular files, by what they say, of no size. Reading the log waits for the next message.
        yield (
            KMSG
            if request.param == "kernel's log" and os.path.exists(KMSG)
            else "/proc/self/mountinfo"
        )


OPENED: dict[str, Callable[[str], object]] = {
    "a plugin": Plugin,
    "a module of a manifest": lambda path: CompiledPlugin({"wasm": [{"path": path}]}),
    "a manifest": load,
    "a ref": PluginRef,
    "an embedded module of a ref": lambda path: PluginRef({"wasm": [{"path": path}]}, embed=True),
    "a recording": recording.load,
}


@pytest.mark.parametrize("opened", OPENED.values(), ids=OPENED)
@pytest.mark.timeout(20)
def test_special_files_are_not_waited_for(opened: Callable[[str], object], endless: str) -> None:
    """A path that is not a regular file does not block."""
    with pytest.raises((SourceError, RecordingError)):
        opened(endless)


@pytest.mark.timeout(20)
def test_set_folder_may_hold_pipes(tmp_path: Path) -> None:
    """A plugin set's folder may contain pipes."""
    for folder, pipe in (("a", "plugin.toml"), ("b", "manifest.json"), ("c", "plugin.wasm")):
        (tmp_path / folder).mkdir()
        if folder == "c":
            (tmp_path / folder / "plugin.toml").write_text("")
        os.mkfifo(tmp_path / folder / pipe)
    os.mkfifo(tmp_path / "d.wasm")
    with PluginSet.from_directory(tmp_path) as plugins:
        assert [description.error is not None for description in plugins.describe()] == [True] * 4


@pytest.mark.timeout(20)
def test_file_exchanged_for_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is exchanged for a pipe after it was checked does not block."""
    path = tmp_path / "m.wasm"
    path.write_bytes(WASM)
    look = os.stat

    def exchanged(looked_at: Any, **options: Any) -> os.stat_result:
        status = look(looked_at, **options)
        if looked_at == str(path):
            path.unlink()
            os.mkfifo(path)
        return status

    monkeypatch.setattr(os, "stat", exchanged)
    with pytest.raises(SourceError, match="not a regular file"):
        read_file(str(path), 1000)


@pytest.mark.timeout(30)
def test_growing_file(tmp_path: Path) -> None:
    """A file that grows is read up to a size that it had."""
    path = tmp_path / "m.wasm"
    path.write_bytes(WASM)
    stop = threading.Event()

    def grow() -> None:
        with open(path, "ab", buffering=0) as file:
            while not stop.is_set() and file.tell() < 50 * MIB:
                file.write(bytes(65536))

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        for _ in range(20):
            assert len(read_file(str(path), 100 * MIB)) <= os.stat(path).st_size
    finally:
        stop.set()
        writer.join()
    size = os.stat(path).st_size
    with pytest.raises(SourceError, match=f"larger than the limit of {size - 1} bytes"):
        read_file(str(path), size - 1)
