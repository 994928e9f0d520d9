"""Descriptions of plugins, and the metadata files that they come from."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import plugwasm
import plugwasm.aio
from plugwasm import Egress
from plugwasm._plugin_set import plugin_set
from plugwasm._plugin_set.metadata import PluginTable, parse_plugin_file
from plugwasm.errors import (
    ManifestError,
)
from plugwasm.plugin_set import PluginSet
from tests.support.guests import export, guest
from tests.support.plugin_sets import (
    ENTRY,
    FAILING,
    description_of,
    error_of,
    make_folder,
    text_plugin,
    write_file,
)

ABOUT = """
[plugin]
title = "Spell checker"
version = "1.2.0"
description = "Finds words\\nthat are none."
author = "Ada"
homepage = "https://example.com/spell"
order = 3

[plugin.settings.language]
description = "Which dictionary"
default = "en"

[plugin.settings.token]
secret = true

[manifest]
wasm = [{path = "plugin.wasm"}]
timeout_ms = 100
allowed_hosts = ["api.example.com"]
config = {key = "hidden-in-manifest"}

[extra]
category = "text"
"""


def test_description_fields(tmp_path: Path) -> None:
    """A description has the fields that a settings page shows."""
    module = guest(export("hook", "(call $enter)"), ENTRY)
    path = make_folder(tmp_path / "spell", ABOUT, module)
    functions = [
        plugwasm.Function("extism:host/user", name, [], [], lambda *_: None)
        for name in ("enter", "other")
    ]
    egress = Egress(allowed_hosts=["*.example.com"])
    with PluginSet.from_directory(
        tmp_path, config={"spell": {"token": "hidden-by-app"}}, egress=egress, functions=functions
    ) as plugins:
        (found,) = plugins.describe()
        assert (found.name, found.title, found.version, found.author) == (
            "spell",
            "Spell checker",
            "1.2.0",
            "Ada",
        )
        assert (found.homepage, found.description) == (
            "https://example.com/spell",
            "Finds words\nthat are none.",
        )
        assert found.source == str(path)
        assert found.hooks == ("hook",)
        assert found.settings["language"].default == "en"
        assert found.settings["token"].secret
        assert found.configured == ("token",)
        assert found.extra == {"category": "text"}
        assert found.imports == ("extism:host/user.enter",)
        assert found.grants == plugin_set.Grants(
            hosts=("api.example.com",),
            hosts_asked=("api.example.com",),
            functions=("enter",),
            timeout=0.1,
            memory_bytes=2**30,
        )
        shown = (
            msgspec.json.encode(plugins.describe()).decode()
            + repr(plugins.describe())
            + repr(plugins)
        )
        assert "hidden" not in shown


def test_call_failure_shown_until_change(tmp_path: Path) -> None:
    """The error of a call is shown until the plugin changes."""
    path = write_file(tmp_path / "a.wasm", FAILING)
    with PluginSet.from_directory(tmp_path) as plugins:
        plugins.first("hook")
        assert "not today" in str(description_of(plugins, "a").last_failure)
        write_file(path, text_plugin("a"))
        plugins.reload()
        assert description_of(plugins, "a").last_failure is None


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ("[plugin]\ntitle = 5", "plugin.title`: expected a string, got an integer"),
        ("[plugin]\ntitel = 'x'", "plugin.titel`: unknown field; did you mean `title`"),
        ("[plugn]\n", "plugn`: unknown field; did you mean `plugin`"),
        (
            "[plugin]\ntitle = 'a\\u001b[2J'".replace("'", '"'),
            "plugin.title`: expected printable text",
        ),
        (
            '[plugin]\ndescription = "\\u202egnp.exe"',
            "plugin.description`: expected printable text",
        ),
        (
            f"[plugin]\ntitle = '{'x' * 101}'",
            "plugin.title`: expected at most 100 characters, got 101",
        ),
        (
            "[plugin]\nhomepage = 'javascript:alert(1)'",
            "plugin.homepage`: expected an address that begins with https://",
        ),
        (
            "[plugin]\nhomepage = 'https://a/\" onclick=x'",
            "plugin.homepage`: expected an address that begins with https://",
        ),
        ("[plugin]\norder = 10000000000000000000000", "plugin.order`: "),
        ("[plugin.settings.x]\ndefault = 5", "plugin.settings"),
        ('[plugin.settings."a\\nb"]\n', "plugin.settings`: expected names that can be shown"),
        (
            "\n".join(f"[plugin.settings.s{i}]" for i in range(101)),
            "plugin.settings`: expected at most 100, got 101",
        ),
        ("[manifest]\nwasm = 5", "manifest field `wasm`: expected a list, got an integer"),
        ("[plugin", "plugin.toml: "),
        ("x = " + "[" * 100_000, "nested too deeply"),
        (".".join("a" * 100_000) + " = 1", "too many parts"),
        ("# " + "x" * 2**20, "larger than the limit of 1048576 bytes"),
    ],
)
def test_plugin_file_error_stops_no_other(tmp_path: Path, about: str, message: str) -> None:
    """An error in one plugin's metadata is reported and does not affect other plugins."""
    make_folder(tmp_path / "bad", about, text_plugin("bad"))
    write_file(tmp_path / "good.wasm", text_plugin("good"))
    with PluginSet.from_directory(tmp_path) as plugins:
        assert plugins.hooks == {"hook": ("good",)}
        assert message in error_of(plugins, "bad")
        assert "plugin.toml" in error_of(plugins, "bad")


