"""Builds: what is refused before a compiler runs, what is checked after it, and how it is written.

The compilers here are small programs; `test_toolchains` has the real ones.
"""

import os
import stat
from pathlib import Path

import pytest

from plugwasm import errors
from plugwasm._engine import wat_to_wasm
from plugwasm._project.build import build_project, check_module, plan_build
from plugwasm._project.languages import LANGUAGES
from plugwasm._project.new import make_project
from plugwasm._project.problems import BuildError, ProjectError
from plugwasm._project.project_file import read_project
from tests.support.toolchains import fake_program

PLUGIN = """(module
  (import "extism:host/env" "http_request" (func (param i64 i64) (result i64)))
  (import "extism:host/user" "now" (func (result i64)))
  (import "wasi_snapshot_preview1" "proc_exit" (func (param i32)))
  (func (export "greet") (result i32) i32.const 0)
  (func (export "add") (param i32 i32) (result i32) i32.const 0)
  (func (export "_initialize"))
  (memory (export "memory") 1))"""


def assemble(wat: str) -> bytes:
    return wat_to_wasm(wat.encode())


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in Go, and a `go` that makes `made.wasm` of the same folder."""
    folder, programs = tmp_path / "x", tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    fake_program(
        programs,
        "go",
        'if [ "$1" = env ]; then echo go1.26.8; exit; fi\n'
        "echo compiling >&2\n"
        'while [ "$1" != -o ]; do shift; done\n'
        f'cp "{programs}/made.wasm" "$2"',
    )
    (programs / "made.wasm").write_bytes(assemble(PLUGIN))
    make_project(LANGUAGES["go"], "x", str(folder))
    return folder


def configure(folder: Path, line: str) -> None:
    """Add a line to the table [build]."""
    file = folder / "plugin.toml"
    text = file.read_text()
    file.write_text(text.replace('language = "go"\n', f'language = "go"\n{line}\n'))


def test_a_module_is_written_and_described(go: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What can be called, what cannot, and what an application has to grant."""
    built = build_project(plan_build(read_project(go)))
    assert built.path == str(go / "plugin.wasm")
    assert (go / "plugin.wasm").read_bytes() == assemble(PLUGIN)
    assert built.size == len(assemble(PLUGIN))
    needs = built.needs
    assert needs.exports == ("greet",)
    assert needs.not_callable == (("add", "(i32, i32) -> (i32)"),)
    assert needs.host_functions == (("extism:host/user", "now", "() -> (i64)"),)
    assert needs.http
    assert needs.wasi
    assert "compiling" in capfd.readouterr().err
    assert not [name for name in os.listdir(go) if name.startswith(".part")]


def test_the_output_can_be_chosen(go: Path, tmp_path: Path) -> None:
    """In the file it is in the project, in a folder that may be new; on demand it is anywhere."""
    configure(go, 'output = "out/wasm/x.wasm"')
    assert build_project(plan_build(read_project(go))).path == str(go / "out/wasm/x.wasm")
    other = tmp_path / "elsewhere" / "y.wasm"
    assert build_project(plan_build(read_project(go), str(other))).path == str(other)
    assert other.exists()


def test_the_output_has_usual_permissions(go: Path) -> None:
    """Applications of other users can read it, as far as the umask says so."""
    before = os.umask(0o022)
    try:
        build_project(plan_build(read_project(go)))
    finally:
        os.umask(before)
    assert stat.S_IMODE((go / "plugin.wasm").stat().st_mode) == 0o644


def test_output_through_a_link_is_refused(go: Path, tmp_path: Path) -> None:
    """A folder of the project that is a link does not lead the output out of it."""
    (tmp_path / "other").mkdir()
    (go / "out").symlink_to(tmp_path / "other")
    configure(go, 'output = "out/x.wasm"')
    with pytest.raises(ProjectError, match=r"`build.output`: .*outside of the project; --output"):
        plan_build(read_project(go))


def test_an_output_that_is_a_link_is_replaced(go: Path, tmp_path: Path) -> None:
    """What the link leads to is not written to."""
    (tmp_path / "victim").write_text("mine")
    (go / "plugin.wasm").symlink_to(tmp_path / "victim")
    build_project(plan_build(read_project(go)))
    assert (tmp_path / "victim").read_text() == "mine"
    assert not (go / "plugin.wasm").is_symlink()


