"""The public names are fixed, and imports stay lean. `make lint` checks the direction of imports
between rooms."""

from __future__ import annotations

import ast
import inspect
import pickle
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import plugwasm

PACKAGE = Path(plugwasm.__file__).parent

PUBLIC = """
Admitted AsyncOutputs BadHandleError BatchError BusyError CallError CancelHandle CancelledError
Clock ClosedError CoarseClock Codec CompiledPlugin CurrentPlugin CustomLogger Egress
EgressDeniedError EgressError EgressRequest EgressResponse EngineError Error ExitError
FromEnvironment FrozenClock Function FunctionNotFoundError FunctionType GuestError HashMismatchError
HostFunctionError HttpTransport InstanceLostError InterfaceError IsolatedPlugin Item Json Lease Limits LinkError
Manifest ManifestError ManifestPolicy MapBatches Measured Memory MemoryOptions MissingImportError
ModuleError Observe OptionError OutOfFuelError OutOfMemoryError OutputError Pickle Plugin
PluginInput PluginPool PluginRef PluginSet PoolStats PoolTimeoutError ProcessLimits Readable
RecordingError Recycle ReplayError RowError SchemaError ScriptError SeededRandom SignatureError SourceError StackError
TimeoutError Transport TrapError UnsafePickle Val ValType WasiOptions WasmSource WorkerError __version__ export
extism_version get_include host_fn host_namespace script set_log_custom set_log_file
use_explicit_checks
aio cache codecs debugging errors interfaces manifest observing otel plugin_set recording testing
""".split()


def test_the_public_names_are_these() -> None:
    assert sorted(plugwasm.__all__) == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_name_is_importable_and_documented(name: str) -> None:
    """A public name can be imported and has a docstring."""
    value = getattr(plugwasm, name)
    assert name == "__version__" or value.__doc__


def test_unknown_name_is_attribute_error() -> None:
    """An unknown name is an AttributeError."""
    with pytest.raises(AttributeError, match="has no attribute 'Plugn'"):
        _ = plugwasm.Plugn  # type: ignore[attr-defined]


def test_type_checkers_see_public_names() -> None:
    """Type checkers see the public names and no others.

    The imports for type checkers alone are those of the list, in its order.
    """
    expected = [f"from . import {module} as {module}" for module in plugwasm._PUBLIC_MODULES]
    for module, names in plugwasm._PUBLIC_NAMES.items():
        expected += [f"from .{module} import {name} as {name}" for name in names.split()]
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    assert [ast.unparse(node) for node in block.body] == expected, "\n".join(expected)


def test_dir_lists_public_names() -> None:
    """`dir` lists every public name."""
    assert set(plugwasm.__all__) <= set(dir(plugwasm))


def loaded_after(program: str) -> set[str]:
    code = f"import sys\n{program}\nprint(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-I", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=PACKAGE.parent,
    )
    return set(run.stdout.split())


HEAVY = {
    "msgspec",
    "urllib3",
    "logging",
    "json",
    "typing",
    "wasmtime",
    "hashlib",
    "inspect",
    "dataclasses",
    "ssl",
    "http",
    "re",
    "typer",
    "rich",
}


def test_import_loads_nothing_unneeded() -> None:
    """Importing the package loads no module that is not needed yet."""
    start = f"sys.path.insert(0, {str(PACKAGE.parent)!r})\nbefore = set(sys.modules)\n"
    assert not loaded_after(
        start
        + "import plugwasm\nfor m in before: sys.modules.pop(m) if m not in ('sys', 'builtins') else 0"
    ) & (HEAVY | {"ctypes", "plugwasm._runtime.plugin"})


def test_small_module_loads_nothing_heavy() -> None:
    """Running a small module imports nothing expensive."""
    plugin = str(PACKAGE.parent / "examples" / "echo.wasm")
    program = (
        f"sys.path.insert(0, {str(PACKAGE.parent)!r})\nbefore = set(sys.modules)\nimport plugwasm\n"
        f"assert plugwasm.Plugin({plugin!r}).call('echo', b'x') == b'x'\nfor m in before: sys.modules.pop(m) if m not in ('sys', 'builtins') else 0"
    )
    assert not loaded_after(program) & HEAVY


