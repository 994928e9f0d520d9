"""Generate bindings for a schema and build a plugin with them."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from conformance.building import NotBuiltError, check_tools
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
    reads_json: bool = True
    """Whether the bindings read JSON. Without, it is text for the plugin."""


BUILDS = {
    "assemblyscript": Build(
        "npm",
        (
            ("npm", "pkg", "set", "devDependencies.@plugwasm/pdk=file:{root}/pdk/assemblyscript"),
            ("npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--silent"),
            (
                *("npx", "asc", "assembly/index.ts", "-O", "-o", "{out}"),
                *("--use", "abort=~lib/@plugwasm/pdk/assembly/index/abort"),
            ),
        ),
        {"plugin.ts": "assembly/plugin.ts"},
        ("assemblyscript/assembly/*.ts",),
    ),
    "c": Build(
        "zig",
        (
            (
                *("{python}", "-m", "ziglang", "cc", "-std=c99", "-Wall", "-Wextra", "-Werror"),
                *("-target", "wasm32-freestanding", "-O2", "-s", "-nostdlib", "-Wl,--no-entry"),
                *("-fno-sanitize=undefined", "-I", "{root}/pdk/c/include"),
                *("src/bindings.c", "src/plugin.c", "-o", "{out}"),
            ),
            # The same with a C library, where malloc owns the memory.
            (
                *("{python}", "-m", "ziglang", "cc", "-std=c99", "-Wall", "-Wextra", "-Werror"),
                *("-target", "wasm32-wasi", "-Os", "-mexec-model=reactor", "-I"),
                *("{root}/pdk/c/include", "src/bindings.c", "src/plugin.c", "-o", "wasi.wasm"),
            ),
        ),
        {"plugin.c": "src/plugin.c"},
        ("c/include/*",),
        reads_json=False,
    ),
    "cpp": Build(
        "zig",
        (
            (
                *("{python}", "-m", "ziglang", "c++", "-std=c++20", "-fno-exceptions", "-Os", "-s"),
                *("-Wall", "-Wextra", "-Werror", "-target", "wasm32-wasi", "-mexec-model=reactor"),
                *(
                    "-fno-sanitize=undefined",
                    "-Wl,-z,stack-size=262144",
                    "-I",
                    "{root}/pdk/c/include",
                ),
                *("-I", "{root}/pdk/cpp/include", "-isystem", "{nlohmann}"),
                *("src/bindings.cpp", "src/plugin.cpp", "-o", "{out}"),
            ),
        ),
        {"plugin.cpp": "src/plugin.cpp"},
        ("c/include/*", "cpp/include/*"),
        wasi=True,
    ),
    "go": Build(
        "go",
        (
            ("go", "mod", "edit", "-replace", "plugwasm.dev/pdk={root}/pdk/go"),
            ("env", "GOOS=wasip1", "GOARCH=wasm", "go", "vet"),
            (
                *("env", "GOOS=wasip1", "GOARCH=wasm", "go", "build", "-buildmode=c-shared"),
                *("-trimpath", "-ldflags=-s -w", "-o", "{out}"),
            ),
        ),
        {"plugin.go": "plugin.go"},
        ("go/*.go",),
        wasi=True,
    ),
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
    "zig": Build(
        "zig",
        (
            (
                *("{python}", "-m", "ziglang", "build-exe", "-target", "wasm32-freestanding"),
                *("-O", "ReleaseSmall", "-fno-entry", "-rdynamic", "--stack", "65536"),
                *("--dep", "plugwasm", "-Mroot=src/plugin.zig"),
                *("-Mplugwasm={root}/pdk/zig/src/plugwasm.zig", "-femit-bin={out}"),
            ),
        ),
        {"plugin.zig": "src/plugin.zig"},
        ("zig/src/*.zig",),
    ),
}
LANGUAGES = sorted(BUILDS)


def _nlohmann() -> Path:
    """Return the folder of nlohmann/json, which a package of PyPI has."""
    spec = importlib.util.find_spec("nlohmann_json")
    return Path(spec.origin).parent / "include" if spec and spec.origin else Path("missing")


def require(tool: str) -> None:
    """Skip the test where a tool is missing; fail in CI."""
    try:
        check_tools((tool,))
    except NotBuiltError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


def build(
    language: str,
    project: Path,
    schema: Path = RICH,
    *,
    stubs: bool = False,
    implementation: str | None = None,
) -> Path:
    """Generate a project, put an implementation into it, and build it.

    Args:
        language: One of `LANGUAGES`.
        project: An empty directory.
        schema: The schema.
        stubs: Whether to leave the generated implementation as it is.
        implementation: The text of the implementation; that of `plugins/` if not given.
    """
    way = BUILDS[language]
    require(way.tool)
    generate(schema, language, project)
    if not stubs:
        for name, place in way.sources.items():
            text = implementation or (HERE / "plugins" / language / name).read_text()
            (project / place).write_text(text)
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
        "nlohmann": str(_nlohmann()),
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
