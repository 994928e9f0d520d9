"""New projects of all languages are built by their real toolchains, and pass their own tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import plugwasm
from plugwasm._project.build import Built, build_project, plan_build
from plugwasm._project.cases import CaseRunner
from plugwasm._project.languages import LANGUAGES
from plugwasm._project.new import make_project
from plugwasm._project.problems import BuildError, ProjectError
from plugwasm._project.project_file import read_project
from tests.support.toolchains import require_language

pytestmark = [
    pytest.mark.slow,  # compiles
    pytest.mark.toolchain,
    pytest.mark.timeout(900),  # the first build of a machine compiles libraries, too
]

SIZES = {
    "c": 3_000,
    "cpp": 40_000,
    "zig": 9_000,
    "rust": 30_000,
    "go": 4_000_000,
    "assemblyscript": 16_000,
    "javascript": 1_600_000,
    "typescript": 1_600_000,
    "python": 700_000,
}
"""More bytes than a new project's module has; debug information would be more by far."""


@pytest.fixture(autouse=True)
def _shared_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Crates are compiled once for all runs. The other toolchains have such caches by themselves."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    monkeypatch.setenv("CARGO_TARGET_DIR", str(cache / "plugwasm-tests" / "rust"))


def make(language: str, folder: Path) -> Path:
    require_language(language)
    make_project(LANGUAGES[language], "my-plugin", str(folder))
    return folder


def build(folder: Path) -> Built:
    return build_project(plan_build(read_project(folder)), quiet=True)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_new_project_passes_its_test(tmp_path: Path, language: str) -> None:
    """It builds as it is, is small, needs no more than its language does, and its cases pass."""
    folder = make(language, tmp_path / "x")
    built = build(folder)
    assert built.needs.exports == ("greet",)
    assert built.needs.not_callable == ()
    assert built.needs.host_functions == ()
    assert built.needs.http == (language == "python")  # whose kit imports it always
    assert built.needs.wasi == LANGUAGES[language].needs_wasi
    assert built.size < SIZES[language]
    assert str(tmp_path).encode() not in Path(built.path).read_bytes()
    project = read_project(folder)
    runner = CaseRunner(project)
    for case in project.cases:
        outcome = runner.run(case)
        assert outcome.passed, (case.name, outcome.problems, outcome.transcript)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_build_is_reproducible(tmp_path: Path, language: str) -> None:
    """The same project in another folder gives the same bytes."""
    modules = set()
    for name in "one", "another":
        built = build(make(language, tmp_path / name))
        modules.add(Path(built.path).read_bytes())
    assert len(modules) == 1


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_error_of_the_source_is_shown(tmp_path: Path, language: str) -> None:
    """The compiler names the file; no module is written."""
    folder = make(language, tmp_path / "x")
    source = folder / LANGUAGES[language].code_file
    source.write_text(source.read_text() + "\n}{\n")
    with pytest.raises(BuildError, match=os.path.basename(source)):
        build(folder)
    assert not (folder / "plugin.wasm").exists()


def test_zig_builds_a_folder(tmp_path: Path) -> None:
    """With `source = "."` a project in Zig is built by its build.zig."""
    folder = make("zig", tmp_path / "x")
    by_file = Path(build(folder).path).read_bytes()
    text = (folder / "plugin.toml").read_text()
    (folder / "plugin.toml").write_text(
        text.replace('language = "zig"', 'language = "zig"\nsource = "."')
    )
    (folder / "plugin.wasm").unlink()
    assert len(Path(build(folder).path).read_bytes()) == len(by_file)


def test_c_has_a_library_on_wasi(tmp_path: Path) -> None:
    """With `wasi = true` a plugin in C includes what it likes, and needs WASI if it uses that."""
    folder = make("c", tmp_path / "x")
    (folder / "src" / "plugin.c").write_text(
        '#include "plugwasm.h"\n#include "other.h"\n#include <stdio.h>\n'
        'PDK_FUNCTION(greet) { printf("%d\\n", other()); return pdk_output_text("done"); }\n'
    )
    (folder / "src" / "more").mkdir()
    (folder / "src" / "more" / "other.c").write_text(
        '#include "other.h"\nint other(void) { return X; }\n'
    )
    (folder / "include").mkdir()
    (folder / "include" / "other.h").write_text("int other(void);\n")
    text = (folder / "plugin.toml").read_text()
    (folder / "plugin.toml").write_text(
        text.replace('language = "c"', 'language = "c"\nwasi = true\nflags = ["-DX=7"]')
    )
    built = build(folder)
    assert built.needs.wasi
    with plugwasm.Plugin(built.path, wasi=True, functions=[]) as plugin:
        assert plugin.call("greet") == b"done"


