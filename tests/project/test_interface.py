"""New projects for an interface file: what is in them, and interface files that are refused."""

from __future__ import annotations

import json
import os
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import msgspec
import pytest

import plugwasm
from plugwasm import SchemaError
from plugwasm._bindings.files import generate
from plugwasm._bindings.model import Content
from plugwasm._bindings.samples import sample_input
from plugwasm._bindings.schema import read_interface
from plugwasm._project.build import build_project, plan_build
from plugwasm._project.cases import CaseRunner
from plugwasm._project.languages import LANGUAGES
from plugwasm._project.new import make_project
from plugwasm._project.problems import ProjectError
from plugwasm._project.project_file import read_project
from tests.support.command_line import is_harmless, run_command
from tests.support.paths import ROOT
from tests.support.toolchains import require_language

pytest.importorskip("yaml")

BINDINGS = ROOT / "tests" / "bindings"
WITH_BINDINGS = ("c", "cpp", "zig", "rust", "go", "assemblyscript")
every_language = pytest.mark.parametrize("language", WITH_BINDINGS)


@every_language
def test_project_has_a_test_for_each_export(tmp_path: Path, language: str) -> None:
    """plugin.toml is valid and has a case for each export; the schema is there to go on with."""
    folder = tmp_path / "made"
    schema = BINDINGS / "rich.yaml"
    make_project(LANGUAGES[language], "my-plugin", str(folder), str(schema))
    project = read_project(folder)
    exports = [one.name for one in read_interface(schema.read_bytes(), "").exports]
    assert [case.function for case in project.cases] == exports
    assert project.file.plugin.title == "my-plugin"
    assert (folder / "schema.yaml").read_bytes() == schema.read_bytes()
    readme = (folder / "README.md").read_text()
    assert f"plugwasm generate schema.yaml --language {language}`" in readme
    assert "greet" not in readme
    assert (folder / "pdk").is_dir()
    for name in ("Cargo.toml", "package.json", "go.mod"):
        if (folder / name).exists():
            assert "my-plugin" in (folder / name).read_text()


@every_language
def test_generating_again_changes_nothing(tmp_path: Path, language: str) -> None:
    """The command of the README finds all bindings as they are."""
    folder = tmp_path / "made"
    make_project(LANGUAGES[language], "x", str(folder), str(BINDINGS / "rich.yaml"))
    written = generate(folder / "schema.yaml", language, folder)
    assert {one.what for one in written} == {"unchanged", "kept"}


