"""Cases of `plugin.toml`: what passes, what fails, and what a failure says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from plugwasm import errors
from plugwasm._project.cases import CaseOutcome, CaseRunner
from plugwasm._project.project_file import read_project
from tests.support.guests import LOOP, export, guest

HOST = "extism:host/user"
IMPORTS = (
    f'(import "{HOST}" "ask" (func $ask (param i64) (result i64)))',
    f'(import "{HOST}" "add" (func $add (param i32 i64) (result i32)))',
    f'(import "{HOST}" "scale" (func $scale (param f64) (result f64)))',
    f'(import "{HOST}" "tell" (func $tell (param i64)))',
    '(import "other" "tell" (func $tell_other (param i64)))',
)
PLUGIN = guest(
    "".join(
        [
            export("echo", "(call $echo)"),
            export("config", "(call $give (call $config_get <<key>>))"),
            export("var", "(call $give (call $var_get <<k>>)) (call $var_set <<k>> <<new>>)"),
            export("forget", "(call $var_set <<k>> (i64.const 0))"),
            '(func (export "fail") (result i32) (call $error_set <<it went wrong>>) (i32.const 7))',
            '(func (export "code") (result i32) (i32.const 3))',
            export("trap", "unreachable"),
            export("loop", LOOP),
            export("log", "(call $log_warn <<careful>>) (call $log_info <<done>>)"),
            export("json", '(call $give <<{"a": [1, 2.0, {"b": null}], "c": true}>>)'),
            export("deep", f"(call $give <<{'[' * 5000}>>)"),
            export("get", "(call $give (call $http_request <<" + '{"url": "https://a.example/x?y=1"}' + ">> (i64.const 0)))"),
            export("post", "(call $give (call $http_request <<" + '{"url": "https://a.example/p", "method": "POST", "headers": {"X-A": "1"}}' + '>> <<{"n": 1}>>))'),
            export("ask", "(call $give (call $ask <<what>>))"),
            export("ask_twice", "(drop (call $ask <<what>>)) (call $give (call $ask <<what>>))"),
            export("add", "(call $answer (i64.extend_i32_s (call $add (i32.const 40) (i64.const -2))))"),
            export("scale", "(call $answer (i64.reinterpret_f64 (call $scale (f64.const 1.5))))"),
            export("tell", "(call $tell_other <<x>>)"),
        ]
    ),
    *IMPORTS,
)  # fmt: skip

Run = Callable[[str], CaseOutcome]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project with a module."""
    folder = tmp_path_factory.mktemp("project") / "demo"
    folder.mkdir()
    (folder / "plugin.wasm").write_text(PLUGIN)
    (folder / "data").mkdir()
    (folder / "data" / "bytes.bin").write_bytes(b"\xff\x00")
    (folder / "data" / "empty").write_bytes(b"")
    (folder / "data" / "same.json").write_text('{"c":true,\n"a":[1.0,2,{"b":null}]}')
    (folder / "data" / "bad.json").write_text("{")
    return folder


@pytest.fixture
def run(folder: Path) -> Run:
    """Return a function that runs a case of this text, without its header and name."""

    def run(text: str) -> CaseOutcome:
        (folder / "plugin.toml").write_text(f'[[test]]\nname = "it"\n{text}\n{MANIFEST}')
        project = read_project(folder)
        return CaseRunner(project).run(project.cases[0])

    return run


MANIFEST = """
[manifest]
allowed_hosts = ["a.example"]

[plugin.settings.key]
default = "from the settings"
"""

