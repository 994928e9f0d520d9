"""Build the engine of Python: MicroPython's sources and the files beside this one, with zig.

MicroPython's own programs collect the names and the modules that its sources mention; they are run
as its makefile runs them.

Decisions: docs/decisions.md, 59.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

from ...errors import SourceError, truncate
from .. import pins, progress
from ..engine_build import ZIG_CC, run_tool, write_headers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

CHECKED = ("compile_node", "mp_obj_equal_not_equal", "mp_obj_tuple_unary_op")
"""Functions of MicroPython that recurse as deep as a value or a source is nested, without a look at
the stack.
"""

_HERE = Path(__file__).parent
_OWN = ("engine.c", "heap.c", "json.c", "random.c", "signatures.c", "system.c", "text.c")
_OWN_HEADERS = ("mpconfigport.h", "mphalport.h", "port.h", "time_of_host.h")
_FOLDER = "micropython"
_WANTED = ("py/", "extmod/", "shared/", "lib/uzlib/", "lib/re1.5/", "lib/crypto-algorithms/")
_INCLUDED = ("py/gc.c", "py/unicode.c", "extmod/modrandom.c")
"""Files that heap.c, text.c and random.c include."""
_EXTMOD = ("binascii", "deflate", "hashlib", "heapq", "json", "random", "re", "time")
_SHARED = ("shared/timeutils/timeutils.c",)
_TIMEOUT = 60

FLAGS = (
    "-target",
    "wasm32-wasi",
    "-mexec-model=reactor",
    "-std=gnu99",
    "-O2",
    "-g0",
    "-DNDEBUG",
    "-fno-sanitize=undefined",
    "-fno-strict-aliasing",
    "-Wno-everything",
    # setjmp and longjmp, as exceptions of Wasm.
    "-mexception-handling",
    "-mllvm",
    "-wasm-enable-sjlj",
    "-mllvm",
    "-wasm-use-legacy-eh=false",
    "-I.",
    "-I" + _FOLDER,
)
_LINK = (
    f"-Wl,-z,stack-size={pins.STACK_BYTES}",
    "-Wl,--export-table",
    "-Wl,--growable-table",
)


def sources() -> list[bytes]:
    """Return what the engine is made of, besides its kit."""
    own = (*_OWN, *_OWN_HEADERS, "recipe.py", "roots.py")
    shared = [_HERE.parent / "rewriting" / name for name in ("instructions.py", "analysis.py")]
    pinned = repr((pins.ZIG, pins.STACK_BYTES, pins.MICROPYTHON_SHA256))
    files = [*(_HERE / name for name in own), *shared]
    return [pinned.encode(), *(file.read_bytes() for file in files)]


def read_kit() -> bytes:
    """Return the files that a script can import: JSON."""
    from msgspec import json

    folder = _HERE / "kit"
    return json.encode({one.name: one.read_text() for one in sorted(folder.glob("*.py"))})


def compile_engine(place: Path) -> bytes:
    """Compile the engine, in an empty directory.

    Raises:
        SourceError: The sources cannot be had, or not be compiled.
    """

    _unpack(download(), place / _FOLDER)
    return compile_sources(place)


def compile_sources(place: Path) -> bytes:
    """Compile the engine, in a directory with MicroPython's sources."""
    from ..rewriting.instructions import UnknownCodeError
    from .roots import keep_roots_in_memory

    for name in (*_OWN, *_OWN_HEADERS):
        (place / name).write_bytes((_HERE / name).read_bytes())
    write_headers(place)
    core = sorted(f"{_FOLDER}/py/{one.name}" for one in (place / _FOLDER / "py").glob("*.c"))
    files = [
        *_OWN,
        *core,
        *(f"{_FOLDER}/extmod/mod{name}.c" for name in _EXTMOD),
        *(f"{_FOLDER}/{name}" for name in _SHARED),
    ]
    _generate_headers(place, files)
    progress.show("compiling")
    for name in _INCLUDED:
        files.remove(f"{_FOLDER}/{name}")
    _run([*ZIG_CC, *FLAGS, *_LINK, *files, "-o", "engine.wasm"], place)
    try:
        return keep_roots_in_memory(
            (place / "engine.wasm").read_bytes(), "port_search_stack", "mp_cstack_check", CHECKED
        )
    except UnknownCodeError as error:
        raise SourceError(
            f"the interpreter of Python: what was compiled cannot be read: {error}"
        ) from None