def test_plugin_file_as_json(tmp_path: Path) -> None:
    """The metadata can be JSON, and two metadata files are an error."""
    make_folder(
        tmp_path / "a",
        '{"plugin": {"title": "A"}, "extra": {"x": [1]}}',
        text_plugin("a"),
        name="plugin.json",
    )
    make_folder(tmp_path / "b", "{}", text_plugin("b"), name="plugin.json")
    make_folder(tmp_path / "b", "[plugin]")
    make_folder(tmp_path / "c", "[manifest]\nwasm = [{path = 'plugin.wasm'}]", text_plugin("c"))
    make_folder(tmp_path / "c", "wasm = [{path = 'plugin.wasm'}]", name="manifest.toml")
    make_folder(tmp_path / "d", "[plugin]\nversion = '4'")
    make_folder(
        tmp_path / "d",
        '{"wasm": [{"path": "plugin.wasm"}]}',
        text_plugin("d"),
        name="manifest.json",
    )
    make_folder(tmp_path / "e", "[plugin]\ntitle = 'Half installed'")
    with PluginSet.from_directory(tmp_path) as plugins:
        assert plugins.hooks == {"hook": ("a", "d")}
        assert description_of(plugins, "a").extra == {"x": [1]}
        assert "has both plugin.toml and plugin.json" in error_of(plugins, "b")
        assert "has two manifests" in error_of(plugins, "c")
        assert description_of(plugins, "d").version == "4"
        assert "no such file" in error_of(plugins, "e")
        assert description_of(plugins, "e").title == "Half installed"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(st.characters()) | st.sampled_from(["title", "default"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)
TABLE = (
    st.dictionaries(st.sampled_from([*PluginTable.__struct_fields__, "x"]), VALUES, max_size=6)
    | VALUES
)
FILES = st.dictionaries(st.sampled_from(["plugin", "manifest", "extra", "x"]), TABLE).map(
    lambda file: json.dumps(file).encode()
)


@settings(max_examples=150, deadline=None)
@given(FILES | st.binary() | st.text().map(lambda text: text.encode("utf-8", "replace")))
def test_random_plugin_files(content: bytes) -> None:
    """Any metadata file is valid or a printable error."""
    try:
        msgspec.json.encode(parse_plugin_file(content))
    except ManifestError as error:
        assert error.message.isprintable()
