"""The program that compiles and runs workers is an interpreter that was found and verified, and
never the application itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from weakref import WeakValueDictionary

import pytest

import plugwasm
from plugwasm import IsolatedPlugin, ModuleError, Plugin, ProcessLimits, WorkerError
from plugwasm._platform import python_executable
from plugwasm._platform.python_executable import find_interpreter
from plugwasm._runtime import modules
from tests.support.paths import ROOT

REST = "".join(f"(func (result i64) (i64.const {number * 2**40 + 1}))" for number in range(600))
HEAVY = f'(module (func (export "run")) {REST})'
USES = f"""
import plugwasm
print(plugwasm.Plugin({HEAVY!r}).call("run"), plugwasm.IsolatedPlugin('(module (func (export "run")))').call("run"))
"""


@pytest.fixture(autouse=True)
def _nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUGWASM_CACHE", "off")
    monkeypatch.setattr(python_executable, "_interpreters", {})
    monkeypatch.setattr(modules, "_seen", WeakValueDictionary())
    monkeypatch.setattr(modules, "_kept", [])
    monkeypatch.delenv("PLUGWASM_PYTHON", raising=False)


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def application(path: Path, log: Path) -> str:
    """Write a program that records that it was started and ignores its arguments, as a graphical
    application would."""
    return script(path, f'echo started >> "{log}"; echo hello')


def run(
    program: str, *, python: str = sys.executable, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    names = {"PATH": os.environ["PATH"], "PLUGWASM_CACHE": "off", **environment}
    return subprocess.run(
        [python, "-c", program],
        cwd=cwd,
        env=names,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


# ---- what is no interpreter ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["myapp", "python3"])
def test_frozen_application_is_not_started(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frozen application is never started, whatever its name."""
    log = tmp_path / "log"
    monkeypatch.setattr(sys, "executable", application(tmp_path / name, log))
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(
        ModuleError, match=r"frozen application.*PLUGWASM_PYTHON.*`Limits\(compile_seconds=None\)`"
    ):
        Plugin(HEAVY)
    with pytest.raises(
        WorkerError, match=r"frozen application.*`ProcessLimits\.python`.*PLUGWASM_PYTHON"
    ):
        IsolatedPlugin(HEAVY)
    assert not log.exists()
    assert Plugin(HEAVY, limits=plugwasm.Limits(compile_seconds=None)).call("run") == b""


def test_interpreter_of_frozen_application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frozen application can name an interpreter."""
    real, log = sys.executable, tmp_path / "log"
    monkeypatch.setattr(sys, "executable", application(tmp_path / "myapp", log))
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setenv("PLUGWASM_PYTHON", real)
    assert Plugin(HEAVY).call("run") == b""
    assert IsolatedPlugin(HEAVY).call("run") == b""
    monkeypatch.delenv("PLUGWASM_PYTHON")
    assert IsolatedPlugin(HEAVY, process=ProcessLimits(python=real)).call("run") == b""
    assert not log.exists()


@pytest.mark.parametrize("name", ["uwsgi", "apache2", "blender", "pythonic-app.bin", "relative"])
def test_embedding_program_is_not_started(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that embeds Python is not started, and its interpreter is found."""
    log = tmp_path / "log"
    path = application(tmp_path / name, log)
    monkeypatch.setattr(sys, "executable", "python3" if name == "relative" else path)
    assert Plugin(HEAVY).call("run") == b""
    assert IsolatedPlugin(HEAVY).call("run") == b""
    assert not log.exists()


