"""Build the Python engine: MicroPython's sources and the files beside this one, with zig's compiler.

MicroPython's own programs collect the names and the modules that its sources mention; they are run
as its makefile runs them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_HERE = os.path.dirname(os.path.abspath(__file__))
_PORT = ("engine.c", "heap.c", "signatures.c", "system.c")
_NOT_OF_PY = ("gc.c",)
_EXTMOD = (
    "modbinascii.c",
    "moddeflate.c",
    "modhashlib.c",
    "modheapq.c",
    "modjson.c",
    "modrandom.c",
    "modre.c",
    "modtime.c",
)
_SHARED = ("shared/timeutils/timeutils.c",)

_TARGET = ("-target", "wasm32-wasi", "-mexec-model=reactor")
_OPTIONS = (
    "-std=gnu99",
    "-O2",
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
)
_LINK = ("-Wl,-z,stack-size=1048576", "-Wl,--export-table", "-Wl,--growable-table")


def build(sources: str, header: str, into: str, zig: Sequence[str], extra: Sequence[str] = ()) -> str:
    """Build the module, and return its path.

    Args:
        sources: The directory of MicroPython's sources.
        header: The directory of plugwasm.h.
        into: An empty directory to work in.
        zig: The command of zig.
    """
    generated = os.path.join(into, "genhdr")
    os.makedirs(generated, exist_ok=True)
    py = [
        f"py/{name}"
        for name in sorted(os.listdir(os.path.join(sources, "py")))
        if name.endswith(".c") and name not in _NOT_OF_PY
    ]
    listed = [*py, *(f"extmod/{name}" for name in _EXTMOD), *_SHARED]
    files = [os.path.join(_HERE, name) for name in _PORT]
    files += [os.path.join(sources, name) for name in listed]
    include = ["-I" + part for part in (_HERE, into, sources, header)]
    options = [*_TARGET, *_OPTIONS, *include, *extra]
    _generate_headers(sources, generated, files, [*zig, "cc", *options])
    out = os.path.join(into, "engine.wasm")
    _run([*zig, "cc", *options, *_LINK, *files, "-o", out], into)
    return out


def _generate_headers(
    sources: str, generated: str, files: Sequence[str], compiler: Sequence[str]
) -> None:
    py = os.path.join(sources, "py")

    def script(name: str, *arguments: str) -> str:
        return _run([sys.executable, os.path.join(py, name), *arguments], generated)

    def write(name: str, text: str) -> str:
        path = os.path.join(generated, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    script("makeversionhdr.py", os.path.join(generated, "mpversion.h"))
    read = [*compiler, "-E", "-DNO_QSTR"]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        heap = os.path.join(py, "gc.c")
        texts = list(pool.map(lambda path: _run([*read, path], generated), [*files, heap]))
    all_text = write("all.i", "".join(texts))
    for what in ("qstr", "module", "root_pointer"):
        parts = os.path.join(generated, what)
        script("makeqstrdefs.py", "split", what, all_text, parts, "_")
        script("makeqstrdefs.py", "cat", what, "_", parts, os.path.join(generated, f"{what}.all"))
    for what, program, header in (
        ("module", "makemoduledefs.py", "moduledefs.h"),
        ("root_pointer", "make_root_pointers.py", "root_pointers.h"),
    ):
        write(header, script(program, os.path.join(generated, f"{what}.all")))
    write("qstrdefs.generated.h", script("makeqstrdata.py", _preprocess_names(py, write, generated, compiler)))


def _preprocess_names(py: str, write, generated: str, compiler: Sequence[str]) -> str:
    """Run the compiler's preprocessor over the lists of names, without touching the names."""
    lines = []
    for path in (os.path.join(py, "qstrdefs.h"), os.path.join(generated, "qstr.all")):
        with open(path, encoding="utf-8") as file:
            lines += [f'"{line.rstrip()}"\n' if line.startswith("Q(") else line for line in file]
    names = write("names.c", "".join(lines))
    text = _run([*compiler, "-E", names], generated)
    lines = [line[1:-1] if line.startswith('"Q(') else line for line in text.splitlines()]
    return write("names.h", "\n".join(lines))


def _run(command: Sequence[str], directory: str) -> str:
    done = subprocess.run(command, cwd=directory, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)[:300]}\n{done.stderr[-3000:]}")
    return done.stdout


CHECKED = ("compile_node", "mp_obj_equal_not_equal", "mp_obj_tuple_unary_op")
"""Functions of MicroPython that recurse as deep as a value or a source is nested, without a look at
the stack.
"""
