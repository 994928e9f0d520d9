"""Each kit has what the registry of its language wants, and one version."""

from __future__ import annotations

import json
import re
import tomllib

import pytest

from .packages import PDK

ROOT = PDK.parent
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_versions_are_those_of_the_package() -> None:
    """The package says its version, and the kits are released with it, under the same."""
    stated = {
        "../plugwasm/_version.py": r'__version__ = "([^"]+)"',
        "c/include/plugwasm.h": r'PDK_VERSION "([^"]+)"',
        "zig/src/plugwasm.zig": r'version = "([^"]+)"',
        "zig/build.zig.zon": r'\.version = "([^"]+)"',
        "go/pdk.go": r'Version = "([^"]+)"',
        "assemblyscript/assembly/index.ts": r'VERSION: string = "([^"]+)"',
        "assemblyscript/package.json": r'"version": "([^"]+)"',
        "rust/Cargo.toml": r'^version = "([^"]+)"',
        "rust/plugwasm-pdk/Cargo.toml": r'version = "=([^"]+)"',
    }
    for name, pattern in stated.items():
        found = re.findall(pattern, (PDK / name).read_text(), re.M)
        assert found == [VERSION], name


@pytest.mark.parametrize(
    "folder",
    ["c", "cpp", "zig", "go", "assemblyscript", "rust/plugwasm-pdk", "rust/plugwasm-pdk-macros"],
)
def test_kit_has_licence_and_readme(folder: str) -> None:
    """A package of the kit has the project's licence and a README that starts with an example."""
    assert (PDK / folder / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    readme = (PDK / folder / "README.md").read_text()
    assert readme.startswith("# ")
    assert "\n```" in readme


def test_crates_have_metadata() -> None:
    """crates.io wants a description, a licence, a readme and keywords; at most five."""
    workspace = tomllib.loads((PDK / "rust" / "Cargo.toml").read_text())["workspace"]["package"]
    for crate in ("plugwasm-pdk", "plugwasm-pdk-macros"):
        package = tomllib.loads((PDK / "rust" / crate / "Cargo.toml").read_text())["package"]
        for field in ("license", "keywords", "categories", "rust-version"):
            assert package[field] == {"workspace": True}, field
            assert workspace[field]
        assert package["description"]
        assert package["readme"] == "README.md"
    assert len(workspace["keywords"]) <= 5


def test_npm_package_has_metadata() -> None:
    """npm shows a description, a licence and keywords."""
    package = json.loads((PDK / "assemblyscript" / "package.json").read_text())
    for field in ("name", "description", "license", "keywords"):
        assert package[field], field
    assert {"assembly", "README.md", "LICENSE"} <= set(package["files"])


def test_zig_package_lists_its_files() -> None:
    """build.zig.zon lists everything that the package is made of."""
    zon = (PDK / "zig" / "build.zig.zon").read_text()
    listed = set(re.findall(r'"([^"]+)"', zon.partition(".paths")[2]))
    there = {
        path.name for path in (PDK / "zig").iterdir() if not path.name.startswith((".", "zig-"))
    }
    assert listed == there


def test_no_kit_names_an_address() -> None:
    """The project has no home page yet: packages name none, and no domain that others may own."""
    files = [path for path in PDK.rglob("*") if path.is_file() and path.name != "LICENSE"]
    texts = {path: path.read_text("utf-8") for path in files if "target" not in path.parts}
    for path, text in texts.items():
        assert not re.findall(r"plugwasm\.(?:dev|org|io|com|net)\b", text), path
    assert "plugwasm.example/pdk" in texts[PDK / "go" / "go.mod"]