MODULES = plugwasm._PUBLIC_MODULES
FACADES = ("cache", "codecs", "interfaces", "manifest", "observing", "plugin_set", "recording")


@pytest.mark.parametrize("module", ["", *MODULES])
def test_module_attribute_is_public(module: str) -> None:
    """The `__module__` of public classes and functions is public."""
    public = getattr(plugwasm, module) if module else plugwasm
    for name in public.__all__:
        value = getattr(public, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            home = value.__module__
            assert home in ("plugwasm", *(f"plugwasm.{name}" for name in MODULES)), name
            assert getattr(import_module(home), name) is value


@pytest.mark.parametrize(
    "value",
    [
        plugwasm.Limits(timeout=2.0),
        plugwasm.ProcessLimits(),
        plugwasm.Manifest(wasm=[plugwasm.WasmSource(path="a.wasm")]),
        plugwasm.ManifestPolicy(),
        plugwasm.Egress(allowed_hosts=["example.com"]),
        plugwasm.WasiOptions(clock=plugwasm.FrozenClock(5), random=plugwasm.SeededRandom(1)),
        plugwasm.PluginRef(b"(module)"),
        plugwasm.MapBatches(plugwasm.PluginRef(b"(module)"), "f", column="x"),
        plugwasm.FunctionType(("i64",), ()),
        plugwasm.Val(plugwasm.ValType.I64, 3),
        plugwasm.codecs.JSON,
    ],
    ids=lambda value: type(value).__name__,
)
def test_pickle_names_public_modules(value: object) -> None:
    """A pickle names only public modules."""
    pickled = pickle.dumps(value)
    assert type(pickle.loads(pickled)) is type(value)
    assert b"plugwasm._" not in pickled


@pytest.mark.parametrize("module", MODULES)
def test_documented_modules_are_loaded(module: str) -> None:
    """A documented submodule is imported when it is accessed as an attribute of the package."""
    code = f"import sys, plugwasm\nassert 'plugwasm.{module}' not in sys.modules\nplugwasm.{module}.__all__"
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=PACKAGE.parent,
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("module", FACADES)
def test_public_module_only_re_exports(module: str) -> None:
    """A public module only re-exports."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    assert all(isinstance(node, (ast.Expr, ast.ImportFrom, ast.Assign)) for node in tree.body)


def test_one_underscore_per_path() -> None:
    """A module's path has one underscore, at its outermost private part."""
    paths = [path.relative_to(PACKAGE).with_suffix("").parts for path in PACKAGE.rglob("*.py")]
    marked = [
        [part for part in parts if part.startswith("_") and not part.startswith("__")]
        for parts in paths
    ]
    assert max(map(len, marked)) == 1
    for parts, private in zip(paths, marked, strict=True):
        assert not private or parts.index(private[0]) == 0 or parts[0] == "testing"


def test_relative_imports_only() -> None:
    """Modules of the package import each other relatively."""
    absolute = re.compile(r"^\s*(from|import) plugwasm\b", re.M)
    assert not [
        path
        for path in PACKAGE.rglob("*.py")
        if absolute.search(path.read_text().partition("from __future__")[2])
    ]


def test_ctypes_import_is_confined() -> None:
    """Only the engine and the code that confines a worker import ctypes."""
    users = {
        path.relative_to(PACKAGE).as_posix().partition("_engine/")[1]
        or path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if (
            isinstance(node, ast.Import)
            and any(alias.name.startswith("ctypes") for alias in node.names)
        )
        or (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ctypes"))
    }
    assert users == {"_engine/", "_isolation/confinement.py"}


def test_pdk_header_is_in_repository() -> None:
    """The C header for plugins is found in a clone; `test_wheel` looks into the wheel."""
    assert (Path(plugwasm.get_include()) / "plugwasm.h").is_file()


def test_pdk_header_is_in_installed_package(tmp_path: Path) -> None:
    """An installed package contains the header.

    As a wheel is laid out: the package with the header in it, and no examples beside it.
    """
    import shutil

    shutil.copytree(PACKAGE, tmp_path / "plugwasm", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(PACKAGE.parent / "pdk" / "c", tmp_path / "plugwasm" / "_pdk" / "c")
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import plugwasm; print(plugwasm.get_include())"
    run = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == str(tmp_path / "plugwasm" / "_pdk" / "c" / "include")
