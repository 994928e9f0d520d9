"""The kits work as their users get them: from a package, not from a path into the repository.

The plugin that is built is the example of the kit's README.
"""

from __future__ import annotations

import re
import sys
import tarfile
from typing import TYPE_CHECKING

import pytest

import plugwasm
from conformance.building import cargo
from conformance.kept import NotBuiltError, run

from .packages import PDK, need, pack_crates, pack_go, pack_npm, pack_zig, readme_block

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.toolchain, pytest.mark.slow, pytest.mark.timeout(600)]


def check(wasm: Path, *, wasi: bool = False) -> None:
    """Call the plugin of a README: `greet`, and `total` or `half` with a good and a bad input."""
    with plugwasm.Plugin({"wasm": [{"path": str(wasm)}]}, wasi) as plugin:
        assert plugin.call("greet", "Ada").startswith(b"Hello, Ada")
        if plugin.function_exists("total"):
            assert float(plugin.call("total", {"price": 2.5, "count": 3})) == 7.5
            with pytest.raises(plugwasm.GuestError, match="nothing was ordered") as caught:
                plugin.call("total", {"price": 1, "count": 0})
        else:
            assert plugin.call("half", "8") == b"4"
            with pytest.raises(plugwasm.GuestError, match="number") as caught:
                plugin.call("half", "7")
        assert caught.value.code == 2


def test_crates_build_a_plugin(tmp_path: Path) -> None:
    """`cargo package` makes two crates, from which a plugin is built."""
    need("cargo")
    crates = pack_crates(tmp_path, tmp_path / "target")
    readme = (crates["plugwasm-pdk"] / "README.md").read_text()
    assert readme == (PDK / "rust" / "plugwasm-pdk" / "README.md").read_text()
    project = tmp_path / "project"
    (project / "src").mkdir(parents=True)
    (project / "src" / "lib.rs").write_text(readme_block("rust/plugwasm-pdk/README.md", "rust"))
    (project / "Cargo.toml").write_text(
        '[package]\nname = "greet"\nversion = "0.1.0"\nedition = "2021"\n'
        + readme_block("rust/plugwasm-pdk/README.md", "toml")
        + "[workspace]\n[patch.crates-io]\n"
        + "".join(f"{name} = {{ path = {str(path)!r} }}\n" for name, path in crates.items())
    )
    command = [cargo(), "build", "--quiet", "--release", "--target", "wasm32-unknown-unknown"]
    run(command, project)
    check(project / "target" / "wasm32-unknown-unknown" / "release" / "greet.wasm")


def test_npm_tarball_builds_a_plugin(tmp_path: Path) -> None:
    """`npm pack` makes a tarball, from which a plugin is built as the README says."""
    need("npm")
    tarball = pack_npm(tmp_path)
    with tarfile.open(tarball) as archive:
        names = {name.removeprefix("package/") for name in archive.getnames()}
    assert {"package.json", "README.md", "LICENSE", "assembly/index.ts"} <= names
    (tmp_path / "package.json").write_text('{"private": true}')
    install = ["npm", "install", "--silent", "--no-audit", "--no-fund"]
    run([*install, "assemblyscript@0.28.20", str(tarball)], tmp_path)
    (tmp_path / "greet.ts").write_text(readme_block("assemblyscript/README.md", "ts"))
    shell = readme_block("assemblyscript/README.md", "sh")
    (command,) = re.findall(r"^npx asc .*$", shell, re.M)
    assert "WARNING" not in run(command.split(), tmp_path)
    check(tmp_path / "greet.wasm")


def test_go_module_builds_a_plugin(tmp_path: Path) -> None:
    """A module proxy that has the kit's zip is all that a project needs."""
    need("go")
    proxy = pack_go(tmp_path / "proxy", "v0.1.0")
    project = tmp_path / "project"
    project.mkdir()
    (project / "main.go").write_text(readme_block("go/README.md", "go"))
    (project / "go.mod").write_text("module example.com/greet\n\ngo 1.24\n")
    environment = {
        "GOPROXY": proxy,
        "GONOSUMDB": "*",
        "GOFLAGS": "-modcacherw",
        "GOMODCACHE": str(tmp_path / "modules"),
    }
    run(["go", "get", "plugwasm.example/pdk@v0.1.0"], project, environment)
    (command,) = re.findall(r"^GOOS=.*$", readme_block("go/README.md", "sh"), re.M)
    run(["sh", "-c", command], project, environment)
    check(project / "greet.wasm", wasi=True)


def test_zig_tarball_builds_a_plugin(tmp_path: Path) -> None:
    """`zig fetch` takes a tarball of the package's paths, and `zig build` finds the module."""
    need("zig")
    zig = [sys.executable, "-m", "ziglang"]
    tarball = pack_zig(tmp_path)
    project = tmp_path / "project"
    project.mkdir()
    (project / "greet.zig").write_text(readme_block("zig/README.md", "zig"))
    (project / "build.zig").write_text(readme_block("zig/README.md", "zig build.zig"))
    (project / "build.zig.zon").write_text(
        '.{ .name = .greet, .version = "0.1.0", .fingerprint = 0x5f9e8e1d00000001,'
        ' .paths = .{""}, .dependencies = .{} }\n'
    )
    fingerprint = run_for_fingerprint(zig, project)
    zon = project / "build.zig.zon"
    zon.write_text(zon.read_text().replace("0x5f9e8e1d00000001", fingerprint))
    run([*zig, "fetch", "--save=plugwasm", str(tarball)], project)
    run([*zig, "build", "--release=small"], project)
    check(project / "zig-out" / "bin" / "greet.wasm")


def run_for_fingerprint(zig: list[str], project: Path) -> str:
    """Return the fingerprint that Zig suggests for a package of that name."""
    with pytest.raises(NotBuiltError) as caught:
        run([*zig, "build", "--help"], project)
    return re.findall(r"use this value: (0x[0-9a-f]+)", str(caught.value))[0]
