"""What is public stays public, imports stay lean, and arrows point down the map."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import plugwasm

PACKAGE = Path(plugwasm.__file__).parent

PUBLIC = """
BadHandleError BatchError BusyError CallError CancelHandle CancelledError Clock ClosedError CoarseClock Codec CompiledPlugin CurrentPlugin
CustomLogger Egress EgressDeniedError EgressError EgressRequest EgressResponse EngineError Error ExitError FromEnvironment FrozenClock
Function FunctionNotFoundError FunctionType GuestError HashMismatchError HostFunctionError HttpTransport InterfaceError IsolatedPlugin Item
Json Limits LinkError Manifest ManifestError ManifestPolicy MapBatches Memory MemoryOptions Measured MissingImportError ModuleError OptionError OutOfFuelError
OutOfMemoryError OutputError Pickle Plugin PluginPool PluginRef PluginSet PoolTimeoutError ProcessLimits RecordingError ReplayError RowError SeededRandom SignatureError SourceError
StackError TimeoutError Transport TrapError UnsafePickle Val ValType WasiOptions WasmSource WorkerError __version__ aio cache codecs get_include
debugging errors export extism_version host_fn host_namespace observing otel recording set_log_custom set_log_file testing
""".split()

# From the top of the map down; a module may import what stands in its own line or below.
LAYERS = [
    {"cli", "__main__"},
    {"batches"},
    {"ref", "_tables"},
    {"_pins", "_arrow"},
    {"aio"},
    {"plugin_set"},
    {"_plugins"},
    {"_pytest"},
    {"testing"},
    {"debugging"},
    {"_debugging"},
    {"recording"},
    {"_recording"},
    {"isolated"},
    {"_worker"},
    {"pool", "_pool_signatures"},
    {"_spread"},
    {"_team"},
    {"_slots"},
    {"plugin"},
    {"_watch"},
    {"_turns"},
    {"compiled"},
    {"interfaces"},
    {"_awaiting"},
    {"_threads"},
    {"otel"},
    {"observing", "_values"},
    {"_signatures"},
    {"_standins"},
    {"functions", "current", "logs", "_bridge"},
    {"_greenlets"},
    {"_task", "_under_way"},
    {"_annotations"},
    {"_wasm_values"},
    {"codecs"},
    {"_conversion"},
    {"_hashing"},
    {"_whereabouts"},
    {"_report"},
    {"_link"},
    {"_registry"},
    {"_options"},
    {"_code"},
    {"_compiler"},
    {"_interpreter"},
    {"_children"},
    {"cache"},
    {"_env"},
    {"policy"},
    {"wasi"},
    {
        "_source",
        "_files",
        "manifest",
        "_manifest_checks",
        "_mistaken",
        "_reading",
        "_fetch",
        "_manifest_text",
        "_nesting",
        "_counting",
    },
    {"_sandbox", "_kernel", "limits"},
    {"_complaints"},
    {"_engine"},
    {"_forks", "_descriptors"},
    {"_native"},
    {"errors", "_version"},
]


def test_the_public_names_are_these() -> None:
    assert sorted(plugwasm.__all__) == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_can_be_imported_and_is_documented(name: str) -> None:
    value = getattr(plugwasm, name)
    assert name == "__version__" or value.__doc__


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Plugn'"):
        _ = plugwasm.Plugn  # type: ignore[attr-defined]


def test_everything_public_is_listed_by_dir() -> None:
    assert set(plugwasm.__all__) <= set(dir(plugwasm))


def loaded_after(program: str) -> set[str]:
    code = f"import sys\n{program}\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
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


def test_importing_the_package_loads_nothing_that_is_not_needed_yet() -> None:
    start = f"sys.path.insert(0, {str(PACKAGE.parent)!r})\nbefore = set(sys.modules)\n"
    assert not loaded_after(start + "import plugwasm\nfor m in before: sys.modules.pop(m) if m not in ('sys', 'builtins') else 0") & (
        HEAVY | {"ctypes", "plugwasm._runtime.plugin"}
    )


def test_running_a_small_module_loads_nothing_heavy() -> None:
    plugin = str(PACKAGE.parent / "examples" / "echo.wasm")
    program = (
        f"sys.path.insert(0, {str(PACKAGE.parent)!r})\nbefore = set(sys.modules)\nimport plugwasm\n"
        f"assert plugwasm.Plugin({plugin!r}).call('echo', b'x') == b'x'\nfor m in before: sys.modules.pop(m) if m not in ('sys', 'builtins') else 0"
    )
    assert not loaded_after(program) & HEAVY


def imports_of(path: Path) -> set[str]:
    """The plugwasm modules that a file imports when it is run, as the names of their lines in the map."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    package = [*parts[:-1]]
    found = set()
    tree = ast.parse(path.read_text())
    guarded = {
        id(n) for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" for n in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in guarded:
            continue
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            target = [*base, *(node.module.split(".") if node.module else [])]
            if not node.level:
                if target[:1] != ["plugwasm"]:
                    continue
                target = target[1:]
            found |= {target[0]} if target else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("plugwasm.")}
    return found


def layer(name: str) -> int:
    (number,) = [i for i, names in enumerate(LAYERS) if name in names] or [-1]
    return number


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_imports_one_that_stands_above_it(path: Path) -> None:
    name = path.relative_to(PACKAGE).with_suffix("").parts[0]
    if name == "__init__":
        return
    assert layer(name) >= 0, f"{name} has no place on the map"
    above = {other for other in imports_of(path) if 0 <= layer(other) < layer(name)}
    assert not above


def test_only_the_engine_imports_ctypes_and_what_confines_a_worker() -> None:
    users = {
        path.relative_to(PACKAGE).as_posix().partition("_engine/")[1] or path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Import) and any(alias.name.startswith("ctypes") for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ctypes"))
    }
    assert users == {"_engine/", "_isolation/confinement.py"}


def test_the_header_for_plugins_in_c_is_found_here_and_goes_into_the_wheel() -> None:
    import tomllib

    assert (Path(plugwasm.get_include()) / "pdk" / "extism.h").is_file()
    wheel = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"] == {"examples/pdk/extism.h": "plugwasm/include/pdk/extism.h"}


def test_an_installed_package_has_the_header_in_itself(tmp_path: Path) -> None:
    """As a wheel is laid out: the package, the header in it, and no examples beside it."""
    import shutil

    shutil.copytree(PACKAGE, tmp_path / "plugwasm", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "plugwasm" / "include" / "pdk").mkdir(parents=True)
    shutil.copy(PACKAGE.parent / "examples" / "pdk" / "extism.h", tmp_path / "plugwasm" / "include" / "pdk")
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import plugwasm; print(plugwasm.get_include())"
    run = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == str(tmp_path / "plugwasm" / "include")
