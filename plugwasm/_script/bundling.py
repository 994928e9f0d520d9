"""TypeScript, and scripts of several files, made into one script by esbuild.

esbuild is a program that its user installs, from npm or elsewhere. It gets

- text on its standard input, which it only translates: it opens no file, and what the text imports
  stays an import, which the engine refuses;
- or a file that the developer names, which it bundles with all that this imports: files beside it,
  and packages in `node_modules`.

It writes a source map into what it makes, by which the engine says where in the sources an error is
(`javascript/kit/source_map.js`).

A text may be a stranger's, and is a program for esbuild: it computes constants (`const enum`), so a
few lines can stand for gigabytes. Its time, its memory (on Linux) and what it writes are bounded.

Decisions: docs/decisions.md, 61.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from time import monotonic

from .._manifest.limits import DEFAULT_LIMITS
from .._platform.child_processes import ChildProcess
from ..errors import ScriptError, SourceError, truncate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

    from .._manifest.limits import Limits

VARIABLE = "PLUGWASM_ESBUILD"
"""The environment variable that names the program."""
TYPESCRIPT = (".ts", ".mts", ".cts", ".tsx")
"""The ends of the names of files in TypeScript."""
_TARGET = (
    "--target=es2024",
    "--charset=utf8",
    "--sourcemap=inline",
    "--sources-content=false",
    "--log-level=error",
    "--log-limit=1",
    "--color=false",
)
_LONGEST = 60
"""Seconds that esbuild has if no limit says so."""
_MOST_TOLD = 2**16
"""Bytes of what it says of an error that are read."""
_LOOK_EVERY = 0.05
_OUT_OF_MEMORY = re.compile(r"out of memory|cannot allocate memory|stack exceeds", re.I)
_IMPORT = re.compile(
    r"^[ \t]*(?:import\b(?!\s*[(.])|export\b[^;'\"\n]*\bfrom\b)|\brequire\s*\(|\bimport\s*\(", re.M
)
_MODULE = re.compile(r"^[ \t]*(?:import\b(?!\s*[(.])|export\b)", re.M)
_ERROR = re.compile(
    r"\[ERROR\] (?P<what>[^\n]+)\n"
    r"(?:\n    (?P<file>[^\n]+):(?P<line>\d{1,9}):(?P<column>\d{1,9}):\n)?"
)
_MISSING_PACKAGE = re.compile(r'Could not resolve "(?![./])')
_NAME = (
    "put the program on the PATH (`npm install --global esbuild`), or name it in the environment "
    f"variable {VARIABLE}"
)
_INSTALL = f"`npm install --save-dev esbuild` in the project, or {_NAME}"


def find_esbuild(folder: str | None = None) -> str | None:
    """Return the path of the program.

    Args:
        folder: A folder of the developer; its `node_modules`, and those above it, are searched.
    """
    named = os.environ.get(VARIABLE)
    if named:
        return named
    return (folder and find_installed(folder)) or _find_on_path()


def _find_on_path() -> str | None:
    """Return the program on the PATH, whose relative entries would be folders of somebody else."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return shutil.which("esbuild", path=os.pathsep.join(filter(os.path.isabs, folders)))


def find_installed(folder: str) -> str | None:
    """Return the path of the program in the `node_modules` of a folder, or of one above it."""
    while True:
        found = shutil.which("esbuild", path=os.path.join(folder, "node_modules", ".bin"))
        above = os.path.dirname(folder)
        if found is not None or above == folder:
            return found
        folder = above


def translate(text: str, file: str, limits: Limits | None = None, *, on_path: bool = True) -> str:
    """Return a text in TypeScript as JavaScript.

    Args:
        text: The text.
        file: The name of the script in messages.
        limits: The limits of the plugin; None for the defaults.
        on_path: Whether a program on the PATH may do it. If not, only one that the environment
            variable names: somebody has decided that strangers' text is given to it.

    Raises:
        ScriptError: It is not valid, or exceeds a limit.
        SourceError: esbuild is not here, or cannot be run.
    """
    loader = "tsx" if file.endswith(".tsx") else "ts"
    name = os.path.basename(file).replace("\0", "\ufffd") or "script.ts"
    return _run(
        [
            _need(None, file) if on_path else _need_named(file),
            f"--loader={loader}",
            f"--sourcefile={name}",
            "--tsconfig-raw={}",  # which keeps it from looking for a file
            *_TARGET,
        ],
        file,
        text,
        limits=limits,
    )


def bundle(path: str, file: str, text: str) -> str:
    """Return a file of the developer, and all that it imports, as one script.

    Args:
        path: The path.
        file: The name of the script in messages.
        text: What the file has in it.

    Raises:
        ScriptError: It is not valid, or imports what is not there.
        SourceError: esbuild is not here, or cannot be run.
    """
    path = os.path.realpath(path)
    folder = os.path.dirname(path)
    is_typescript = path.endswith(TYPESCRIPT)
    esbuild = _need(folder, file) if is_typescript else find_esbuild(folder)
    if esbuild is None:
        return text  # the engine refuses what it imports, and `explain` says what to do
    style = "esm" if is_typescript or _MODULE.search(text) else "cjs"
    made = [esbuild, os.path.join(".", os.path.basename(path)), "--bundle", f"--format={style}"]
    return _run([*made, "--platform=browser", *_TARGET], file, None, folder)


