"""`plugin.toml`: what the author's tables mean, and what is wrong with them."""

import os
import re
from pathlib import Path

import pytest

from plugwasm import errors
from plugwasm._project.case_model import Response
from plugwasm._project.project_file import Build, read_project
from plugwasm.plugin_set import PluginSet

WHOLE = """
[plugin]
title = "Greet"

[build]
language = "c"
source = "src/greet.c"
output = "out/greet.wasm"

[[test]]
name = "greets"
function = "greet"
input = "Ada"
output = "Hello, Ada"
config = { greeting = "Hello" }

[[test.host]]
name = "now"
returns = 3

[[test.http]]
url = "https://example.com/"
response = { json = { a = 1 } }
"""


def write(folder: Path, text: str) -> Path:
    (folder / "plugin.toml").write_text(text)
    return folder


def test_the_tables_are_read(tmp_path: Path) -> None:
    """Build and cases arrive as they stand in the file."""
    project = read_project(write(tmp_path, WHOLE))
    assert project.build == Build(language="c", source="src/greet.c", output="out/greet.wasm")
    (case,) = project.cases
    assert (case.name, case.function, case.input, case.output) == (
        "greets",
        "greet",
        "Ada",
        "Hello, Ada",
    )
    assert case.config == {"greeting": "Hello"}
    assert (case.host[0].name, case.host[0].returns) == ("now", 3)
    assert case.http[0].url == "https://example.com/"
    assert case.http[0].response == Response(json={"a": 1})
    assert project.file.plugin.title == "Greet"


def test_a_link_to_the_folder_is_followed(tmp_path: Path) -> None:
    """The folder of a project has no links, so paths in it can be compared."""
    (tmp_path / "there").mkdir()
    write(tmp_path / "there", WHOLE)
    (tmp_path / "link").symlink_to("there")
    assert read_project(tmp_path / "link").folder == os.path.realpath(tmp_path / "there")


def test_a_file_may_have_no_build(tmp_path: Path) -> None:
    """The file of an installed plugin is a project file too."""
    project = read_project(write(tmp_path, '[plugin]\ntitle = "x"\n'))
    assert project.build is None
    assert project.cases == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[build]\nlanguage = "cc"', "`build.language`: expected one of c, cpp, zig, .* got \"cc\""),
        ('[build]\nsource = "x"', "`build.language`: it is missing$"),
        ('[build]\nlanguage = 3', "`build.language`: expected a string, got an integer"),
        ('[build]\nlanguage = "c"\nlang = 3', "`build.lang`: unknown field; did you mean `language`"),
        ('[build]\nlanguage = "c"\nsource = "../x.c"', "`build.source`: expected a path in the project"),
        ('[build]\nlanguage = "c"\nsource = "/x.c"', "`build.source`: expected a path in the project"),
        ('[build]\nlanguage = "c"\nsource = "-fplugin=x"', "`build.source`: expected a path in the"),
        ('[build]\nlanguage = "c"\nsource = "a\\u0000"', "`build.source`: expected the path of a file"),
        ('[build]\nlanguage = "c"\nsource = ""', "`build.source`: expected the path of a file"),
        ('[build]\nlanguage = "c"\noutput = "a/../../x.wasm"', "`build.output`: expected a path in"),
        ('[build]\nlanguage = "c"\noutput = "plugin.c"', "`build.output`: expected a name that ends"),
        ('[[test]]\nname = "a"', r"`test\[0\].function`: it is missing$"),
        ('[[test]]\nname = "a"\nfunction = "f"\n[[test.host]]\nnme = "x"',
         r"`test\[0\].host\[0\].nme`: unknown field; did you mean `name`"),
        ("build = 3", "`build`: expected an object, got an integer"),
        ("test = [3]", r"`test\[0\]`: expected an object, got an integer"),
        ("[build", "not valid TOML, nor JSON, which begins with `{`: "),
        ('title = "x"', "`title`: it belongs to the table .plugin."),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    """An error names the file, the field, and what was expected there."""
    with pytest.raises(errors.ManifestError, match=message) as caught:
        read_project(write(tmp_path, text))
    assert str(tmp_path / "plugin.toml") in str(caught.value)


def test_a_folder_without_a_file_is_none(tmp_path: Path) -> None:
    """It says what makes a project."""
    with pytest.raises(errors.SourceError, match=r"has no plugin.toml; `plugwasm new LANGUAGE"):
        read_project(tmp_path)
    with pytest.raises(errors.SourceError, match=re.escape("no such file")):
        read_project(tmp_path / "missing")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """Only a regular file is read, and only so much of it."""
    os.mkfifo(tmp_path / "plugin.toml")
    with pytest.raises(errors.SourceError, match="not a regular file"):
        read_project(tmp_path)
    (tmp_path / "plugin.toml").unlink()
    write(tmp_path, "#" * (2**20 + 1))
    with pytest.raises(errors.SourceError, match="larger than the limit"):
        read_project(tmp_path)


def test_a_plugin_set_ignores_the_tables(tmp_path: Path) -> None:
    """A project is a plugin of a set as it is, also with a table that a build would refuse."""
    folder = tmp_path / "greet"
    folder.mkdir()
    write(folder, WHOLE.replace('"c"', '"of the future"'))
    (folder / "plugin.wasm").write_bytes(b"\0asm\1\0\0\0")
    with PluginSet.from_directory(tmp_path, functions=[]) as plugins:
        (about,) = plugins.describe()
    assert (about.title, about.error) == ("Greet", None)


def test_a_set_bounds_the_tests(tmp_path: Path) -> None:
    """A stranger's file cannot have any number of tables."""
    folder = tmp_path / "greet"
    folder.mkdir()
    write(folder, "[[test]]\n" * 1001)
    (folder / "plugin.wasm").write_bytes(b"\0asm\1\0\0\0")
    with PluginSet.from_directory(tmp_path, functions=[]) as plugins:
        (about,) = plugins.describe()
    assert "expected at most 1000, got 1001" in str(about.error)
