"""TypeScript, and scripts of several files, made into one script by esbuild.

esbuild is a program that its user installs, from npm or elsewhere. It gets

- text on its standard input, which it only translates: it opens no file, and what the text imports
  stays an import, which the engine refuses;
- or a file that the developer names, which it bundles with all that this imports: files beside it,
  and packages in `node_modules`.

It writes a source map into what it makes, by which the engine says where in the sources an error is
(`javascript/kit/source_map.js`).

Decisions: docs/decisions.md, 61.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess

from ..errors import ScriptError, SourceError, truncate

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
_SECONDS = 60
_IMPORT = re.compile(
    r"^[ \t]*(?:import\b(?!\s*[(.])|export\b[^;'\"\n]*\bfrom\b)|\brequire\s*\(|\bimport\s*\(", re.M
)
_MODULE = re.compile(r"^[ \t]*(?:import\b(?!\s*[(.])|export\b)", re.M)
_ERROR = re.compile(
    r"\[ERROR\] (?P<what>[^\n]+)\n"
    r"(?:\n    (?P<file>[^\n]+):(?P<line>\d{1,9}):(?P<column>\d{1,9}):\n)?"
)
_NAME = f"put the program on the PATH, or name it in the environment variable {VARIABLE}"
_INSTALL = f"`npm install --save-dev esbuild` in the project, or {_NAME}"


def find_esbuild(folder: str | None = None) -> str | None:
    """Return the path of the program.

    Args:
        folder: A folder of the developer; its `node_modules`, and those above it, are searched.
    """
    named = os.environ.get(VARIABLE)
    if named:
        return named
    return (folder and find_installed(folder)) or shutil.which("esbuild")


def find_installed(folder: str) -> str | None:
    """Return the path of the program in the `node_modules` of a folder, or of one above it."""
    while True:
        found = shutil.which("esbuild", path=os.path.join(folder, "node_modules", ".bin"))
        above = os.path.dirname(folder)
        if found is not None or above == folder:
            return found
        folder = above


def translate(text: str, file: str) -> str:
    """Return a text in TypeScript as JavaScript.

    Raises:
        ScriptError: It is not valid.
        SourceError: esbuild is not here, or cannot be run.
    """
    loader = "tsx" if file.endswith(".tsx") else "ts"
    name = os.path.basename(file) or "script.ts"
    return _run(
        [
            _need(None, file),
            f"--loader={loader}",
            f"--sourcefile={name}",
            "--tsconfig-raw={}",  # which keeps it from looking for a file
            *_TARGET,
        ],
        file,
        text,
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


def _run(command: list[str], file: str, text: str | None, folder: str | None = None) -> str:
    """Run esbuild, and return what it makes."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            input=None if text is None else text.encode(),
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise SourceError(
            f"{truncate(file)}: esbuild did not end within {_SECONDS} seconds"
        ) from None
    except OSError as error:
        raise SourceError(
            f"esbuild cannot be run: {truncate(command[0])}: {truncate(str(error.strerror))}"
        ) from error
    if done.returncode:
        raise _error(done.stderr.decode(errors="replace"), file)
    return done.stdout.decode(errors="replace")


def _error(told: str, file: str) -> ScriptError | SourceError:
    """Return the error for what esbuild says."""
    found = _ERROR.search(told)
    if found is None:
        return SourceError(f"{truncate(file)}: esbuild failed: {truncate(told.strip(), 500)}")
    what = found["what"]
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