PASSES = {
    "text": 'function = "echo"\ninput = "grüße"\noutput = "grüße"',
    "no input": 'function = "echo"\noutput = ""',
    "no output is said": 'function = "echo"\ninput = "x"',
    "bytes": 'function = "echo"\ninput_base64 = "/wA="\noutput_base64 = "/wA="',
    "a file": 'function = "echo"\ninput_base64 = "/wA="\noutput_file = "data/bytes.bin"',
    "an empty file": 'function = "echo"\ninput_file = "data/empty"\noutput = ""',
    "JSON in, compact": 'function = "echo"\ninput_json = { a = [1, "é"] }\noutput = \'{"a":[1,"é"]}\'',
    "JSON as a value": 'function = "echo"\ninput = \'{"b": 2.0, "a": 1}\'\noutput_json = { a = 1.0, b = 2 }',
    "a file of JSON": 'function = "json"\noutput_json_file = "data/same.json"',
    "a message": 'function = "fail"\nerror = "went wrong"',
    "a code": 'function = "code"\nerror_code = 3',
    "both": 'function = "fail"\nerror = "it went"\nerror_code = 7',
    "any error": 'function = "trap"\nerror = ""',
    "a trap": 'function = "trap"\nerror = "unreachable"',
    "a deadline": 'function = "loop"\ntimeout_ms = 50\nerror = "50 ms"',
    "a default": 'function = "config"\noutput = "from the settings"',
    "a config": 'function = "config"\nconfig = { key = "mine" }\noutput = "mine"',
    "a var": 'function = "var"\nvars = { k = "old" }\noutput = "old"\nvars_after = { k = "new" }',
    "a var of bytes": 'function = "var"\nvars = { k = { base64 = "/w==" } }\noutput_base64 = "/w=="',
    "a var is gone": 'function = "forget"\nvars = { k = "old" }\nvars_after = {}',
    "calls in turn": 'function = "var"\n[[test.then]]\nfunction = "var"\noutput = "new"\n'
    '[[test.then]]\nfunction = "fail"\nerror_code = 7',
    "a call after a trap": 'function = "trap"\nerror = ""\n[[test.then]]\nfunction = "echo"\ninput = "x"\noutput = "x"',
    "all lines": 'function = "log"\nlogs = [["warn", "careful"], ["info", "done"]]',
    "lines of a level": 'function = "log"\nlog_level = "warn"\nlogs = [["warn", "careful"]]',
    "no lines": 'function = "echo"\nlogs = []',
    "a response": 'function = "get"\noutput = "Hi"\n[[test.http]]\nurl = "https://a.example/x?y=1"\nresponse = "Hi"',
    "a response in JSON": 'function = "get"\noutput_json = [1]\n[[test.http]]\nurl = "https://A.example:443/x?y=1"\n'
    'response = { status = 200, json = [1], headers = { ETag = "x" } }',
    "a request with a body": 'function = "post"\noutput = ""\n[[test.http]]\nmethod = "post"\nurl = "https://a.example/p"\n'
    'headers = { x-a = "1" }\nbody = { json = { n = 1.0 } }\nresponse = { status = 204 }',
    "other hosts": 'function = "get"\nallowed_hosts = ["b.example"]\nerror = "a.example"',
    "no response": 'function = "get"\nerror = "the line is dead"\n[[test.http]]\nurl = "https://a.example/x?y=1"\nerror = "the line is dead"',
    "a host function": 'function = "ask"\noutput = "that"\n[[test.host]]\nname = "ask"\nargs = ["what"]\nreturns = "that"',
    "a host function of bytes": 'function = "ask"\noutput_base64 = "/w=="\n[[test.host]]\nname = "ask"\n'
    'args = [{ base64 = "d2hhdA==" }]\nreturns = { base64 = "/w==" }',
    "a host function of JSON": 'function = "ask"\noutput_json = { a = 1 }\n[[test.host]]\nname = "ask"\nreturns = { json = { a = 1 } }',
    "numbers": 'function = "add"\noutput_base64 = "JgAAAAAAAAA="\n[[test.host]]\nname = "add"\nargs = [40, -2]\nreturns = 38',
    "floats": 'function = "scale"\noutput_base64 = "AAAAAAAACEA="\n[[test.host]]\nname = "scale"\nargs = [1.5]\nreturns = 3',
    "answers in turn": 'function = "ask_twice"\noutput = "b"\n[[test.host]]\nname = "ask"\nreturns = "a"\n[[test.host]]\nname = "ask"\nreturns = "b"',
    "the last answer again": 'function = "ask_twice"\noutput = "a"\n[[test.host]]\nname = "ask"\nreturns = "a"',
    "a function that fails": 'function = "ask"\nerror = "out of order"\n[[test.host]]\nname = "ask"\nerror = "out of order"',
    "a namespace": 'function = "tell"\n[[test.host]]\nname = "tell"\nnamespace = "other"\nargs = ["x"]',
}  # fmt: skip


