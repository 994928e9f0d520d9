"""Find the Python interpreter that child processes run, and where it finds this package.

`sys.executable` need not be an interpreter: in a frozen application it is the application, which
would start itself again and again; under uWSGI, or where a program embeds Python, it is that
program, or empty. So before a program is used it is asked once per process whether it is an
interpreter, and a program that does not look like one is not even asked.

`PLUGWASM_PYTHON` in the environment names the interpreter; the application may set it as well, in
`os.environ`.

Decisions: docs/decisions.md, 39.1 and 39.2.
"""

from __future__ import annotations

import os
import sys

from ..errors import Error, truncate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

VARIABLE = "PLUGWASM_PYTHON"
ANSWER_SECONDS = 10.0
"""Seconds after which a program that does not answer is no interpreter."""

_KEPT_ENVIRONMENT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")
"""Variables without which some interpreters do not start."""
_QUESTION = "import sys; print({} * {}, sys.implementation.cache_tag)"


class Interpreter:
    """An interpreter, and the options and environment to start it with.

    It reads nothing of the application: no site, no user packages, no variables, no current
    directory.
    """

    __slots__ = ("environment", "options", "path")

    def __init__(self, path: str, home: str | None = None) -> None:
        """`home` is the PYTHONHOME that the interpreter needs in order to find its library."""
        self.path = path
        self.options = ["-I", "-S"] if home is None else ["-P", "-s", "-S"]
        self.environment = {
            name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ
        }
        if home is not None:
            self.environment["PYTHONHOME"] = home


class NoInterpreterError(Error):
    """No interpreter was found. The message says why, and what to do."""


_interpreters: dict[tuple[str, ...], Interpreter] = {}
"""Interpreters that answered, by what they were found by. The state of this module."""


def find_interpreter() -> Interpreter:
    """Return the interpreter to start.

    Raises:
        NoInterpreterError: There is none.
    """
    named = os.environ.get(VARIABLE)
    key = ("named", named) if named else (str(sys.executable), str(getattr(sys, "frozen", "")))
    known = _interpreters.get(key)
    if known is None:
        known = _interpreters[key] = _find_named(named) if named else _search()
    return known


def find_package_folders(packages: Iterable[str]) -> list[str]:
    """Return the folders of packages, to put into the path of a process that starts without the
    application's paths.
    """
    from importlib.util import find_spec

    found: dict[str, None] = {}
    for name in packages:
        origin = getattr(sys.modules.get(name), "__file__", None)
        if origin is None:
            try:
                spec = find_spec(name)
            except (ImportError, ValueError):  # loaded from an unknown place
                spec = None
            origin = spec.origin if spec is not None else None
        if origin is not None:
            try:
                found[os.path.dirname(os.path.dirname(os.path.abspath(origin)))] = None
            except OSError:  # relative to a deleted directory
                continue
    return list(found)


def _find_named(path: str) -> Interpreter:
    found = _probe(path)
    if isinstance(found, str):
        raise NoInterpreterError(
            f"`{truncate(path)}`, which the environment variable {VARIABLE} names, {found}"
        )
    return found


def _search() -> Interpreter:
    if _runs_this_process(sys.executable):
        return Interpreter(sys.executable)
    reasons: dict[str, str] = {}
    for path in _candidates():
        found = _probe(path)
        if not isinstance(found, str):
            return found
        reasons[path] = found
    if getattr(sys, "frozen", False):
        raise NoInterpreterError("this program is a frozen application and no Python interpreter")
    if not sys.executable:
        raise NoInterpreterError(
            "Python does not say where its interpreter is (`sys.executable` is empty)"
        )
    raise NoInterpreterError(
        f"`{truncate(sys.executable)}` (`sys.executable`) "
        f"{reasons.get(sys.executable, 'is no Python interpreter')}"
    )


def _candidates() -> Iterator[str]:
    """Yield programs that are worth asking. Never the program of a frozen application, whatever its
    name.
    """
    major, minor = sys.version_info[:2]
    is_frozen = bool(getattr(sys, "frozen", False))
    spawn = sys.modules.get("multiprocessing.spawn")
    seen: set[str] = set()
    paths: list[object] = []
    if not is_frozen:
        paths += [
            sys.executable,
            getattr(spawn, "_python_exe", None),
            getattr(sys, "_base_executable", None),
        ]
    for prefix in (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix):
        if sys.platform == "win32":
            paths += [
                os.path.join(prefix, "python.exe"),
                os.path.join(prefix, "Scripts", "python.exe"),
            ]
        else:
            paths += [
                os.path.join(prefix, "bin", name)
                for name in (f"python{major}.{minor}", f"python{major}", "python")
            ]
    for path in paths:
        try:
            path = os.fsdecode(path)  # type: ignore[arg-type]
        except TypeError:
            continue
        if (
            path in seen
            or not _is_named_like_python(path)
            or (is_frozen and _is_this_program(path))
        ):
            continue
        seen.add(path)
        yield path


def _is_named_like_python(path: str) -> bool:
    """Return whether a path is named like a Python interpreter. Another program may do anything
    when it is started.
    """
    import re

    return os.path.isabs(path) and bool(
        re.fullmatch(
            r"(?i)(python|pypy|graalpy)w?[\d.]*t?d?(-\w+)?(\.exe)?", os.path.basename(path)
        )
    )


def _is_this_program(path: str) -> bool:
    try:
        return os.path.samefile(
            path, "/proc/self/exe" if sys.platform == "linux" else sys.executable
        )
    except OSError:
        return False


def _runs_this_process(path: str | None) -> bool:
    """Return whether the path certainly is the interpreter that runs this process, so that it need
    not be asked.
    """
    if (
        not path
        or sys.platform != "linux"
        or getattr(sys, "frozen", False)
        or not sys.orig_argv
        or not _is_named_like_python(path)
    ):
        return False
    return not os.environ.get("PYTHONHOME") and os.access(path, os.X_OK) and _is_this_program(path)


def _probe(path: str) -> Interpreter | str:
    """Ask a program whether it is a suitable interpreter.

    Returns:
        The interpreter, or what is wrong with it as the rest of a sentence.
    """
    found = Interpreter(path)
    wrong = _find_problem(found)
    if wrong is not None and (home := os.environ.get("PYTHONHOME")):
        found = Interpreter(path, home)
        wrong = wrong if _find_problem(found) else None
    return found if wrong is None else wrong


def _find_problem(asked: Interpreter) -> str | None:
    import subprocess

    from .child_processes import ChildProcess

    one, other = (int.from_bytes(os.urandom(4), "big") for _ in range(2))
    command = [asked.path, *asked.options, "-c", _QUESTION.format(one, other)]
    silent = subprocess.DEVNULL
    try:
        process = subprocess.Popen(
            command,
            stdin=silent,
            stdout=subprocess.PIPE,
            stderr=silent,
            env=asked.environment,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return f"cannot be started: {getattr(error, 'strerror', None) or error}"
    child = ChildProcess(process, leads=True)
    with process:
        try:
            answer = process.communicate(timeout=ANSWER_SECONDS)[0][:1000].split()
        except subprocess.TimeoutExpired:
            return "is no Python interpreter: it does not answer"
        finally:
            child.kill()  # with what it started, or the pipe would stay open
    if len(answer) != 2 or answer[0] != str(one * other).encode():
        return "is no Python interpreter: it does not do what it is told by `-c`"
    ours = str(sys.implementation.cache_tag)
    if answer[1] != ours.encode():
        theirs = truncate(answer[1].decode("ascii", "replace"))
        return f"is another Python ({theirs}) than the one that runs this program ({ours})"
    return None