def test_an_output_that_is_a_folder_is_refused(go: Path) -> None:
    """The message comes before the compiler runs."""
    (go / "plugin.wasm").mkdir()
    with pytest.raises(ProjectError, match="is a folder; expected the name of a file"):
        plan_build(read_project(go))


def test_a_source_outside_is_refused(go: Path, tmp_path: Path) -> None:
    """A link is no way out of the project for the compiler's input either."""
    (tmp_path / "other").mkdir()
    (go / "code").symlink_to(tmp_path / "other")
    configure(go, 'source = "code"')
    with pytest.raises(ProjectError, match=r"`build.source`: .* is a link to .*, outside of the"):
        plan_build(read_project(go))


def test_a_missing_source_is_named(go: Path) -> None:
    """The message says what the project is built from."""
    configure(go, 'source = "code"')
    with pytest.raises(
        ProjectError, match=r"`build.source`: .*/x/code does not exist; .* in Go is"
    ):
        plan_build(read_project(go))


def test_a_file_without_build_says_what_to_add(tmp_path: Path) -> None:
    """The file of an installed plugin cannot be built."""
    (tmp_path / "plugin.toml").write_text('[plugin]\ntitle = "x"\n')
    with pytest.raises(
        ProjectError, match=r'no table \[build\]; it needs\n\[build\]\nlanguage = "'
    ):
        plan_build(read_project(tmp_path))