@pytest.mark.parametrize(
    "what", ["echo hello", "exit 0", "exit 3", "exec cat", "sleep 1000 & sleep 1000", 'echo "$*"']
)
def test_executable_only_named_python(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An executable that is only named python is verified and rejected."""
    monkeypatch.setattr(python_executable, "ANSWER_SECONDS", 1.0)
    monkeypatch.setattr(sys, "executable", script(tmp_path / "python3", what))
    assert Plugin(HEAVY).call("run") == b""
    found = find_interpreter().path
    assert found != sys.executable
    assert found.startswith((sys.prefix, sys.base_prefix))


@pytest.mark.parametrize("executable", [None, "", "/no/such/python", "/dev/null"])
def test_executable_is_looked_for(executable: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """If Python does not know its executable, it is searched for."""
    monkeypatch.setattr(sys, "executable", executable)
    assert Plugin(HEAVY).call("run") == b""
    assert IsolatedPlugin(HEAVY).call("run") == b""


@pytest.mark.parametrize(
    ("executable", "says"),
    [("", "does not say"), ("/opt/uwsgi", "`/opt/uwsgi`.*is no Python interpreter")],
)
def test_no_interpreter_error(
    executable: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If there is no interpreter, the error says what to do."""
    monkeypatch.setattr(sys, "executable", executable)
    monkeypatch.setattr(sys, "_base_executable", executable)
    monkeypatch.delitem(
        sys.modules, "multiprocessing.spawn", raising=False
    )  # which may have been told another
    for name in ("prefix", "exec_prefix", "base_prefix", "base_exec_prefix"):
        monkeypatch.setattr(sys, name, str(tmp_path))
    with pytest.raises(
        ModuleError, match=rf"{says}.*PLUGWASM_PYTHON.*`Limits\(compile_seconds=None\)`"
    ):
        Plugin(HEAVY)
    with pytest.raises(WorkerError, match=rf"{says}.*`ProcessLimits\.python`.*PLUGWASM_PYTHON"):
        IsolatedPlugin(HEAVY)
    assert Plugin('(module (func (export "run")))').call("run") == b"", "what is light needs none"


def test_environment_variable_is_binding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter that the variable names is verified, and no other is used instead."""
    for named, says in (
        (script(tmp_path / "mine", "echo 1"), "is no Python interpreter"),
        (str(tmp_path / "nothing"), "cannot be started: No such file"),
        (str(ROOT / "README.md"), "cannot be started: Permission denied"),
        (
            script(
                tmp_path / "other",
                f'exec "{sys.executable}" -c "$(echo "$4" | sed s/cache_tag/name/)"',
            ),
            "is another Python .cpython. than",
        ),
    ):
        monkeypatch.setenv("PLUGWASM_PYTHON", named)
        with pytest.raises(
            ModuleError,
            match=f"`{named}`, which the environment variable PLUGWASM_PYTHON names, {says}",
        ):
            Plugin(HEAVY)


def test_interpreter_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    monkeypatch.setattr(
        sys,
        "executable",
        script(tmp_path / "python3", f'echo >> "{log}"; exec "{sys.executable}" "$@"'),
    )
    for _ in range(3):
        assert find_interpreter().path == sys.executable
    assert log.read_text() == "\n"
    monkeypatch.setattr(python_executable, "_interpreters", {})
    monkeypatch.undo()
    monkeypatch.setattr(
        python_executable,
        "_probe",
        lambda path: pytest.fail("what runs this process need not be asked"),
    )
    if sys.platform == "linux":
        assert find_interpreter().path == sys.executable


def test_pythonhome_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter that needs PYTHONHOME to find its library gets it."""
    real = Path(sys.base_prefix, "bin", f"python{sys.version_info[0]}.{sys.version_info[1]}")
    path = script(tmp_path / "python3", f'[ -n "$PYTHONHOME" ] || exit 1; exec "{real}" "$@"')
    monkeypatch.setattr(sys, "executable", path)
    monkeypatch.setenv("PYTHONHOME", sys.base_prefix)
    assert find_interpreter().path == path
    assert Plugin(HEAVY).call("run") == b""
    assert IsolatedPlugin(HEAVY).call("run") == b""


# ---- whole programs ------------------------------------------------------------------------------


def test_deleted_current_directory(tmp_path: Path) -> None:
    """Plugins can be compiled in a deleted current directory."""
    gone = tmp_path / "gone"
    gone.mkdir()
    # Python 3.13.0 itself cannot import `socket` there.
    program = f"import os, socket, sys; os.rmdir({str(gone)!r}); assert '' in sys.path" + USES
    done = run(program, cwd=gone)
    assert (done.stdout, done.stderr) == ("b'' b''\n", "")


def test_virtual_environment(tmp_path: Path) -> None:
    """Plugins run in a virtual environment with variables for Python."""
    (tmp_path / "plugwasm").mkdir()
    (tmp_path / "ctypes.py").write_text("raise SystemExit(99)")
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.argv.append('custom')")
    home = {
        "PYTHONHOME": sys.base_prefix,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path[1:]), str(tmp_path)]),
    }
    done = run(USES, **home)
    assert (done.stdout, done.stderr) == ("b'' b''\n", "")


