"""The kits as packages, made as the registries of their languages want them."""

from __future__ import annotations

import os
import re
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest

from conformance.building import ROOT, cargo, check_tools
from conformance.kept import NotBuiltError, run

if TYPE_CHECKING:
    from pathlib import Path

PDK = ROOT / "pdk"


def need(tool: str) -> None:
    """Skip the test where a tool is missing; fail in CI."""
    try:
        check_tools((tool,))
    except NotBuiltError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


def readme_block(page: str, language: str) -> str:
    """Return the first block of a language in a README of pdk/."""
    (block, *_) = re.findall(rf"^```{language}\n(.*?)^```", (PDK / page).read_text(), re.S | re.M)
    return str(block)


def pack_crates(folder: Path, target: Path) -> dict[str, Path]:
    """Make the .crate files, and return where they were unpacked, by the names of the crates.

    `target` is for what Cargo keeps.
    """
    run(
        [
            cargo(),
            "package",
            "--quiet",
            "--no-verify",
            "--allow-dirty",
            "--target-dir",
            str(target),
        ],
        PDK / "rust",
    )
    unpacked = {}
    for name in ("plugwasm-pdk", "plugwasm-pdk-macros"):
        (crate,) = (target / "package").glob(f"{name}-[0-9]*.crate")
        with tarfile.open(crate) as archive:
            archive.extractall(folder, filter="data")
        unpacked[name] = folder / crate.stem
    return unpacked


def pack_npm(folder: Path) -> Path:
    """Make the tarball of the package of npm."""
    run(["npm", "pack", "--silent", "--pack-destination", str(folder)], PDK / "assemblyscript")
    (tarball,) = folder.glob("*.tgz")
    return tarball


def pack_go(folder: Path, version: str) -> str:
    """Make a module proxy in a folder, with one version of the module; return its address.

    The zip has the files of the module under `module@version/`, as the reference of Go modules says.
    """
    source = PDK / "go"
    module = re.findall(r"^module (\S+)$", (source / "go.mod").read_text(), re.M)[0]
    versions = folder / module / "@v"
    versions.mkdir(parents=True)
    (versions / "list").write_text(f"{version}\n")
    (versions / f"{version}.info").write_text(f'{{"Version": "{version}"}}')
    (versions / f"{version}.mod").write_text((source / "go.mod").read_text())
    with zipfile.ZipFile(versions / f"{version}.zip", "w") as archive:
        for file in sorted(source.rglob("*")):
            if file.is_file():
                archive.write(file, f"{module}@{version}/{file.relative_to(source).as_posix()}")
    return folder.as_uri()


def pack_zig(folder: Path) -> Path:
    """Make a tarball of the paths that build.zig.zon lists."""
    source = PDK / "zig"
    listed = re.findall(r"\.paths = \.\{([^}]*)\}", (source / "build.zig.zon").read_text())[0]
    tarball = folder / "plugwasm-zig.tar.gz"
    with tarfile.open(tarball, "w:gz") as archive:
        for path in re.findall(r'"([^"]+)"', listed):
            archive.add(source / path, f"plugwasm-zig/{path}")
    return tarball