@pytest.mark.parametrize("text", PASSES.values(), ids=PASSES)
def test_a_case_passes(run: Run, text: str) -> None:
    """Everything is as the case says."""
    assert run(text).problems == ()


FAILS = {
    "text": ('function = "echo"\ninput = "Bob"\noutput = "Ada"', "output:\n  expected 'Ada'\n       got 'Bob'"),
    "lines": ('function = "echo"\ninput = "a\\nb\\nc"\noutput = "a\\nx\\nc"', "output:\n  --- expected\n  +++ got\n  @@ -1,3 +1,3 @@\n   a\n  -x\n  +b\n   c"),
    "long text": ('function = "echo"\ninput = "' + "a" * 100 + 'c"\noutput = "' + "a" * 100 + 'b"', "texts differ at character 100: expected 101"),
    "bytes": ('function = "echo"\ninput_base64 = "AP8="\noutput_base64 = "AP4="', "bytes differ at 1: expected 2 bytes, got 2\n  expected 00 fe\n       got 00 ff"),
    "JSON": ('function = "json"\noutput_json = { a = [1, 3, { b = "x" }], d = 1 }', '$.a[1]: expected 3, got 2.0\n  $.a[2].b: expected "x", got null\n  $.d: expected 1, but it is missing\n  $.c: not expected, got true'),
    "a boolean is no number": ('function = "echo"\ninput_json = true\noutput_json = 1', "$: expected 1, got true"),
    "a list is shorter": ('function = "echo"\ninput_json = [1]\noutput_json = [1, 2]', "$[1]: expected 2, but it is missing"),
    "text for a value": ('function = "echo"\ninput_json = {}\noutput_json = "{}"', "text that looks like JSON: write it as a value"),
    "no JSON": ('function = "echo"\ninput = "x"\noutput_json = 1', "output: expected JSON, got b'x'"),
    "NaN": ('function = "echo"\ninput = "NaN"\noutput_json = 1', "JSON has no NaN"),
    "deep JSON": ('function = "deep"\noutput_json = []', "output: expected JSON, got "),
    "control characters": ('function = "echo"\ninput_base64 = "G1szMW0="\noutput = "x"', "got 1b 5b 33 31 6d"),
    "it fails": ('function = "fail"\noutput = ""', "it went wrong"),
    "it does not fail": ('function = "echo"\ninput = "x"\nerror = ""', "it must fail, but it returned 'x'"),
    "another message": ('function = "fail"\nerror = "well"', "it must fail with 'well', got: "),
    "another code": ('function = "fail"\nerror_code = 8', "it must fail with the code 8, got the code 7: "),
    "no code": ('function = "trap"\nerror_code = 8', "it must fail with the code 8, got no code: "),
    "no function": ('function = "ecko"\nerror = ""', "exports no function `ecko`: did you mean `echo`?"),
    "a var": ('function = "var"\nvars_after = { k = "old" }', "vars_after.k:\n  expected 'old'\n       got 'new'"),
    "no var": ('function = "echo"\nvars_after = { k = "old" }', "vars_after.k: the plugin has no such var"),
    "one var too many": ('function = "var"\nvars_after = {}', "vars_after: the plugin has another var, 'k' = 'new'"),
    "a line": ('function = "log"\nlogs = [["warn", "careful"], ["warn", "done"]]', "logs[1]: expected warn: 'done'\n"),
    "a line too many": ('function = "log"\nlogs = [["warn", "careful"]]', "logs[1]: expected no further line\n"),
    "a line too few": ('function = "echo"\nlogs = [["warn", "careful"]]', "got no further line"),
    "a later call": ('function = "echo"\n[[test.then]]\nfunction = "code"', "then[0], `code`: "),
    "a request": ('function = "get"\nerror = ""', 'the plugin requested GET https://a.example/x?y=1, and no table of the case answers that\nto answer it, add [[test.http]] with method = "GET"'),
    "another URL": ('function = "get"\n[[test.http]]\nurl = "https://a.example/y"', "http[0] does not fit: it is for GET https://a.example/y"),
    "another method": ('function = "get"\n[[test.http]]\nmethod = "PUT"\nurl = "https://a.example/x?y=1"', "http[0] does not fit: it is for PUT"),
    "another header": ('function = "post"\n[[test.http]]\nmethod = "POST"\nurl = "https://a.example/p"\nheaders = { X-A = "2" }', "header X-A: expected '2', got '1'"),
    "no header": ('function = "post"\n[[test.http]]\nmethod = "POST"\nurl = "https://a.example/p"\nheaders = { X-B = "2" }', "header X-B: expected '2', got none"),
    "another body": ('function = "post"\n[[test.http]]\nmethod = "POST"\nurl = "https://a.example/p"\nbody = { json = { n = 2 } }', "http[0] does not fit: body: $.n: expected 2, got 1"),
    "no request": ('function = "echo"\n[[test.http]]\nurl = "https://a.example/"', "http[0]: the plugin did not request GET https://a.example/"),
    "a host that is not granted": ('function = "get"\nallowed_hosts = []', "`allowed_hosts` in [manifest]"),
    "a host function": ('function = "ask"\nerror = ""', "the host function `ask` was called with (b'what'), and no table of the case answers that\nto answer it, add [[test.host]] with name = \"ask\""),
    "other arguments": ('function = "ask"\n[[test.host]]\nname = "ask"\nargs = ["who"]', "host[0] does not fit: args[0]: expected 'who'\n"),
    "another number": ('function = "add"\n[[test.host]]\nname = "add"\nargs = [40, 2]', "host[0] does not fit: args[1]: expected 2, got -2"),
    "no call": ('function = "echo"\n[[test.host]]\nname = "ask"', "host[0]: the plugin did not call `ask`"),
    "no such host function": ('function = "echo"\n[[test.host]]\nname = "asq"', "host[0]: plugin `demo` imports no host function `asq`: did you mean `ask`?"),
    "too few arguments": ('function = "add"\n[[test.host]]\nname = "add"\nargs = [1]', "host[0]: args: `add` has 2 parameters, not 1"),
    "text for a number": ('function = "add"\n[[test.host]]\nname = "add"\nargs = ["1", 2]', "host[0]: args[0]: parameter 0 of `add` is a number (i32), not data"),
    "text as a result": ('function = "add"\n[[test.host]]\nname = "add"\nreturns = "1"', "host[0]: returns: the result of `add` is a number (i32)"),
    "a fraction as a result": ('function = "add"\n[[test.host]]\nname = "add"\nreturns = 1.5', "is an integer (i32), not a number with a fraction"),
    "a result that is too large": ('function = "add"\n[[test.host]]\nname = "add"\nreturns = 4294967296', "is an i32, which 4294967296 does not fit into"),
    "a result of a function without": ('function = "tell"\n[[test.host]]\nname = "tell"\nnamespace = "other"\nreturns = 1', "host[0]: returns: `tell` has no result"),
    "which namespace": ('function = "tell"\n[[test.host]]\nname = "tell"', "imports `tell` from `extism:host/user`, `other`: say which"),
    "no file": ('function = "echo"\ninput_file = "data/none"', "no such file: "),
    "no JSON in a file": ('function = "echo"\noutput_json_file = "data/bad.json"', "data/bad.json is no JSON: "),
}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), FAILS.values(), ids=FAILS)
def test_a_case_fails(run: Run, text: str, message: str) -> None:
    """The first problem says what was expected, and what was got."""
    (problem, *_) = run(text).problems
    assert message in problem
    assert all(line.isprintable() for line in problem.splitlines())