@pytest.mark.parametrize("schema", ["rich.yaml", "corners.yaml"])
def test_samples_fit_their_types(tmp_path: Path, schema: str) -> None:
    """The inputs of the cases are what the application's bindings take for these types."""
    content = (BINDINGS / schema).read_bytes()
    interface = read_interface(content, schema)
    generate(BINDINGS / schema, "python", tmp_path)
    spec = spec_from_file_location("sampled_bindings", tmp_path / "bindings.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["sampled_bindings"] = module
    try:
        spec.loader.exec_module(module)
        for function in interface.exports:
            if function.input is None or function.input.content is not Content.JSON:
                continue
            text = sample_input(interface, function.input)
            assert text is not None, function.name
            name = getattr(function.input.type, "name", None)
            type = getattr(module, name, None) if name else None
            msgspec.json.decode(text, type=object if type is None else type)
    finally:
        del sys.modules["sampled_bindings"]


def test_a_type_within_itself_has_no_case(tmp_path: Path) -> None:
    """A value that must contain itself cannot be made up: the export is left out of the cases."""
    text = """
version: v1-draft
exports:
  first: {input: {$ref: "#/components/schemas/Chain", contentType: application/json}}
  second: {input: {$ref: "#/components/schemas/Ring", contentType: application/json}}
components:
  schemas:
    Chain: {required: [name], properties: {name: {type: string},
            next: {$ref: "#/components/schemas/Chain"}}}
    Ring: {required: [rings], properties: {rings: {type: array,
           items: {$ref: "#/components/schemas/Ring"}}}}
"""
    interface = read_interface(text.encode(), "")
    inputs = [sample_input(interface, one.input) for one in interface.exports]
    assert inputs == ['{"name": "text"}', '{"rings": []}']


@pytest.mark.parametrize("language", ["javascript", "python"])
def test_languages_without_bindings_are_refused(tmp_path: Path, language: str) -> None:
    """The error says for which languages there are bindings; nothing is made."""
    with pytest.raises(
        ProjectError, match=r"--schema: there are no bindings for plugins in .* c, "
    ):
        make_project(LANGUAGES[language], "x", str(tmp_path / "x"), str(BINDINGS / "rich.yaml"))
    assert not (tmp_path / "x").exists()


def test_problems_of_the_schema_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each problem is shown with its path and line, by the file's own name; nothing is made."""
    monkeypatch.chdir(tmp_path)
    Path("my interface.yaml").write_text(
        "version: v1-draft\nexports:\n  a: {input: {type: strings, contentType: application/json}}\n"
        "  b: {outputs: {}}\n"
    )
    done = run_command("new", "zig", "x", "--schema", "my interface.yaml")
    assert done.code == 2
    assert "error: my interface.yaml: line 3: exports.a.input.type: expected" in done.err
    assert "error: my interface.yaml: line 4: exports.b.outputs: is no field" in done.err
    assert is_harmless(done.err)
    done = run_command("new", "zig", "x", "--schema", "missing.yaml")
    assert done.code == 2
    assert "no such file: missing.yaml" in done.err
    assert not Path("x").exists()


@pytest.mark.parametrize("kind", ["pipe", "device", "large"])
def test_schema_files_without_end(kind: str, tmp_path: Path) -> None:
    """An interface file that never ends is an error, and not waited for."""
    schema = tmp_path / "schema.yaml"
    if kind == "pipe":
        os.mkfifo(schema)
    elif kind == "device":
        schema.symlink_to("/dev/zero")
    else:
        with schema.open("wb") as file:
            file.truncate(2**40)  # a file with a hole
    with pytest.raises(SchemaError, match=r"schema\.yaml: it is (not a regular file|larger)"):
        make_project(LANGUAGES["c"], "x", str(tmp_path / "x"), str(schema))
    assert not (tmp_path / "x").exists()


def types_in_a_row(number: int, *, twice: bool) -> str:
    """Return a schema whose input requires the first of that many types; each requires the next."""
    names = "ab" if twice else "a"
    types: dict[str, object] = {
        f"T{i}": {
            "properties": {name: {"$ref": f"#/components/schemas/T{i + 1}"} for name in names},
            "required": list(names),
        }
        for i in range(number)
    }
    types[f"T{number}"] = {"properties": {"a": {"type": "string"}}}
    reference = {"contentType": "application/json", "$ref": "#/components/schemas/T0"}
    document = {
        "version": "v1-draft",
        "exports": {"run": {"input": reference}, "stop": {}},
        "components": {"schemas": types},
    }
    return json.dumps(document)


@pytest.mark.parametrize(("number", "twice"), [(3, True), (200, True), (1000, False)])
def test_types_that_require_others(number: int, twice: bool, tmp_path: Path) -> None:
    """An export whose smallest input is huge or nested deeply has no test in a new project."""
    (tmp_path / "schema.json").write_text(types_in_a_row(number, twice=twice))
    make_project(LANGUAGES["rust"], "x", str(tmp_path / "x"), str(tmp_path / "schema.json"))
    functions = [case.function for case in read_project(tmp_path / "x").cases]
    assert functions == (["run", "stop"] if number == 3 else ["stop"])


def with_choice(value: str, exports: list[str]) -> str:
    """Return a schema whose exports take an enum of one value, as text."""
    kind = {"contentType": "text/plain; charset=utf-8", "$ref": "#/components/schemas/One"}
    document = {
        "version": "v1-draft",
        "exports": {name: {"input": kind} for name in exports},
        "components": {"schemas": {"One": {"type": "string", "enum": [value]}}},
    }
    return json.dumps(document)


def test_more_exports_than_tests(tmp_path: Path) -> None:
    """However many exports a schema has, the project file of a new project can be read."""
    exports: dict[str, object] = {f"f{i}": {} for i in range(1500)}
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps({"version": "v1-draft", "exports": exports}))
    make_project(LANGUAGES["c"], "x", str(tmp_path / "x"), str(schema))
    assert [case.function for case in read_project(tmp_path / "x").cases] == list(exports)[:1000]
    schema.write_text(with_choice("\u202e" * 200, [f"f{i}" for i in range(400)]))
    make_project(LANGUAGES["c"], "x", str(tmp_path / "y"), str(schema))
    assert 100 < len(read_project(tmp_path / "y").cases) < 400


