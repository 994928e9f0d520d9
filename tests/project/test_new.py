"""New projects: what is in them, and names and folders that are refused."""

import os
import re
import shutil
import stat
import zlib
from pathlib import Path

import pytest

from plugwasm._project import new
from plugwasm._project.kits import kit_folder
from plugwasm._project.languages import LANGUAGES
from plugwasm._project.new import find_language, make_project
from plugwasm._project.problems import ProjectError
from plugwasm._project.project_file import LANGUAGES as NAMES
from plugwasm._project.project_file import read_project

every_language = pytest.mark.parametrize("language", LANGUAGES.values(), ids=list(LANGUAGES))


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_each_name_has_a_language() -> None:
    """What plugin.toml may name can be built."""
    assert tuple(LANGUAGES) == NAMES


@every_language
def test_a_project_is_complete(tmp_path: Path, language) -> None:
    """A new project has a valid plugin.toml, its source, the kit, and no placeholder."""
    folder = tmp_path / "made"
    make_project(language, "my-plugin", str(folder))
    project = read_project(folder)
    assert project.build is not None
    assert project.build.language == language.name
    assert project.file.plugin.title == "my-plugin"
    assert len(project.cases) == 3
    made = files(folder)
    assert {"README.md", ".gitignore", language.code_file} <= made
    assert any(name.startswith("pdk/") and name.endswith("LICENSE") for name in made)
    for name in made:
        text = (folder / name).read_text()
        assert name.startswith("pdk/") or not re.search(r"@[A-Z]+@", text), name
    assert os.path.exists(project.path(project.build.source or language.source))
    assert "plugin.wasm" in (folder / ".gitignore").read_text().split()


@every_language
def test_the_readme_fits_its_language(tmp_path: Path, language) -> None:
    """It names the language, what to install, and grants only what is needed."""
    folder = tmp_path / "made"
    make_project(language, "x", str(folder))
    readme = (folder / "README.md").read_text()
    assert f"A plugin in {language.title}," in readme
    assert all(tool.install in readme for tool in language.tools)
    assert ("--wasi" in readme) == language.needs_wasi
    assert max(map(len, readme.splitlines())) <= 100


@pytest.mark.parametrize("language", ["zig", "rust", "go", "assemblyscript"])
def test_the_kit_is_a_whole_copy(tmp_path: Path, language: str) -> None:
    """The copy has each file of the kit, and nothing that builds leave behind."""
    make_project(LANGUAGES[language], "x", str(tmp_path / "x"))
    left_out = ("target/", "Cargo.lock", ".zig-cache/", "zig-out/", "node_modules/")
    kit = {name for name in files(kit_folder(language)) if not name.startswith(left_out)}
    assert files(tmp_path / "x" / "pdk") == kit


def test_c_and_cpp_get_their_headers(tmp_path: Path) -> None:
    """The header of C++ includes that of C."""
    make_project(LANGUAGES["c"], "x", str(tmp_path / "c"))
    make_project(LANGUAGES["cpp"], "x", str(tmp_path / "cpp"))
    assert files(tmp_path / "c" / "pdk") == {"plugwasm.h", "LICENSE"}
    assert files(tmp_path / "cpp" / "pdk") == {"plugwasm.h", "plugwasm.hpp", "LICENSE"}


def test_zig_gets_a_fingerprint_of_its_own(tmp_path: Path) -> None:
    """Zig checks the upper half against the name; the lower half tells packages apart."""
    prints = []
    for number in range(2):
        folder = tmp_path / str(number)
        make_project(LANGUAGES["zig"], "my-plugin", str(folder))
        text = (folder / "build.zig.zon").read_text()
        assert ".name = .my_plugin," in text
        (found,) = re.findall(r"fingerprint = (0x[0-9a-f]{16})", text)
        prints.append(int(found, 16))
    assert {value >> 32 for value in prints} == {zlib.crc32(b"my_plugin")}
    assert prints[0] != prints[1]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("", ""),
        ("My Plugin", "did you mean my-plugin?"),
        ("1st", "did you mean st?"),
        ("plugin.", "did you mean plugin?"),
        ("a--b", "did you mean a-b?"),
        ("-x", "did you mean x?"),
        ("../x", "did you mean x?"),
        ("x/y", "did you mean x-y?"),
        ("x\n", "did you mean x?"),
        ("ä", ""),
        ("x" * 65, ""),
    ],
)
def test_bad_names_are_refused(tmp_path: Path, name: str, hint: str) -> None:
    """A name that some language refuses makes nothing, and a near one is offered."""
    with pytest.raises(ProjectError, match=r"^NAME: expected at most 64 of a-z, 0-9") as caught:
        make_project(LANGUAGES["c"], name, str(tmp_path / "made"))
    assert hint in str(caught.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["fn", "error", "type", "test", "std", "main", "plugwasm-pdk"])