def test_a_link_is_not_followed(run: Run, folder: Path, tmp_path: Path) -> None:
    """No file outside the project is read, whatever leads there."""
    (tmp_path / "secret").write_text("secret")
    (folder / "data" / "link").symlink_to(tmp_path / "secret")
    (folder / "linked").symlink_to(tmp_path)
    for path in "data/link", "linked/secret":
        (problem,) = run(f'function = "echo"\ninput_file = "{path}"').problems
        assert "symbolic link" in problem
        (problem,) = run(f'function = "echo"\noutput_json_file = "{path}"').problems
        assert "symbolic link" in problem


def test_directories_outside_are_refused(run: Run, folder: Path, tmp_path: Path) -> None:
    """A test gives the plugin no directory outside the project, however it is named."""
    (folder / "way_out").symlink_to(tmp_path)
    (problem,) = run('function = "echo"\nallowed_paths = { "ro:way_out" = "/x" }').problems
    assert "is not in the project" in problem
    assert run('function = "echo"\nallowed_paths = { "ro:data" = "/x" }').passed


def test_directories_of_the_manifest(folder: Path, tmp_path: Path) -> None:
    """What the manifest grants elsewhere is replaced by the case, or else refused."""
    (folder / "plugin.toml").write_text(f"""
[manifest.allowed_paths]
"{tmp_path}" = "/x"
[[test]]
name = "real"
function = "echo"
[[test]]
name = "other"
function = "echo"
allowed_paths = {{ data = "/x" }}
""")
    project = read_project(folder)
    runner = CaseRunner(project)
    first, second = map(runner.run, project.cases)
    assert "which is not in the project" in first.problems[0]
    assert second.passed


