"""Modules of plugwasm, such as interpreters of scripts: compiled by the application, for workers."""

from __future__ import annotations

from typing import Any

import pytest

from plugwasm import CompiledPlugin, IsolatedPlugin, Limits, script
from plugwasm._engine import wat_to_wasm
from plugwasm._isolation import startup
from plugwasm._manifest.resolve import ModuleSpec, PluginSpec
from plugwasm._runtime.compiler import pack_facts
from plugwasm._runtime.modules import compile_module, get_engine
from plugwasm._runtime.settings import PluginSettings
from tests.support.plugin_sets import text_plugin
from tests.support.scripts import need_engine


def bytes_of(text: str) -> bytes:
    return wat_to_wasm(text_plugin(text).encode())


def compiled_of(*modules: ModuleSpec) -> CompiledPlugin:
    return CompiledPlugin._from_settings(PluginSpec(list(modules)), PluginSettings(functions=()))


def artifact_of(wasm: bytes, **settings: Any) -> tuple[bytes, bytes]:
    module = compile_module(wasm, get_engine(pooled=False, **settings))
    return module.serialize(), pack_facts(module.facts)


def test_only_own_modules_are_compiled_here() -> None:
    """The application compiles the interpreter, and neither the script's own module nor a module
    of a plugin that takes the interpreter's name.
    """
    need_engine()
    loaded = script("javascript", "export const f = () => 1;")
    assert list(startup._compile_own(loaded)) == ["plugwasm:engine"]
    other = compiled_of(
        ModuleSpec("plugwasm:engine", bytes_of("a"), "x"), ModuleSpec("main", bytes_of("b"), "y")
    )
    assert startup._compile_own(other) == {}


@pytest.mark.parametrize("limits", [None, Limits(stack_bytes=2**20), Limits(gc=True)])
def test_worker_takes_what_was_compiled(
    limits: Limits | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the application has compiled is what runs: here it has compiled something else."""
    spec = PluginSpec([ModuleSpec("main", bytes_of("compiled there"), "x", is_own=True)])
    compiled = CompiledPlugin._from_settings(spec, PluginSettings(functions=(), limits=limits))
    with IsolatedPlugin(compiled) as plugin:
        assert plugin.call("hook") == b"compiled there"
    settings = {} if limits is None else {"stack_bytes": limits.stack_bytes, "gc": limits.gc}
    made = {"main": artifact_of(bytes_of("compiled here!"), **settings)}
    monkeypatch.setattr(startup, "_compile_own", lambda compiled: made)
    with IsolatedPlugin(compiled) as plugin:
        assert plugin.call("hook") == b"compiled here!"


@pytest.mark.parametrize("kind", ["other settings", "no code", "nothing"])
def test_worker_compiles_what_it_cannot_take(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code for other settings, and bytes that are no code, are left, and the module is compiled."""
    compiled = compiled_of(ModuleSpec("main", bytes_of("compiled there"), "x", is_own=True))
    code, facts = artifact_of(bytes_of("compiled here!"), fuel=True)
    made = {"other settings": code, "no code": b"\x7fELF" + bytes(100), "nothing": b""}[kind]
    monkeypatch.setattr(startup, "_compile_own", lambda compiled: {"main": (made, facts)})
    with IsolatedPlugin(compiled) as plugin:
        assert plugin.call("hook") == b"compiled there"
