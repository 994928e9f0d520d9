"""The JSON Schema of `plugin.toml`, for editors and for checks outside Python.

What a field means is written once, in the docstring of its struct. From there it goes into the
schema and into docs/reference/plugin_toml.md.
"""

from __future__ import annotations

import inspect
import re
from itertools import combinations
from typing import Any, Final

import msgspec

from .._manifest import json_schema as manifest_schema
from .._plugin_set.metadata import PluginTable, Setting
from .case_model import Call, Case, Data, HostAnswer, HttpAnswer, Response
from .project_file import LANGUAGES, Build

__all__ = ["STRUCTS", "field_meanings", "json_schema"]

STRUCTS: Final = (
    PluginTable,
    Setting,
    Build,
    Case,
    Call,
    HostAnswer,
    HttpAnswer,
    Response,
    Data,
)

_INPUTS: Final = ("input", "input_json", "input_base64", "input_file")
_RESULTS: Final = (
    "output",
    "output_json",
    "output_base64",
    "output_file",
    "output_json_file",
)
_FORMS: Final = ("text", "json", "base64", "file")


class _Document(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The project file of a plugin: what it is, what it asks for, how it is built and tested."""

    plugin: PluginTable = msgspec.field(default_factory=PluginTable)
    manifest: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    build: Build | msgspec.UnsetType = msgspec.UNSET
    test: list[Case] = []


def json_schema() -> dict[str, Any]:
    """Return a JSON Schema (2020-12) of `plugin.toml`."""
    schema = msgspec.json.schema(_Document)
    definitions = schema["$defs"]
    for struct in STRUCTS:
        definition = definitions[struct.__name__]
        definition["description"] = _summary(struct)
        for field, meaning in field_meanings(struct).items():
            definition["properties"][field]["description"] = meaning
    definitions["Build"]["properties"]["language"]["enum"] = list(LANGUAGES)
    for name in "Case", "Call":
        _allow_one_of(definitions[name], _INPUTS)
        _allow_one_of(definitions[name], (*_RESULTS, "error"))
        _allow_one_of(definitions[name], (*_RESULTS, "error_code"))
    _allow_one_of(definitions["Response"], _FORMS)
    definitions["Data"]["oneOf"] = [{"required": [form]} for form in _FORMS]

    manifest = manifest_schema.json_schema()
    definitions |= manifest["$defs"]
    definitions["Manifest"].pop("required", None)  # the module is `plugin.wasm` if it says nothing
    definitions["_Document"]["properties"]["manifest"] = {"$ref": "#/$defs/Manifest"}
    definitions["Project"] = definitions.pop("_Document") | {"title": "Project"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:plugwasm:plugin:1",
        "title": "plugin.toml",
        "$ref": "#/$defs/Project",
        "$defs": definitions,
    }


def field_meanings(struct: type) -> dict[str, str]:
    """Return what the fields of a struct mean, as its docstring and those of its bases say."""
    inherited = field_meanings(struct.__base__) if struct.__base__ in STRUCTS else {}
    _, _, section = (inspect.getdoc(struct) or "").partition("Attributes:\n")
    found = re.findall(
        r"^((?:\w+, )*\w+): (.*(?:\n +.*)*)", inspect.cleandoc(section), re.MULTILINE
    )
    return inherited | {
        name: " ".join(meaning.split()) for names, meaning in found for name in names.split(", ")
    }


def _summary(struct: type) -> str:
    text, _, _ = (inspect.getdoc(struct) or "").partition("Attributes:\n")
    return " ".join(text.split())


def _allow_one_of(definition: dict[str, Any], fields: tuple[str, ...]) -> None:
    """Allow at most one of these fields."""
    rules = definition.setdefault("allOf", [])
    rules += [
        rule
        for pair in combinations(fields, 2)
        if (rule := {"not": {"required": list(pair)}}) not in rules
    ]