def download() -> bytes:
    """Return the archive of MicroPython's sources.

    Raises:
        SourceError: It cannot be had.
    """
    from urllib.request import urlopen

    progress.show("getting the sources of MicroPython")
    failures = []
    for url in pins.MICROPYTHON_URLS:
        try:
            with urlopen(url, timeout=_TIMEOUT) as answer:
                content: bytes = answer.read(pins.MICROPYTHON_BYTES + 1)
        except (OSError, ValueError) as error:
            failures.append(f"{url}: {error}")
            continue
        if hashlib.sha256(content).hexdigest() == pins.MICROPYTHON_SHA256:
            return content
        failures.append(f"{url}: the file does not have the pinned digest")
    raise SourceError(
        "the interpreter of Python: the sources of MicroPython cannot be downloaded: "
        + truncate("; ".join(failures), 600)
    )


def _unpack(archive: bytes, target: Path) -> None:
    """Write the files that are needed."""
    import io
    import tarfile

    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:xz") as files:
        for member in files:
            path = member.name.partition("/")[2]
            if not member.isfile() or not path.startswith(_WANTED) or ".." in path.split("/"):
                continue
            content = files.extractfile(member)
            assert content is not None
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            (target / path).write_bytes(content.read())


def _generate_headers(place: Path, files: Sequence[str]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    generated = place / "genhdr"
    generated.mkdir()

    def script(name: str, *arguments: str) -> bytes:
        return _run([sys.executable, f"{_FOLDER}/py/{name}", *arguments], place)

    (generated / "mpversion.h").write_text(
        f'#define MICROPY_GIT_TAG "v{pins.MICROPYTHON}"\n'
        '#define MICROPY_GIT_HASH ""\n'
        '#define MICROPY_BUILD_DATE ""\n'
    )
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        texts = pool.map(
            lambda file: _run([*ZIG_CC, *FLAGS, "-E", "-DNO_QSTR", file], place), files
        )
        (generated / "all.i").write_bytes(b"".join(texts))
    for what in ("qstr", "module", "root_pointer"):
        folder, collected = f"genhdr/{what}", f"genhdr/{what}.all"
        script("makeqstrdefs.py", "split", what, "genhdr/all.i", folder, "_")
        script("makeqstrdefs.py", "cat", what, "_", folder, collected)
    made = script("makemoduledefs.py", "genhdr/module.all")
    (generated / "moduledefs.h").write_bytes(made)
    made = script("make_root_pointers.py", "genhdr/root_pointer.all")
    (generated / "root_pointers.h").write_bytes(made)
    _preprocess_names(place)
    (generated / "qstrdefs.generated.h").write_bytes(script("makeqstrdata.py", "genhdr/names.h"))


def _preprocess_names(place: Path) -> None:
    """Run the preprocessor over the lists of names, without touching the names."""
    lists = (place / _FOLDER / "py" / "qstrdefs.h", place / "genhdr" / "qstr.all")
    lines = [line for path in lists for line in path.read_text().splitlines()]
    lines = [f'"{line}"' if line.startswith("Q(") else line for line in lines]
    (place / "genhdr" / "names.c").write_text("\n".join(lines) + "\n")
    text = _run([*ZIG_CC, *FLAGS, "-E", "genhdr/names.c"], place).decode()
    lines = [line[1:-1] if line.startswith('"Q(') else line for line in text.splitlines()]
    (place / "genhdr" / "names.h").write_text("\n".join(lines))


def _run(command: list[str], place: Path) -> bytes:
    return run_tool(command, place, "the interpreter of Python: the compiler failed")