def test_a_missing_tool_says_what_to_install(go: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which version, and where it comes from."""
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(
        ProjectError, match=r"^Go 1.24 or later is needed, and is not installed\nIns"
    ):
        plan_build(read_project(go))


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo go1.9.2", r"is needed, and .*/bin/go is version 1\.9\.2\nInstall Go from https"),
        ("echo go1.23rc1", r"is version 1\.23rc1\n"),
        ("echo nonsense", "env GOVERSION` failed:\nnonsense\n"),
        ("echo 'go.mod: no toolchain' >&2; exit 1", "failed:\ngo.mod: no toolchain\nInstall"),
        ("printf '\\033[2J' >&2; exit 1", r"failed:\n\\x1b\[2J\n"),
    ],
)
def test_a_tool_of_no_use_is_named(tmp_path: Path, go: Path, script: str, message: str) -> None:
    """Too old, broken, or no such program: the message says which, and what to do."""
    fake_program(tmp_path / "bin", "go", script)
    with pytest.raises(ProjectError, match=message):
        plan_build(read_project(go))


def test_a_tool_that_cannot_run_is_named(tmp_path: Path, go: Path) -> None:
    """A program for another machine is no traceback."""
    program = tmp_path / "bin" / "go"
    program.write_bytes(b"\x7fELF nonsense")
    with pytest.raises(ProjectError, match=r"cannot run `.*/bin/go env GOVERSION`: Exec format"):
        plan_build(read_project(go))


def test_a_failed_compiler_leaves_the_output(
    tmp_path: Path, go: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What the compiler says passes as it is, and the module of the last build stays."""
    build_project(plan_build(read_project(go)))
    fake_program(
        tmp_path / "bin",
        "go",
        '[ "$1" = env ] && echo go1.26.8 && exit\nprintf "\\033[31mwrong\\n" >&2; exit 2',
    )
    capfd.readouterr()
    with pytest.raises(BuildError, match=r"^`go build -buildmode=c-shared -trimpath …` failed$"):
        build_project(plan_build(read_project(go)))
    assert capfd.readouterr().err == "\x1b[31mwrong\n"
    assert (go / "plugin.wasm").read_bytes() == assemble(PLUGIN)


def test_a_quiet_build_keeps_the_messages(tmp_path: Path, go: Path, capfd) -> None:
    """They are in the error then, and escaped."""
    fake_program(
        tmp_path / "bin",
        "go",
        '[ "$1" = env ] && echo go1.26.8 && exit\necho out; printf "\\033wrong\\n" >&2; exit 2',
    )
    with pytest.raises(BuildError, match=r"failed\nout\n\\x1bwrong$"):
        build_project(plan_build(read_project(go)), quiet=True)
    assert capfd.readouterr() == ("", "")


def test_a_compiler_that_makes_nothing(tmp_path: Path, go: Path) -> None:
    """Success without a module is an error of the build."""
    fake_program(tmp_path / "bin", "go", '[ "$1" = env ] && echo go1.26.8; exit 0')
    with pytest.raises(BuildError, match="the compiler made no module: no such file"):
        build_project(plan_build(read_project(go)))


def test_what_is_no_module_is_not_written(tmp_path: Path, go: Path) -> None:
    """The output of the last build stays, and the message says what the compiler made."""
    build_project(plan_build(read_project(go)))
    (tmp_path / "bin" / "made.wasm").write_bytes(b"\x7fELF")
    with pytest.raises(BuildError, match=r"what was built does not load: .*not a Wasm module"):
        build_project(plan_build(read_project(go)))
    (tmp_path / "bin" / "made.wasm").write_bytes(b"\0asm\1\0\0\0\xff")
    with pytest.raises(BuildError, match="what was built does not load: "):
        build_project(plan_build(read_project(go)))
    assert (go / "plugin.wasm").read_bytes() == assemble(PLUGIN)


@pytest.mark.parametrize(
    ("wat", "message"),
    [
        ('(import "extism:host/env" "input_lenght" (func (result i64)))',
         "extism:host/env.input_lenght: no such function; did you mean input_length?"),
        ('(import "extism:host/env" "input_length" (func (result i32)))',
         "extism:host/env.input_length: hosts have it with another type than () -> (i32)"),
        ('(import "env" "extism_alloc" (func (param i64) (result i64)))',
         "env.extism_alloc: of a kit from before Extism 1.0; build with a current one"),
        ('(import "wasi_snapshot_preview1" "sock_open" (func (result i32)))',
         "wasi_snapshot_preview1.sock_open: no such function of WASI preview 1"),
        ('(import "env" "memory" (memory 1))',
         "env.memory: a plugin has its own memory; link it without --import-memory"),
    ],
)  # fmt: skip
def test_imports_that_no_host_has(wat: str, message: str) -> None:
    """Each is named, with what to do about it."""
    with pytest.raises(BuildError) as caught:
        check_module(assemble(f"(module {wat})"), "x.wasm")
    assert str(caught.value) == f"what was built imports what no host has\n{message}"


def test_many_bad_imports_are_counted() -> None:
    """The message stays short."""
    imports = "".join(f'(import "extism:host/env" "x{i}" (func))' for i in range(30))
    with pytest.raises(BuildError) as caught:
        check_module(assemble(f"(module {imports})"), "x.wasm")
    assert len(str(caught.value).splitlines()) == 12
    assert str(caught.value).endswith("\n… and 20 more")


def test_a_toolchain_gets_no_input(tmp_path: Path, go: Path) -> None:
    """A compiler that asks a question does not take what is typed for the command."""
    fake_program(
        tmp_path / "bin",
        "go",
        '[ "$1" = env ] && echo go1.26.8 && exit\nread line && exit 0; echo "no input" >&2; exit 1',
    )
    with pytest.raises(BuildError, match="failed\nno input"):
        build_project(plan_build(read_project(go)), quiet=True)


def test_flags_reach_the_compiler(tmp_path: Path, go: Path) -> None:
    """They stand before the output, which they do not replace."""
    configure(go, 'flags = ["-tags", "a b"]')
    seen = tmp_path / "seen"
    fake_program(
        tmp_path / "bin",
        "go",
        '[ "$1" = env ] && echo go1.26.8 && exit\n'
        f'printf \'%s|\' "$GOOS" "$GOARCH" "$@" > {seen}; exit 1',
    )
    with pytest.raises(BuildError):
        build_project(plan_build(read_project(go)), quiet=True)
    assert seen.read_text().startswith("wasip1|wasm|build|-buildmode=c-shared|")
    assert "|-tags|a b|-o|" in seen.read_text()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("wasi = true", "`build.wasi`: it is for c and rust only, and this is go"),
        ('flags = "-x"', "`build.flags`: expected a list, got a string"),
        ("flags = [1]", r"`build.flags\[0\]`: expected a string, got an integer"),
        ('flags = ["a\\u0000"]', r"`build.flags\[0\]`: expected printable text"),
    ],
)
def test_options_are_checked(go: Path, line: str, message: str) -> None:
    """A wrong option is an error of the file, with its place."""
    configure(go, line)
    with pytest.raises(errors.ManifestError, match=message):
        read_project(go)
