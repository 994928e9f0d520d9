"""What `[[test]]` may say, and the messages for what it may not."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from plugwasm import errors
from plugwasm._project.case_model import Case, Data
from plugwasm._project.json_schema import STRUCTS, field_meanings, json_schema
from plugwasm._project.project_file import read_project
from tests.project.test_cases import MANIFEST, PASSES
from tests.support.command_line import run_command
from tests.support.paths import ROOT

HEAD = '[[test]]\nname = "a"\nfunction = "f"\n'
HTTP = '[[test.http]]\nurl = "https://a.example"\n'
HOST = '[[test.host]]\nname = "g"\n'

REFUSED = {
    'vars = { x = { txt = "a" } }': "`test[0].vars[...].txt`: unknown field; did you mean `text`?",
    'vars = { x = { text = "a", base64 = "aa" } }': "`test[0].vars[...]`: expected one of text, json, base64, file, got text and base64",
    "vars = { x = {} }": "got none",
    "vars = { x = 3 }": "`test[0].vars[...]`: expected a string or an object, got an integer",
    'input = "a"\ninput_json = 1': "line 5: field `test[0].input_json`: there is `input` already; a call has one input",
    'output_json = 1\noutput_json_file = "a"': "`test[0].output_json_file`: there is `output_json` already; a call has one output",
    'output = "a"\nerror = "b"': "line 5: field `test[0].error`: a call that fails has no output: leave out `output`",
    'output = "a"\nerror_code = 1': "`test[0].error_code`: a call that fails",
    'input_base64 = "a"': "`test[0].input_base64`: expected base64: ",
    'input_base64 = "aa=\\n="': "`test[0].input_base64`: expected base64: ",
    'input_file = "../x"': "`test[0].input_file`: expected a path in the project",
    'output_json_file = "/x"': "`test[0].output_json_file`: expected a path in the project",
    "output_json = { a = 1979-01-01 }": "`test[0].output_json.a`: expected a value of JSON, which has no dates and times",
    "output_json = [nan]": "`test[0].output_json[0]`: expected a value of JSON, which has no nan",
    'logs = [["inf", "a"]]': '`test[0].logs[0][0]`: expected one of trace, debug, info, warn, error, got "inf"',
    'logs = ["a"]': "`test[0].logs[0]`: expected a list, got a string",
    'log_level = "all"': '`test[0].log_level`: expected one of trace, debug, info, warn, error, got "all"',
    "timeout_ms = 0": "`test[0].timeout_ms`: expected a number from 1 to 3600000",
    'allowed_hosts = ["https://x"]': "`test[0].allowed_hosts`: ",
    'allowed_paths = { "/etc" = "/x" }': "`test[0].allowed_paths`: expected a path in the project",
    'allowed_paths = { "ro:../x" = "/x" }': "`test[0].allowed_paths`: expected a path in the project",
    "config = { a = 1 }": "`test[0].config[...]`: expected a string, got an integer",
    "outpt = 1": "line 4: field `test[0].outpt`: unknown field; did you mean `output`?",
    HTTP + "response = { status = 100 }": "line 6: field `test[0].http[0].response.status`: expected a status from 200 to 999, got 100",
    HTTP + "response = { stats = 200 }": "`test[0].http[0].response.stats`: unknown field; did you mean `status`?",
    HTTP + 'response = { text = "a", json = 1 }': "`test[0].http[0].response`: expected at most one of",
    HTTP + 'response = "a"\nerror = "b"': "`test[0].http[0].error`: a request that fails has no response",
    HTTP + 'method = "GE T"': "`test[0].http[0].method`: expected one such as GET",
    '[[test.http]]\nurl = "a.example"': "`test[0].http[0].url`: the URL is refused",
    HOST + "args = [true]": "`test[0].host[0].args[0]`: expected ",
    HOST + 'returns = "a"\nerror = "b"': "`test[0].host[0].error`: a function that fails returns nothing",
    HOST + "args = [1]\n" + HOST + 'args = ["1"]': "line 9: field `test[0].host[1].args`: expected (a number) as in the table of `g` before, got (data)",
    "[[test.then]]": "`test[0].then[0].function`: it is missing",
    '[[test.then]]\nfunction = "g"\nname = "x"': "line 6: field `test[0].then[0].name`: unknown field",
    HEAD: '`test[1].name`: test[0] has the name "a" already',
}  # fmt: skip


def refusal(folder: Path, text: str) -> str:
    (folder / "plugin.toml").write_text(text)
    with pytest.raises(errors.ManifestError) as caught:
        read_project(folder)
    return caught.value.message


@pytest.mark.parametrize(("text", "message"), REFUSED.items(), ids=range(len(REFUSED)))
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    """An error names the field, what was expected there, and what was got."""
    assert message in refusal(tmp_path, HEAD + text)


def test_names_can_be_shown(tmp_path: Path) -> None:
    """The name of a case is a line of the output."""
    for name in '""', '" "', '"a\\u001b"', f'"{"a" * 201}"':
        found = refusal(tmp_path, f'[[test]]\nname = {name}\nfunction = "f"')
        assert "`test[0].name`: expected printable text" in found


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    """Headers in texts and comments do not count; an inline list has the line of its name."""
    text = (
        "# [[test]]\n[[test]] # the first\nname = '''\n[[test]]\n''' # [[test]]\nfunction = \"f\"\n"
    )
    assert "line 3: field `test[0].name`" in refusal(tmp_path, text)
    second = HEAD.replace('"a"', '"b"')
    assert "line 10: field `test[1].x`" in refusal(
        tmp_path, HEAD + "\r\n" + second + "\r\n\r\nx = 1"
    )
    inline = refusal(tmp_path, HEAD + '\nhost = [{ name = "a" }, { nme = "b" }]')
    assert "line 5: field `test[0].host[1].nme`" in inline
    assert "line 2: field `test[0].function`" in refusal(tmp_path, '\n[[test]]\nname = "a"')
    assert ": field `test[0].y`" in refusal(
        tmp_path, 'test = [{ name = "a", function = "f", y = 1 }]'
    )


def test_lines_of_cases_are_known(tmp_path: Path) -> None:
    """Each case has the line of its header."""
    (tmp_path / "plugin.toml").write_text("\n" + HEAD + "\n" + HEAD.replace('"a"', '"b"'))
    project = read_project(tmp_path)
    assert [project.line(case) for case in project.cases] == [2, 6]
    (tmp_path / "plugin.toml").write_text('test = [{ name = "a", function = "f" }]')
    project = read_project(tmp_path)
    assert project.line(project.cases[0]) is None


def test_null_is_a_value_of_json() -> None:
    """In `plugin.json` a value may be null, which is not the same as to be left out."""
    case = msgspec.convert({"name": "a", "function": "f", "input_json": None}, Case)
    assert case.input_data.read("") == b"null"
    assert case.output_data is None
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"text": "a", "json": None}, Data)


# ---- the schema ----------------------------------------------------------------------------------


def schema_errors(text: str) -> list[Any]:
    """Return what the schema says against a text, which is TOML."""
    document = json.loads(json.dumps(tomllib.loads(text), default=str))
    return list(jsonschema.Draft202012Validator(json_schema()).iter_errors(document))


def test_the_schema_is_valid() -> None:
    """It is a schema, each field of it has a meaning, and the command prints it."""
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    for struct in STRUCTS:
        assert {*field_meanings(struct)} == {*struct.__struct_fields__}, struct
        for field, definition in schema["$defs"][struct.__name__]["properties"].items():
            assert definition["description"], field
    assert json.loads(run_command("schema", "plugin").out) == schema
    assert json.loads(run_command("schema", "manifest").out)["title"] == "plugwasm manifest"


def test_files_of_this_repository_fit() -> None:
    """Each plugin.toml of the repository fits the schema."""
    listed = subprocess.run(
        ["git", "ls-files", "*plugin.toml"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    files = [ROOT / name for name in listed] or [*ROOT.glob("plugwasm/**/plugin.toml")]
    assert files
    for file in files:
        text = re.sub(r'"@LANGUAGE@"', '"c"', file.read_text())
        assert schema_errors(text) == [], file


@pytest.mark.parametrize("text", PASSES.values(), ids=PASSES)
def test_the_schema_accepts_a_case(text: str) -> None:
    """What runs fits the schema."""
    assert schema_errors(f'[[test]]\nname = "it"\n{text}\n{MANIFEST}') == []


@pytest.mark.parametrize(
    "text",
    [text for text, message in REFUSED.items() if re.search("unknown|got a|one input|one output|no output|is missing|expected one of", message)],
)  # fmt: skip
def test_the_schema_refuses_a_case(text: str) -> None:
    """What an editor can see is refused by the schema as well."""
    assert schema_errors(HEAD + text)


@pytest.mark.parametrize(
    "text",
    [
        '[build]\nlanguage = "cobol"',
        "[build]",
        "[plugin]\ntitel = 1",
        "[manifest]\nallowed_host = []",
        "[tests]",
    ],
)
def test_the_schema_refuses_a_file(text: str) -> None:
    """The other tables are checked as well."""
    assert schema_errors(text)