def test_each_case_has_its_own_plugin(folder: Path) -> None:
    """Nothing is left of the case before."""
    case = '[[test]]\nname = "{}"\nfunction = "var"\noutput = ""\nvars_after = {{ k = "new" }}\n'
    (folder / "plugin.toml").write_text(case.format("a") + case.format("b"))
    project = read_project(folder)
    runner = CaseRunner(project)
    assert [runner.run(case).problems for case in project.cases] == [(), ()]


def test_a_missing_module_is_named(tmp_path: Path) -> None:
    """A plugin that was never built is no failure of a case."""
    (tmp_path / "plugin.toml").write_text(
        '[build]\nlanguage = "c"\noutput = "out/a.wasm"\n[[test]]\nname = "a"\nfunction = "f"'
    )
    with pytest.raises(errors.SourceError, match=r"out/a.wasm; has the plugin been built\?"):
        CaseRunner(read_project(tmp_path))


def test_the_output_of_a_build_is_run(folder: Path, tmp_path: Path) -> None:
    """The module is the one that `[build]` names."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.wasm").write_text(PLUGIN)
    (tmp_path / "plugin.toml").write_text(
        '[build]\nlanguage = "c"\noutput = "out/a.wasm"\n'
        '[[test]]\nname = "a"\nfunction = "echo"\ninput = "x"\noutput = "x"'
    )
    project = read_project(tmp_path)
    assert CaseRunner(project).run(project.cases[0]).passed


def test_a_transcript_shows_the_calls(run: Run) -> None:
    """It has the calls and what the plugin asked, with no character that a terminal obeys."""
    outcome = run(
        'function = "ask"\n[[test.host]]\nname = "ask"\nreturns = { base64 = "G1szMW0=" }'
    )
    assert "ask() -> b'\\x1b[31m'" in outcome.transcript
    assert "    host ask(b'what') -> " in outcome.transcript
