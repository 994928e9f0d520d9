"""The on-disk cache of compiled code: which entries may be loaded, and that any fault in it costs
only time.

Each test of a fault replaces the machine code of a module that answers 1 by that of one that
answers 2. Without a fault the answer is 2, which shows that the cache is used; with the fault it
must be 1.
"""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plugwasm._engine import Engine, wat_to_wasm
from plugwasm._runtime import code_cache
from tests.support.code_cache import (
    ONE,
    TWO,
    answer,
    compiled,
    entries,
    is_there,
    put,
    put_bytes,
    put_code,
    run,
)
from tests.support.paths import ROOT

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "geteuid"), reason="the cache needs POSIX permissions"),
    pytest.mark.usefixtures("fresh_cache_settings"),
]
STRANGER = 54321
as_root = pytest.mark.skipif(
    hasattr(os, "geteuid") and os.geteuid() != 0, reason="only root can give files away"
)


def forge(folder: Path) -> Path:
    """Replace the code of `ONE` by that of another module, and return the path of the entry."""
    assert run() == 1
    (entry,) = entries(folder)
    put_code(Engine().compile(wat_to_wasm(TWO)).serialize())
    assert entries(folder) == [entry]
    assert run() == 2
    return entry


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "plugwasm.cache" and record.levelno >= logging.WARNING
    ]


# ---- what is kept, and where ---------------------------------------------------------------------


def test_files_are_private(folder: Path) -> None:
    """Only the user can access the directory and its entries."""
    before = os.umask(0)
    try:
        run()
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (entry,) = folder.iterdir()
    assert stat.S_IMODE(entry.stat().st_mode) == 0o600


def test_entry_of_module_and_engine(folder: Path) -> None:
    """An entry belongs to one module and one engine."""
    for wasm in (ONE, TWO):
        for fuel in (False, True):
            assert answer(compiled(wasm, fuel=fuel)) == (1 if wasm is ONE else 2)
    assert len(entries(folder)) == 4
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    for wasm in (ONE, TWO):
        for fuel in (False, True):
            assert answer(compiled(wasm, fuel=fuel)) == (1 if wasm is ONE else 2)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before, "all were found"


def test_loaded_module_is_described(folder: Path) -> None:
    """A module loaded from the cache has the same description as one just compiled."""
    wat = b'(module (import "a" "b" (func (param i32))) (memory 3) (memory 4) (func (export "f") (result f64) (f64.const 0)))'
    first, second = compiled(wat), compiled(wat)
    assert len(entries(folder)) == 1
    assert first is not second
    assert first.defined_memories == second.defined_memories
    assert first.defined_memories[:2] == (2, 7)
    assert list(map(repr, first.imports)) == list(map(repr, second.imports))
    assert list(map(repr, first.exports.values())) == list(map(repr, second.exports.values()))


def test_loaded_code_outlives_entry(folder: Path) -> None:
    """Loaded code still runs after its entry was deleted."""
    run()
    module = compiled()
    assert code_cache.clear() == 1
    assert answer(module) == 1