def test_from_a_zip_archive(tmp_path: Path) -> None:
    archive = tmp_path / "app.zip"
    with zipfile.ZipFile(archive, "w") as made:
        for path in (ROOT / "plugwasm").rglob("*"):
            if path.suffix in (".py", ".wat"):
                made.write(path, f"lib/{path.relative_to(ROOT)}")
    packages = Path(plugwasm.__file__).parent.parent
    others = [folder for folder in sys.path if folder and Path(folder) != packages]
    program = f"import sys; sys.path[:] = [{str(archive / 'lib')!r}, *{others!r}]; "
    program += (
        "sys.meta_path[:] = [finder for finder in sys.meta_path if 'editable' not in repr(finder)]"
        + USES
    )
    program += "assert 'app.zip' in plugwasm.__file__, plugwasm.__file__"
    done = run(program)
    assert (done.stdout, done.stderr) == ("b'' b''\n", "")


EMBEDDING = """
#include <Python.h>
int main(int argc, char **argv) {
    PyConfig config;
    PyConfig_InitPythonConfig(&config);
    PyConfig_SetBytesString(&config, &config.executable, argv[0]);
    PyConfig_SetBytesString(&config, &config.home, HOME);
    if (argc != 2) { puts("usage: app PROGRAM"); return 7; }
    if (PyStatus_Exception(Py_InitializeFromConfig(&config))) return 8;
    int failed = PyRun_SimpleString(argv[1]);
    return Py_FinalizeEx() < 0 || failed ? 9 : 0;
}
"""
COMPILER = shutil.which("cc")
LIBRARY = Path(
    sysconfig.get_config_var("LIBDIR") or "/", sysconfig.get_config_var("LDLIBRARY") or "-"
)


@pytest.mark.skipif(
    not COMPILER or LIBRARY.suffix != ".so" or not LIBRARY.exists(),
    reason="needs a C compiler and libpython",
)
def test_embedded_python(tmp_path: Path) -> None:
    """Plugins run in a program that embeds Python."""
    source, program = tmp_path / "app.c", tmp_path / "app"
    source.write_text(EMBEDDING)
    version = sysconfig.get_config_var("LDVERSION")
    flags = [
        f"-I{sysconfig.get_paths()['include']}",
        f"-L{LIBRARY.parent}",
        f"-lpython{version}",
        f"-Wl,-rpath,{LIBRARY.parent}",
    ]
    subprocess.run(
        [str(COMPILER), f'-DHOME="{sys.base_prefix}"', str(source), "-o", str(program), *flags],
        check=True,
    )
    paths = f"import sys; sys.path[:0] = {[str(ROOT), *filter(None, sys.path)]!r}; assert sys.executable == {str(program)!r}\n"
    done = subprocess.run(
        [str(program), paths + USES],
        env={"PLUGWASM_CACHE": "off", "PATH": "/nowhere"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("b'' b''\n", "", 0)
