"""`plugwasm build` of a script without a project."""

from __future__ import annotations

from pathlib import Path

import pytest

import plugwasm
from tests.support.command_line import run_command as run
from tests.support.scripts import need_engine

pytest.importorskip("typer")


@pytest.fixture(autouse=True)
def _engine() -> None:
    need_engine()


def test_a_script_is_built(tmp_path: Path) -> None:
    """The module is beside the script, or where the option says, and is described."""
    script = tmp_path / "rules.js"
    script.write_text("export const f = () => 1;\nexport const g = () => 2;")
    done = run("build", str(script))
    assert done.code == 0, done.err
    assert "exports  f, g" in done.out.decode()
    assert "WASI" in done.out.decode()
    with plugwasm.Plugin(tmp_path / "rules.wasm", True) as plugin:
        assert plugin.call("g") == b"2"
    assert run("build", str(script), "-o", str(tmp_path / "x.wasm")).code == 0
    assert (tmp_path / "x.wasm").read_bytes() == (tmp_path / "rules.wasm").read_bytes()


def test_a_script_that_is_wrong(tmp_path: Path) -> None:
    """The error names the file, the line and the column; no module is written."""
    script = tmp_path / "rules.js"
    script.write_text("export const f = () => {")
    done = run("build", str(script))
    assert done.code == 1
    assert "rules.js:1:25" in done.err
    assert not (tmp_path / "rules.wasm").exists()


def test_a_script_that_is_missing(tmp_path: Path) -> None:
    """The error names the file."""
    done = run("build", str(tmp_path / "none.js"))
    assert done.code == 2
    assert done.err == f"error: no such file: {tmp_path / 'none.js'}\n"
    assert "Traceback" not in done.err


def test_a_script_in_python_is_built(tmp_path: Path) -> None:
    """A script in Python becomes a module, too; an error has its line."""
    need_engine("python")
    script = tmp_path / "rules.py"
    script.write_text("def f(): return 1\ndef g(): return 2\n")
    done = run("build", str(script))
    assert done.code == 0, done.err
    with plugwasm.Plugin(tmp_path / "rules.wasm", True) as plugin:
        assert plugin.call("g") == b"2"
    script.write_text("x = 1\ndef f(:\n")
    done = run("build", str(script))
    assert done.code == 1
    assert "rules.py:2:7" in done.err


def test_a_kept_engine_needs_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zig is needed until the engine is built, and missed in a folder that has none."""
    for finder in ("find_spec", "find_program"):
        monkeypatch.setattr(f"plugwasm._project.languages.zig.{finder}", lambda _: None)
    script = tmp_path / "rules.js"
    script.write_text("export const f = () => 1;")
    done = run("build", str(script))
    assert done.code == 0, done.err
    assert "building rules.js\n" in done.err
    monkeypatch.setenv("PLUGWASM_ENGINES", str(tmp_path / "none"))
    done = run("build", str(script))
    assert done.code == 2
    assert "Zig" in done.err
    assert "pip install 'plugwasm[script]'" in done.err