def has_imports(text: str) -> bool:
    """Return whether a script seems to import something."""
    return _IMPORT.search(text) is not None


def explain(error: ScriptError) -> None:
    """Say how a file that imports others can be built, if that is what is wrong."""
    if "a script is one file" in error.message and find_esbuild() is None:
        error.message += f"; esbuild, which does that, is not here: {_INSTALL}"
        error.args = (error.message,)


def _need(folder: str | None, file: str) -> str:
    found = find_esbuild(folder)
    if found is None:
        raise SourceError(
            f"{truncate(file)}: a script in TypeScript needs esbuild, which is not here: "
            f"{_NAME if folder is None else _INSTALL}"
        )
    return found


def _need_named(file: str) -> str:
    named = os.environ.get(VARIABLE)
    if not named:
        raise SourceError(
            f"{truncate(file)}: a script in TypeScript in the directory of a plugin set is "
            f"translated only by an esbuild that the environment variable {VARIABLE} names: name "
            "it, or use what `plugwasm build` makes of the script"
        )
    return named


def _run(
    command: list[str],
    file: str,
    text: str | None,
    folder: str | None = None,
    limits: Limits | None = None,
) -> str:
    """Run esbuild, and return what it makes."""
    limits = limits or DEFAULT_LIMITS
    seconds = min(limits.compile_seconds or _LONGEST, _LONGEST)
    with (
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as made,
        tempfile.TemporaryFile() as told,
    ):
        if text is not None:
            given.write(text.encode())
            given.seek(0)
        try:
            process = subprocess.Popen(
                command,
                cwd=folder,
                stdin=given,
                stdout=made,
                stderr=told,
                start_new_session=True,  # npm may install a program that starts another one
            )
        except OSError as error:
            raise SourceError(
                f"esbuild cannot be run: {truncate(command[0])}: {truncate(str(error.strerror))}"
            ) from error
        child = ChildProcess(process, leads=True)
        try:
            _limit(process.pid, seconds, limits)
            code = _wait(child, made, seconds, limits.module_bytes, file)
        finally:
            child.kill()
        told.seek(0)
        complaint = told.read(_MOST_TOLD).decode(errors="replace")
        if code:
            if limits.compile_bytes and (code < 0 or _OUT_OF_MEMORY.search(complaint)):
                raise _beyond(
                    file, f"needs more than {limits.compile_bytes} bytes of memory", "compile_bytes"
                )
            raise _error(complaint, file)
        made.seek(0)
        return made.read().decode(errors="replace")


def _limit(pid: int, seconds: float, limits: Limits) -> None:
    """Limit the memory and the processor time of a process, and of those that it starts."""
    if sys.platform != "linux":
        return  # no other system can do that to a process that runs
    import resource

    bounds = {resource.RLIMIT_CPU: int(seconds) * (os.cpu_count() or 1) + 1}
    if limits.compile_bytes:
        bounds[resource.RLIMIT_DATA] = limits.compile_bytes
    for kind, most in bounds.items():
        try:
            _, hard = resource.prlimit(pid, kind)
            most = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.prlimit(pid, kind, (most, most))
        except OSError:
            pass  # it has ended


def _wait(child: ChildProcess, made: IO[bytes], seconds: float, most: int, file: str) -> int:
    """Wait for esbuild, and return its exit code.

    Raises:
        ScriptError: It takes too long, or writes too much.
    """
    end = monotonic() + seconds
    while True:
        try:
            code = child.wait(_LOOK_EVERY)
            ended = True
        except subprocess.TimeoutExpired:
            ended = False
        if os.fstat(made.fileno()).st_size > most:
            raise _beyond(file, f"makes more than {most} bytes of it", "module_bytes")
        if ended:
            return code or 0
        if monotonic() > end:
            raise _beyond(file, f"did not end within {seconds:g} seconds", "compile_seconds")


def _beyond(file: str, what: str, limit: str) -> ScriptError:
    return ScriptError(
        f"{truncate(file)}: esbuild {what} (`Limits.{limit}`)",
        file=file,
        limit=limit if limit == "compile_seconds" else None,
    )


def _error(told: str, file: str) -> ScriptError | SourceError:
    """Return the error for what esbuild says."""
    found = _ERROR.search(told)
    if found is None:
        return SourceError(f"{truncate(file)}: esbuild failed: {truncate(told.strip(), 500)}")
    what = found["what"]
    if _MISSING_PACKAGE.match(what):
        what += ": a package that npm has not installed, or a module of Node, which no plugin has"
    if found["file"] is None:
        return ScriptError(f"{truncate(file)}: {truncate(what, 500)}", file=file)
    line, column = int(found["line"]), int(found["column"]) + 1
    where = found["file"]
    return ScriptError(
        f"{truncate(where)}:{line}:{column}: {truncate(what, 500)}",
        file=where,
        line=line,
        column=column,
        stack=told,
    )
