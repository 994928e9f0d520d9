"""Sources of plugins and compiled plugins, their attributes, and the arguments that they refuse."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import pickle
import uuid
from pathlib import Path
from typing import Any

import pytest

import plugwasm
from plugwasm import (
    CancelHandle,
    CompiledPlugin,
    HashMismatchError,
    ManifestError,
    ModuleError,
    OptionError,
    Plugin,
    SourceError,
)
from tests.support.guests import export, guest, manifest, number

ECHO = guest(export("echo", "(call $echo)") + '(func (export "code") (result i32) (i32.const 0))')
CONFIG = guest(export("get", "(call $give (call $config_get <<k>>))"))


def binary(text: str) -> bytes:
    from plugwasm._engine import wat_to_wasm

    return wat_to_wasm(text.encode())


# What a plugin can be made of


def forms(tmp_path: Path) -> dict[str, Any]:
    wasm = binary(ECHO)
    (tmp_path / "m.wasm").write_bytes(wasm)
    (tmp_path / "m.wat").write_text(ECHO)
    plain = {"wasm": [{"data": base64.b64encode(wasm).decode()}]}
    (tmp_path / "m.json").write_text(json.dumps({"wasm": [{"path": "m.wasm"}]}))
    (tmp_path / "m.toml").write_text('[[wasm]]\npath = "m.wasm"\n')
    return {
        "binary": wasm,
        "bytearray": bytearray(wasm),
        "memoryview": memoryview(wasm),
        "text": ECHO,
        "text in bytes": ECHO.encode(),
        "path in text": str(tmp_path / "m.wasm"),
        "path": tmp_path / "m.wasm",
        "path of text": tmp_path / "m.wat",
        "dict with bytes": {"wasm": [{"data": wasm}]},
        "dict with base64": plain,
        "dict with path": {"wasm": [{"path": tmp_path / "m.wasm"}]},
        "JSON": json.dumps(plain),
        "JSON in bytes, by name": plugwasm.Manifest.parse(json.dumps(plain).encode()),
        "TOML": f"[[wasm]]\ndata = '{plain['wasm'][0]['data']}'\n",
        "file of JSON": tmp_path / "m.json",
        "file of TOML": str(tmp_path / "m.toml"),
        "Manifest": plugwasm.Manifest(wasm=[plugwasm.WasmSource(data=wasm)]),
        "CompiledPlugin": CompiledPlugin(wasm),
    }


def test_sources(tmp_path: Path) -> None:
    """A plugin can be created from each kind of source."""
    for form, value in forms(tmp_path).items():
        with Plugin(value) as plugin:
            assert plugin.call("echo", form) == form.encode()


def test_positional_arguments() -> None:
    """The arguments can be positional."""
    with Plugin(CONFIG, False, {"k": "by position"}, []) as plugin:
        assert plugin.call("get", "", bytes, None) == b"by position"
    assert CompiledPlugin(CONFIG, False, []).functions == ()


@pytest.mark.parametrize(
    "value", [None, 5, 1.5, [], object(), ("a",)], ids=lambda value: type(value).__name__
)
def test_invalid_source(value: Any) -> None:
    """A source that cannot be a plugin is a manifest error."""
    with pytest.raises(ManifestError):
        Plugin(value)


def test_invalid_inputs(tmp_path: Path) -> None:
    """Invalid inputs raise typed errors with a message."""
    with pytest.raises(SourceError, match="nowhere"):
        Plugin(tmp_path / "nowhere.wasm")
    with pytest.raises(SourceError, match=r"nowhere\.wasm"):
        Plugin(manifest() | {"wasm": [{"path": str(tmp_path / "nowhere.wasm")}]})
    with pytest.raises(plugwasm.Error):
        Plugin(b"")
    with pytest.raises(plugwasm.Error):
        Plugin(b"\x7fELF\1\2\3")
    with pytest.raises(ModuleError, match="valid"):
        Plugin(b"\0asm\1\0\0\0\xff\xff")
    with pytest.raises(ModuleError):
        Plugin("(module (func (export 5)))")
    with pytest.raises(ModuleError):
        Plugin(binary(ECHO)[:-7])
    with pytest.raises(ManifestError):
        Plugin({"wasm": []})
    with pytest.raises(ManifestError, match="unknown"):
        Plugin(manifest(ECHO) | {"unknown": 1})


def test_a_hash_pins_the_bytes() -> None:
    wasm = binary(ECHO)
    right = hashlib.sha256(wasm).hexdigest()
    for hash in (right, right.upper()):
        with Plugin({"wasm": [{"data": wasm, "hash": hash}]}) as plugin:
            assert plugin.call("echo", b"x") == b"x"
    with pytest.raises(HashMismatchError, match=right):
        Plugin({"wasm": [{"data": wasm, "hash": "0" * 64}]})


def test_wrong_hash_before_compile() -> None:
    """A wrong hash is found before anything is compiled."""
    with pytest.raises(HashMismatchError):
        Plugin({"wasm": [{"data": b"\0asm\1\0\0\0\xff\xff", "hash": "0" * 64}]})


# What it tells of itself


def test_name(tmp_path: Path) -> None:
    """The name is the given one, or that of the file or of the main module."""
    (tmp_path / "my.plugin.wasm").write_bytes(binary(ECHO))
    assert "my.plugin" in Plugin(tmp_path / "my.plugin.wasm").name
    assert Plugin(ECHO).name == "plugin"
    assert Plugin(ECHO, name="given").name == "given"
    compiled = CompiledPlugin(ECHO, name="compiled")
    assert compiled.name == "compiled"
    assert Plugin(compiled).name == "compiled"
    assert (repr(compiled), repr(Plugin(compiled))) == (
        "<CompiledPlugin 'compiled'>",
        "<Plugin 'compiled'>",
    )


def test_id_is_unique_and_stable() -> None:
    """Each plugin has a unique id that does not change."""
    compiled = CompiledPlugin(ECHO)
    plugins = [Plugin(compiled) for _ in range(50)]
    ids = [plugin.id for plugin in plugins]
    assert all(type(id) is uuid.UUID for id in ids)
    assert len(set(ids)) == 50
    plugins[0].call("echo")
    plugins[0].reset()
    assert plugins[0].id == ids[0]


def test_compiled_plugin_attribute() -> None:
    """A plugin has its compiled plugin as an attribute."""
    compiled = CompiledPlugin(
        ECHO, wasi=True, fuel_limit=1000, http_response_headers=True, functions=[]
    )
    assert (
        compiled.wasi,
        compiled.fuel_limit,
        compiled.http_response_headers,
        compiled.functions,
    ) == (True, 1000, True, ())
    assert Plugin(compiled).compiled_plugin is compiled
    own = Plugin(ECHO, name="own").compiled_plugin
    assert isinstance(own, CompiledPlugin)
    assert own.name == "own"


def test_compiled_settings_are_not_accepted() -> None:
    """A plugin does not accept settings that belong to its compiled plugin."""
    compiled = CompiledPlugin(ECHO, name="compiled")
    with pytest.raises(
        OptionError,
        match=r"^name, fuel_limit: they would not be used here; plugin `compiled` is a CompiledPlugin",
    ):
        Plugin(compiled, name="other", fuel_limit=1)
    plugin = Plugin(compiled)
    assert plugin.name == "compiled"
    assert plugin.call("echo", b"x") == b"x"
    assert plugin.fuel_used is None


def test_exports_and_imports() -> None:
    """Exports and imports are listed with kinds and types."""
    with Plugin(ECHO) as plugin:
        assert {item.name: repr(item.type) for item in plugin.exports} == {
            "echo": "() -> ()",
            "code": "() -> (i32)",
        }
        (first, *_) = plugin.imports
        assert (first.module, first.kind) == ("extism:host/env", "function")
        assert isinstance(first, plugwasm.Item)
        assert isinstance(first.type, plugwasm.FunctionType)
        assert "extism:host/env" in repr(first)


def test_extism_version() -> None:
    """The Extism version is plugwasm's own version."""
    assert plugwasm.extism_version() == plugwasm.__version__
    assert all(part.isdigit() for part in plugwasm.__version__.split(".")[:2])