@pytest.mark.parametrize("variable", ["off", "OFF", "0", "no", "False"])
def test_disabled_by_environment(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the environment turns the cache off, nothing is read or written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PLUGWASM_CACHE", variable)
    assert code_cache.directory() is None
    assert run() == run() == 1
    assert code_cache.clear() == 0
    assert list(tmp_path.rglob("*")) == []
    code_cache.configure(tmp_path / "own")
    assert code_cache.directory() is None, "a place to be is no wish to be there"
    code_cache.configure(enabled=True)
    assert code_cache.directory() == str(tmp_path / "own")


@pytest.mark.skipif(sys.platform == "darwin", reason="has another place for caches")
@pytest.mark.parametrize("variable", ["", "1", "on", "YES", "true"])
def test_default_directory(variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default, it is in the user's cache directory."""
    monkeypatch.setenv("PLUGWASM_CACHE", variable)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert code_cache.directory() == str(tmp_path / "xdg" / "plugwasm")
    assert run() == 1
    assert len(entries(tmp_path / "xdg" / "plugwasm")) == 1
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert code_cache.directory() == str(tmp_path / "home" / ".cache" / "plugwasm")
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    assert code_cache.directory() is None


def test_relative_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path names the same directory as long as the process does not change its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PLUGWASM_CACHE", "here")
    assert code_cache.directory() == str(tmp_path / "here")
    code_cache.configure("there")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert code_cache.directory() == str(tmp_path / "there"), (
        "what was configured does not move with the process"
    )


def test_configuration_over_environment(folder: Path, tmp_path: Path) -> None:
    """Configuration in code wins over the environment."""
    code_cache.configure(tmp_path / "own")
    assert run() == 1
    assert len(entries(tmp_path / "own")) == 1
    assert not folder.exists()
    code_cache.configure(enabled=False)
    assert code_cache.directory() is None
    code_cache.configure(max_bytes=5)
    assert code_cache.directory() is None, "what is not given stays as it is"
    code_cache.configure(enabled=True)
    assert code_cache.directory() == str(tmp_path / "own")


def test_clear_removes_entries_only(folder: Path) -> None:
    """Clearing the cache removes only entries."""
    assert code_cache.clear() == 0
    run()
    compiled(TWO)
    (folder / "notes.txt").write_text("mine")
    assert code_cache.clear() == 2
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    assert code_cache.clear() == 0


def test_limit_removes_oldest(folder: Path) -> None:
    """Beyond the limit, the least recently used entries are removed."""

    def module(number: int) -> bytes:
        return b'(module (func (export "f") (result i32) (i32.const %d)))' % number

    names = []
    for number in range(4):
        compiled(module(number))
        (new,) = set(entries(folder)) - set(names)
        os.utime(new, (1000 + number, 1000 + number))
        names.append(new)
    size = names[0].stat().st_size
    compiled(module(1))  # is used, and so the youngest
    assert names[1].stat().st_mtime > 1_000_000
    code_cache.configure(max_bytes=3 * size + size // 2)
    compiled(module(5))
    left = set(entries(folder))
    assert names[0] not in left
    assert names[2] not in left
    assert {names[1], names[3]} < left
    assert len(left) == 3
    code_cache.configure(max_bytes=0)
    compiled(module(6))
    assert entries(folder) == []


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Count the scans of all entries from now on."""
    looks: list[object] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: looks.append(path) or scandir(path))
    return looks


def size(folder: Path) -> int:
    return sum((folder / name).stat().st_size for name in os.listdir(folder))


def test_store_scans_only_when_full(folder: Path, looks: list[object]) -> None:
    """Storing an entry does not scan all entries while there is room."""
    for number in range(300):
        put_bytes(number, 4000)
    assert len(os.listdir(folder)) == 300
    assert len(looks) == 1, "the first one, for what was there before"


def test_limit_in_full_cache(folder: Path, looks: list[object]) -> None:
    """In a full cache, the limit holds after each store, and few stores scan all entries."""
    most = 400_000
    code_cache.configure(max_bytes=most)
    for number in range(600):
        put_bytes(number, 1000)
        assert size(folder) <= most
        assert is_there(number)
    assert size(folder) > most * 0.9, "no more goes than has to"
    assert len(looks) <= 1 + 600 // 10


def test_entries_of_other_processes_count(folder: Path) -> None:
    """Entries stored by other processes are noticed after a sixteenth of the limit."""
    most = 400_000
    code_cache.configure(max_bytes=most)
    put_bytes("first", 1)
    for number in range(500):
        (folder / f"of-another-{number}.code").write_bytes(bytes(1000))
    for number in range(most // 16 // 1000 + 1):
        put_bytes(number, 1000)
    assert size(folder) <= most


def test_limit_with_many_processes(folder: Path) -> None:
    """Processes that store at once exceed the limit by at most a sixteenth each."""
    most = 200_000
    program = (
        f"import plugwasm\nfrom plugwasm._runtime import code_cache\ncode_cache.configure(max_bytes={most})\n"
        "import os\nfor i in range(800): code_cache.store(b'', b'%d-%d' % (os.getpid(), i), bytes(1000), bytes(code_cache.NOTE))\nprint('done')"
    )
    processes = [child(program, folder) for _ in range(4)]
    for process in processes:
        out, log = process.communicate(timeout=60)
        assert (process.returncode, out, log) == (0, "done\n", "")
    assert most // 2 < size(folder) <= most + 4 * (most // 16 + 1100)


def test_lowered_limit(folder: Path) -> None:
    """A lowered limit applies from the next store."""
    for number in range(50):
        put_bytes(number, 1000)
    code_cache.configure(max_bytes=10_000)
    put_bytes("last", 1000)
    assert size(folder) <= 10_000


def test_partial_files_are_removed(folder: Path) -> None:
    """Partial files of killed processes are removed after a while."""
    folder.mkdir(parents=True, mode=0o700)
    old, young = folder / f".{os.getpid()}-{'ab' * 8}", folder / f".{os.getpid()}-{'cd' * 8}"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (1000, 1000))
    run()  # the first store of a process
    assert not old.exists()
    assert young.exists(), "somebody may be writing it"


# ---- faults --------------------------------------------------------------------------------------


def _to_symlink(path: Path) -> None:
    other = path.with_name("moved")
    path.rename(other)
    path.symlink_to(other)


def _to_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def _to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir(mode=0o700)


def _to_file(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.write_bytes(b"")


FOLDER_FAULTS: dict[str, Callable[[Path], object]] = {
    "readable by the group": lambda path: path.chmod(0o740),
    "readable by others": lambda path: path.chmod(0o704),
    "writable by others": lambda path: path.chmod(0o702),
    "searchable by others": lambda path: path.chmod(0o711),
    "writable by all, sticky": lambda path: path.chmod(0o1777),
    "a symbolic link": _to_symlink,
    "a file": _to_file,
}
ENTRY_FAULTS: dict[str, Callable[[Path], object]] = {
    "readable by the group": lambda path: path.chmod(0o640),
    "readable by others": lambda path: path.chmod(0o604),
    "writable by others": lambda path: path.chmod(0o602),
    "a symbolic link": _to_symlink,
    "a symbolic link to itself": lambda path: (path.unlink(), path.symlink_to(path)),
    "a FIFO": _to_fifo,
    "a folder": _to_folder,
}


@pytest.mark.parametrize("fault", FOLDER_FAULTS)
def test_doubtful_directory_is_not_used(
    fault: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A directory that others can change is not used, and the log says so once."""
    forge(folder)
    FOLDER_FAULTS[fault](folder)
    before = sorted(folder.parent.rglob("*"))
    assert run() == run() == 1
    (message,) = warnings_of(caplog)
    assert str(folder) in message
    assert "compiled anew" in message
    assert sorted(folder.parent.rglob("*")) == before, "nothing is written there either"


@pytest.mark.parametrize("fault", ENTRY_FAULTS)
def test_doubtful_entry_is_not_used(
    fault: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A suspicious entry is not used, and the log says so once."""
    ENTRY_FAULTS[fault](forge(folder))
    assert run() == 1
    assert run() == 1
    assert len(warnings_of(caplog)) == 1


@as_root
@pytest.mark.parametrize("what", ["folder", "entry"])
def test_foreign_files_are_not_used(
    what: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Files of another user are not used."""
    entry = forge(folder)
    os.chown(folder if what == "folder" else entry, STRANGER, -1)
    assert run() == 1
    (message,) = warnings_of(caplog)
    assert f"belongs to user {STRANGER}" in message


def test_warning_per_directory(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each directory gets its own warning."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir(mode=0o755)
        code_cache.configure(tmp_path / name)
        run()
        run()
    assert len(warnings_of(caplog)) == 2


def test_truncated_entry_is_replaced(folder: Path) -> None:
    """An entry that is truncated or extended is compiled again and replaced."""
    entry = forge(folder)
    whole = entry.read_bytes()
    trailer = len(whole) - len(whole) // 4
    for size in [0, 1, 10, 100, 4096, trailer, *range(len(whole) - 40, len(whole))]:
        put(entry, whole[:size])
        assert run() == 1, size
        assert run() == 1
    for wrong in (whole + b"x", b"x" + whole, whole + whole):
        put(entry, wrong)
        assert run() == 1
    put(entry, whole)
    assert run() == 2


@pytest.fixture(scope="module")
def forged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, bytes]]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("forged") / "kept"
        patch.setenv("PLUGWASM_CACHE", str(folder))
        entry = forge(folder)
        yield entry, entry.read_bytes()


@given(data=st.data())
@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_flipped_bit_is_not_run(data: st.DataObject, forged: tuple[Path, bytes]) -> None:
    """An entry with any bit flipped is not run."""
    entry, whole = forged
    end = len(whole)
    at = data.draw(
        st.one_of(st.integers(0, end - 1), st.integers(end - 40, end - 1), st.integers(0, 200))
    )
    os.environ["PLUGWASM_CACHE"] = str(entry.parent)
    put(
        entry, whole[:at] + bytes([whole[at] ^ 1 << data.draw(st.integers(0, 7))]) + whole[at + 1 :]
    )
    assert run() == 1


def test_junk_with_valid_checksum(folder: Path) -> None:
    """Junk with a valid checksum is compiled again without a crash."""
    forge(folder)
    code = Engine().compile(wat_to_wasm(TWO)).serialize()
    foreign = Engine(fuel=True).compile(wat_to_wasm(TWO)).serialize()
    for junk in (
        b"x",
        b"junk" * 1000,
        bytes(5000),
        b"\x7fELF" + bytes(300),
        wat_to_wasm(TWO),
        code[:300],
        code[: len(code) // 2],
        foreign,
    ):
        put_code(junk)
        assert run() == 1


def test_file_system_without_times(folder: Path) -> None:
    """An entry on a file system that keeps no times is used.

    Normally an old entry is marked as used; if that is impossible, it is still valid.
    """
    entry = forge(folder)
    os.utime(entry, (1000, 1000))
    if subprocess.run(["chattr", "+i", str(entry)], capture_output=True).returncode:
        pytest.skip("this file system has no immutable files")
    try:
        assert run() == 2
    finally:
        subprocess.run(["chattr", "-i", str(entry)], check=True)


def test_directory_vanishes(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A directory that vanishes is no error."""
    entry = forge(folder)
    entry.unlink()
    folder.rmdir()
    assert run() == 1
    assert len(entries(folder)) == 1
    assert warnings_of(caplog) == []


def child(
    script: str, folder: Path, *arguments: str, env: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", script, *arguments],
        cwd=ROOT,
        env=os.environ | {"PLUGWASM_CACHE": str(folder)} | (env or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


CALLS = """
import logging, os, resource, sys
import plugwasm
logging.basicConfig()  # else the log is silent
%s
for n in range(%d):
    plugin = plugwasm.Plugin(b'(module (func (export "f") (result i32) (i32.const 0)) (global i32 (i32.const %%d)))' %% n)
    assert plugin.call("f") == b""
print("done")
"""


def test_full_disk(folder: Path) -> None:
    """On a full disk, plugins still run and no partial file remains."""
    run()
    before = {path: path.read_bytes() for path in folder.iterdir()}
    full = "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))"
    process = child(CALLS % (full, 3), folder)
    out, log = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "done\n"), log
    assert log.count("cache of compiled code") == 1, log
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@as_root
def test_unwritable_directory() -> None:
    """With a directory that cannot be written, plugins still run."""
    # All is imported before the process becomes another user's, who may have no access to this
    # interpreter.
    become = (
        "plugwasm.cache.configure(sys.argv[1]); plugwasm.Plugin(b'(module)'); plugwasm._runtime.code_cache._Settings.directory = None; "
        "os.setresuid(54321, 54321, 54321)"
    )
    with tempfile.TemporaryDirectory() as parent:
        os.chmod(parent, 0o755)
        folder = Path(parent) / "kept"
        folder.mkdir(mode=0o500)
        os.chown(folder, STRANGER, STRANGER)
        process = child(CALLS % (become, 2), folder, str(Path(parent) / "warm"))
        out, log = process.communicate(timeout=60)
        assert (process.returncode, out) == (0, "done\n"), log
        assert log.count("cache of compiled code") == 1, log
        assert "ermission" in log
        assert list(folder.iterdir()) == []


def test_concurrent_compiles(folder: Path) -> None:
    """Processes that compile the same module at once do not disturb each other."""
    processes = [child(CALLS % ("", 12), folder) for _ in range(4)]
    for process in processes:
        out, log = process.communicate(timeout=60)
        assert (process.returncode, out, log) == (0, "done\n", "")
    names = [path.name for path in folder.iterdir()]
    assert all(name.endswith(".code") for name in names)
    assert len(names) == 12 + 1, "one for each module, and one for the kernel"


def test_concurrent_prunes(folder: Path) -> None:
    """Processes that prune at once do not disturb each other."""
    small = "plugwasm.cache.configure(max_bytes=20_000)"
    processes = [child(CALLS % (small, 25), folder) for _ in range(4)]
    for process in processes:
        out, log = process.communicate(timeout=60)
        assert (process.returncode, out, log) == (0, "done\n", "")


def test_clear_while_others_write(folder: Path) -> None:
    """Clearing works while other processes write."""
    writers = [child(CALLS % ("", 40), folder) for _ in range(2)]
    clearing = child(
        "import plugwasm\nfor _ in range(3000): plugwasm.cache.clear()\nprint('done')", folder
    )
    other = child(
        "import plugwasm\nfor _ in range(3000): plugwasm.cache.clear()\nprint('done')", folder
    )
    for process in (*writers, clearing, other):
        out, log = process.communicate(timeout=60)
        assert (process.returncode, out, log) == (0, "done\n", "")


def test_next_process_loads_entry(folder: Path) -> None:
    """The next process loads an entry that an earlier one stored."""
    assert child(CALLS % ("", 3), folder).communicate(timeout=60) == ("done\n", "")
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()}
    assert child(CALLS % ("", 3), folder).communicate(timeout=60) == ("done\n", "")
    assert {
        path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()
    } == before