@pytest.mark.parametrize(
    "value", ["a😀'\"", "\x7f'\u202e\U000e0001", "\\'\n\"\t", "'" * 3, '"' * 3, "\\u0041'"]
)
def test_any_value_in_a_project_file(value: str, tmp_path: Path) -> None:
    """The first value of an enum is the input of a test, whatever characters it has."""
    (tmp_path / "schema.json").write_text(with_choice(value, ["run"]))
    make_project(LANGUAGES["c"], "x", str(tmp_path / "x"), str(tmp_path / "schema.json"))
    (case,) = read_project(tmp_path / "x").cases
    assert case.calls[0].input_data.read(str(tmp_path)) == value.encode()


def test_a_schema_in_json_stays_json(tmp_path: Path) -> None:
    """JSON needs no YAML: the copy has its name, also if the file is called otherwise."""
    (tmp_path / "interface").write_text('{"version": "v0", "exports": ["run"]}')
    make_project(LANGUAGES["c"], "x", str(tmp_path / "x"), str(tmp_path / "interface"))
    assert (tmp_path / "x" / "schema.json").exists()
    assert [case.function for case in read_project(tmp_path / "x").cases] == ["run"]


@pytest.mark.slow  # compiles
@pytest.mark.toolchain
@pytest.mark.timeout(900)
@every_language
def test_a_project_for_a_schema_passes_its_test(
    tmp_path: Path, language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It builds as it is, and each export fails as its case says: it is not written yet."""
    require_language(language)
    cache = Path.home() / ".cache" / "plugwasm-tests" / "rust"
    monkeypatch.setenv("CARGO_TARGET_DIR", str(cache))
    folder, schema = tmp_path / "x", BINDINGS / "rich.yaml"
    make_project(LANGUAGES[language], "my-plugin", str(folder), str(schema))
    built = build_project(plan_build(read_project(folder)), quiet=True)
    project = read_project(folder)
    interface = read_interface(schema.read_bytes(), "")
    assert set(built.needs.exports) >= {one.name for one in interface.exports}
    runner = CaseRunner(project)
    assert project.cases
    for case in project.cases:
        outcome = runner.run(case)
        assert outcome.passed, (case.name, outcome.problems, outcome.transcript)


@pytest.mark.parametrize(("language", "export"), [("go", "_"), ("rust", "main"), ("zig", "log")])
def test_names_that_a_compiler_cannot_export(tmp_path: Path, language: str, export: str) -> None:
    """A name that ends in a crash of the compiler, or in another export, is refused before."""
    schema = tmp_path / "schema.json"
    schema.write_text(f'{{"version": "v0", "exports": ["run", "{export}"]}}')
    with pytest.raises(plugwasm.SchemaError, match=rf"exports\.{export}: .* rename it"):
        make_project(LANGUAGES[language], "x", str(tmp_path / "x"), str(schema))
    make_project(LANGUAGES["c"], "x", str(tmp_path / "x"), str(schema))


@pytest.mark.parametrize(("language", "file", "taken"), [
    ("zig", "src/bindings.zig", "const Plugin ="),
    ("assemblyscript", "assembly/bindings.ts", "  override:"),
])  # fmt: skip
def test_words_of_generated_code_are_renamed(
    tmp_path: Path, language: str, file: str, taken: str
) -> None:
    """Types and properties cannot have names that the generated code or the language uses."""
    schema = tmp_path / "schema.json"
    schema.write_text(
        '{"version": "v1-draft", "exports": {"run": {"input": {"contentType": "application/json", '
        '"$ref": "#/components/schemas/Plugin"}}}, "components": {"schemas": {"Plugin": '
        '{"required": ["override"], "properties": {"override": {"type": "string"}}}}}}'
    )
    make_project(LANGUAGES[language], "x", str(tmp_path / "x"), str(schema))
    assert taken not in (tmp_path / "x" / file).read_text()
