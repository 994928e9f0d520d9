"""Generate bindings for a schema and build a plugin with them."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from conformance.implementations import TOOLS
from plugwasm._bindings.files import generate
from tests.support.paths import ROOT

HERE = Path(__file__).parent
RICH = HERE / "rich.yaml"
CACHE = Path(os.environ.get("PLUGWASM_BINDINGS", Path.home() / ".cache" / "plugwasm-bindings"))


@dataclass(frozen=True)
class Build:
    """How a generated project is built. In the words `{root}`, `{python}`, `{out}`, `{cargo}` and
    `{cache}` are filled in.
    """

    tool: str
    commands: tuple[tuple[str, ...], ...]
    sources: dict[str, str]
    """The developer's files: from the folder of the language in `plugins/`, into the project."""
    kit: tuple[str, ...]
    wasi: bool = False


BUILDS = {
    "rust": Build(
        "cargo",
        (
            (
                *("{cargo}", "build", "--quiet", "--release", "--target", "wasm32-unknown-unknown"),
                *("--target-dir", "{cache}/rust", "--config"),
                'patch.crates-io.plugwasm-pdk.path="{root}/pdk/rust/plugwasm-pdk"',
            ),
            ("cp", "{cache}/rust/wasm32-unknown-unknown/release/plugin.wasm", "{out}"),
        ),
        {"lib.rs": "src/lib.rs"},
        ("rust/*/src/*.rs", "rust/*/Cargo.toml"),
    ),
}
LANGUAGES = sorted(BUILDS)


def require(tool: str) -> None:
    """Skip the test where a tool is missing; fail in CI."""
    command, advice = TOOLS[tool]
    if (
        shutil.which(command[0]) is not None
        and not subprocess.run(command, capture_output=True, check=False).returncode
    ):
        return
    if os.environ.get("CI"):
        pytest.fail(f"{tool} is missing: {advice}")
    pytest.skip(f"{tool} is missing: {advice}")


def build(language: str, project: Path, schema: Path = RICH, *, stubs: bool = False) -> Path:
    """Generate a project, put the implementation of `plugins/` into it, and build it.

    Args:
        language: One of `LANGUAGES`.
        project: An empty directory.
        schema: The schema.
        stubs: Whether to leave the generated implementation as it is.
    """
    way = BUILDS[language]
    require(way.tool)
    generate(schema, language, project)
    if not stubs:
        for name, place in way.sources.items():
            shutil.copy(HERE / "plugins" / language / name, project / place)
    digest = hashlib.sha256(repr(way).encode())
    kit = (file for pattern in way.kit for file in (ROOT / "pdk").glob(pattern))
    for file in (*sorted(kit), *sorted(file for file in project.rglob("*") if file.is_file())):
        digest.update(file.read_bytes())
    target = CACHE / f"{language}-{digest.hexdigest()[:20]}.wasm"
    if target.exists():
        return target
    CACHE.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(f".{os.getpid()}.wasm")
    words = {
        "out": str(part),
        "python": sys.executable,
        "root": str(ROOT),
        "cache": str(CACHE),
        "cargo": os.environ.get("PLUGWASM_CARGO", "cargo"),
    }
    for command in way.commands:
        done = subprocess.run(
            [word.format(**words) for word in command],
            cwd=project,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command[:6]}:\n{(done.stdout + done.stderr)[-4000:]}"
        assert "warning" not in done.stderr, done.stderr[-4000:]
    part.replace(target)
    return target