def test_words_of_languages_are_refused(tmp_path: Path, name: str) -> None:
    """A package cannot have the name of a keyword."""
    with pytest.raises(ProjectError, match=f"^NAME: {name} has a meaning .* try my-{name}$"):
        make_project(LANGUAGES["c"], name, str(tmp_path / "made"))
    assert os.listdir(tmp_path) == []


def test_languages_have_other_names() -> None:
    """What people call a language is understood; anything else is answered with the list."""
    assert find_language("C++").name == "cpp"
    assert find_language("golang").name == "go"
    assert find_language("Rust").name == "rust"
    with pytest.raises(ProjectError, match=r'expected one of c, cpp, .* got "rusty"; did you mean'):
        find_language("rusty")
    with pytest.raises(ProjectError, match=r'got "cobol"$'):
        find_language("cobol")
    with pytest.raises(ProjectError, match=r"^LANGUAGE: "):
        find_language("x" * 100_000)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """A folder with anything in it, a file and a dead link are left as they are."""
    full = tmp_path / "full"
    full.mkdir()
    (full / "README.md").write_text("mine")
    file = tmp_path / "file"
    file.write_text("mine")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    for path in full, file, link:
        with pytest.raises(ProjectError, match=r"exists.*; nothing was written"):
            make_project(LANGUAGES["c"], "x", str(path))
    assert files(tmp_path) == {"full/README.md", "file"}
    assert not (tmp_path / "nowhere").exists()


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    """The folder stays the same one, since a shell may be in it."""
    folder = tmp_path / "x"
    folder.mkdir()
    before = folder.stat().st_ino
    make_project(LANGUAGES["c"], "greet", str(folder))
    assert folder.stat().st_ino == before
    assert (folder / "plugin.toml").exists()


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk is full, no half of a project remains."""

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("plugwasm._project.new.copy_kit", fail)
    with pytest.raises(OSError, match="No space left"):
        make_project(LANGUAGES["c"], "x", str(tmp_path / "a" / "x"))
    assert not (tmp_path / "a" / "x").exists()


def test_files_have_usual_permissions(tmp_path: Path) -> None:
    """Others may read a project, as far as the user's umask says so."""
    before = os.umask(0o022)
    try:
        make_project(LANGUAGES["c"], "x", str(tmp_path / "x"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x" / "plugin.toml").stat().st_mode) == 0o644
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o755


def test_a_copy_of_a_read_only_kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the package is installed read-only, its user can still change the copy."""
    kit = tmp_path / "kit"
    (kit / "src").mkdir(parents=True)
    (kit / "src" / "x.zig").write_text("x")
    (kit / "zig-out").mkdir()
    (kit / "zig-out" / "y").write_text("y")
    (kit / "src" / "x.zig").chmod(0o444)
    (kit / "src").chmod(0o555)
    monkeypatch.setattr("plugwasm._project.kits.kit_folder", lambda language: kit)
    make_project(LANGUAGES["zig"], "x", str(tmp_path / "x"))
    (kit / "src").chmod(0o755)
    assert files(tmp_path / "x" / "pdk") == {"src/x.zig"}
    for path in tmp_path / "x" / "pdk" / "src", tmp_path / "x" / "pdk" / "src" / "x.zig":
        assert path.stat().st_mode & stat.S_IWUSR


def test_what_pip_compiles_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pip has compiled the templates in Python, a project has their sources only."""
    templates = shutil.copytree(Path(new.__file__).with_name("templates"), tmp_path / "templates")
    compiled = templates / "python" / "src" / "__pycache__"
    compiled.mkdir(exist_ok=True)
    (compiled / "plugin.cpython-311.pyc").write_bytes(b"\xff\xfe")
    monkeypatch.setattr(new, "_TEMPLATES", templates)
    make_project(LANGUAGES["python"], "x", str(tmp_path / "x"))
    assert {name for name in files(tmp_path / "x") if "src" in name} == {"src/plugin.py"}