def test_c_without_a_copy_of_the_kit(tmp_path: Path) -> None:
    """The header that comes with this package is used then."""
    folder = make("c", tmp_path / "x")
    (folder / "pdk" / "plugwasm.h").unlink()
    (folder / "pdk" / "LICENSE").unlink()
    (folder / "pdk").rmdir()
    assert build(folder).needs.exports == ("greet",)


def test_c_without_sources(tmp_path: Path) -> None:
    """A folder without a file of the language is named."""
    folder = make("c", tmp_path / "x")
    (folder / "src" / "plugin.c").rename(folder / "src" / "plugin.h")
    with pytest.raises(
        ProjectError, match=r"src has no file that ends with \.c; `source` in plugin"
    ):
        build(folder)


def test_c_with_an_undefined_function(tmp_path: Path) -> None:
    """A function that is declared and defined nowhere is an error of the linker, not an import."""
    folder = make("c", tmp_path / "x")
    (folder / "src" / "plugin.c").write_text(
        '#include "plugwasm.h"\nint missing(void);\nPDK_FUNCTION(greet) { return missing(); }\n'
    )
    with pytest.raises(BuildError, match="missing"):
        build(folder)


def test_files_are_no_options(tmp_path: Path) -> None:
    """A source whose name looks like an option of the compiler is a source, and nothing in the
    folder is imported."""
    folder = make("c", tmp_path / "x")
    (folder / "-nonsense.c").write_text("")
    (folder / "@file.c").write_text("// -nonsense")  # as an option, a file with more options
    (folder / "ziglang.py").write_text("raise SystemExit('imported')")
    (folder / "src" / "plugin.c").rename(folder / "plugin.c")
    text = (folder / "plugin.toml").read_text()
    (folder / "plugin.toml").write_text(
        text.replace('language = "c"', 'language = "c"\nsource = "."')
    )
    assert build(folder).needs.exports == ("greet",)


def test_rust_keeps_the_projects_flags(tmp_path: Path) -> None:
    """A configuration for all targets in the project's `.cargo` is still in force."""
    folder = make("rust", tmp_path / "x")
    (folder / ".cargo").mkdir()
    (folder / ".cargo" / "config.toml").write_text('[build]\nrustflags = ["--cfg", "shouts"]\n')
    source = folder / "src" / "lib.rs"
    source.write_text(
        source.read_text() + '\n#[cfg(shouts)]\ncompile_error!("the flags are there");\n'
    )
    with pytest.raises(BuildError, match="the flags are there"):
        build(folder)


def test_packages_are_installed_once(tmp_path: Path) -> None:
    """npm runs again when package.json has changed, and then not until it changes again."""
    folder = make("assemblyscript", tmp_path / "x")
    build(folder)
    os.utime(folder / "package.json")
    installed = folder / "node_modules" / ".package-lock.json"
    before = installed.stat().st_mtime_ns
    build(folder)
    between = installed.stat().st_mtime_ns
    assert before < (folder / "package.json").stat().st_mtime_ns <= between
    build(folder)
    assert installed.stat().st_mtime_ns == between


def test_rust_without_a_module(tmp_path: Path) -> None:
    """A package that is no library of the right kind says what Cargo.toml needs."""
    folder = make("rust", tmp_path / "x")
    text = (folder / "Cargo.toml").read_text()
    (folder / "Cargo.toml").write_text(text.replace('"cdylib"', '"rlib"'))
    with pytest.raises(BuildError, match=r"made no module; .* crate-type = ..cdylib"):
        build(folder)


def test_scripts_of_packages_do_not_run(tmp_path: Path) -> None:
    """npm installs packages without running their code."""
    folder = make("assemblyscript", tmp_path / "x")
    for package in folder / "package.json", folder / "pdk" / "package.json":
        text = package.read_text().replace("{", '{"scripts": {"postinstall": "touch ran"},', 1)
        package.write_text(text)
    build(folder)
    assert not list(folder.rglob("ran"))
