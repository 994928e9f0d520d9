"""The package as users have it: a wheel, installed into a fresh environment."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.slow,  # builds and installs packages
    pytest.mark.toolchain,
    pytest.mark.timeout(900),
]


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this clone."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    run(*pip, f"--wheel-dir={folder}", ROOT, cwd=folder)
    (found,) = folder.glob("*.whl")
    return found


def test_the_wheel_has_what_git_has(wheel: Path) -> None:
    """Each module, each template and each kit is in it, and nothing that a build left behind."""
    listed = run("git", "ls-files", "-z", "plugwasm", "pdk", cwd=ROOT).split("\0")
    expected = {
        name.replace("pdk/", "plugwasm/_pdk/", 1) if name.startswith("pdk/") else name
        for name in listed
        if name and (ROOT / name).exists()
    }
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert found == expected


def test_a_user_gets_a_plugin_in_a_minute(wheel: Path, tmp_path: Path) -> None:
    """In a fresh environment, away from the clone: new, build, test, call, and run scripts."""
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    requirement = f"plugwasm[cli,script] @ {wheel.as_uri()}"
    run(python, "-m", "pip", "install", "--quiet", requirement, cwd=tmp_path)
    plugwasm = environment / "bin" / "plugwasm"
    include = run(python, "-c", "import plugwasm; print(plugwasm.get_include())", cwd=tmp_path)
    assert (Path(include.strip()) / "plugwasm.h").is_file()
    assert include.startswith(str(environment))
    run(plugwasm, "new", "c", "greet", cwd=tmp_path)
    shown = run(plugwasm, "build", "greet", cwd=tmp_path)
    assert "exports  greet" in shown
    assert "3 passed" in run(plugwasm, "test", "greet", cwd=tmp_path)
    call = [plugwasm, "call", "greet/plugin.wasm", "greet", "--input", "Ada"]
    assert run(*call, cwd=tmp_path) == "Hello, Ada!"
    for language in ("javascript", "python"):
        run(plugwasm, "new", language, language, cwd=tmp_path)
        assert "3 passed" in run(plugwasm, "test", language, cwd=tmp_path)
    (tmp_path / "rules.py").write_text("def greet(name: str):\n    return f'Hello, {name}!'\n")
    code = """
import pathlib, plugwasm
for script in plugwasm.script("python", pathlib.Path("rules.py")), plugwasm.script(
    "javascript", "export const greet = (name) => `Hello, ${name}!`;", input="text"
):
    with plugwasm.Plugin(script) as plugin:
        print(plugin.call("greet", "Ada", returns=str))
"""
    assert run(python, "-c", code, cwd=tmp_path) == "Hello, Ada!\n" * 2