@pytest.mark.parametrize("make", [Plugin, CompiledPlugin])
@pytest.mark.parametrize("way", [pickle.dumps, copy.copy, copy.deepcopy])
def test_no_pickle_and_no_copy(make: Any, way: Any) -> None:
    """Objects that live in one process can be neither pickled nor copied."""
    plugin = make(ECHO)
    with pytest.raises(TypeError, match=f"{make.__name__}.*cannot be copied or pickled"):
        way(plugin)
    with pytest.raises(TypeError, match="cannot be copied or pickled"):
        way(
            [vars(plugin)]
            if hasattr(plugin, "__dict__")
            else CompiledPlugin(ECHO)._plan.main.module
        )


@pytest.mark.parametrize(
    "way", [lambda value: pickle.loads(pickle.dumps(value)), copy.copy, copy.deepcopy]
)
def test_exports_can_be_pickled(way: Any) -> None:
    """The descriptions of exports can be pickled and copied."""
    items = Plugin(ECHO).exports
    again = way(items)
    assert [repr(item) for item in again] == [repr(item) for item in items]
    assert [item.type for item in again] == [item.type for item in items]


def test_cancel_handle_class() -> None:
    """`cancel_handle()` returns a CancelHandle."""
    assert isinstance(Plugin(ECHO).cancel_handle(), CancelHandle)


def test_misspelt_names_are_refused() -> None:
    """Misspelt argument names are refused."""
    plugin = Plugin(ECHO)
    with pytest.raises(AttributeError):
        plugin.timeout = 5  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        Plugin(ECHO, timeout_ms=5)


def test_thousand_calls() -> None:
    """A thousand calls return a thousand correct outputs."""
    with Plugin(ECHO) as plugin:
        for i in range(1000):
            data = str(i).encode() * (i % 50)
            assert plugin.call("echo", data) == data


def test_functions_in_any_order() -> None:
    """Functions of a plugin can be called in any order."""
    source = guest(
        "(global $n (mut i64) (i64.const 1))"
        + export(
            "double",
            "(global.set $n (i64.mul (global.get $n) (i64.const 2))) (call $answer (global.get $n))",
        )
        + """(func (export "increment") (result i32)
            (global.set $n (i64.add (global.get $n) (i64.const 1))) (call $answer (global.get $n)) (i32.const 0))"""
    )
    with Plugin(source) as plugin:
        assert [
            number(plugin.call(name)) for name in ("double", "increment", "increment", "double")
        ] == [2, 3, 4, 8]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"wasi": "yes"}, "wasi: expected True, False or WasiOptions, got str"),
        ({"limits": {"timeout": 1}}, "limits: expected Limits, got dict"),
        ({"egress": ["example.com"]}, "egress: expected an Egress, got list"),
    ],
)
def test_wrong_option_type_is_refused(options: dict[str, Any], message: str) -> None:
    """An option of the wrong type is refused at once."""
    with pytest.raises(OptionError, match=f"^{message}"):
        CompiledPlugin(ECHO, **options)
