"""The JSON schema of manifests accepts and refuses what parsing does."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from plugwasm.manifest import json_schema, parse
from tests.support.manifests import FULL, WRONG_TYPES, parse_error, with_value


def is_valid(schema: dict[str, Any], value: Any, root: dict[str, Any]) -> bool:
    """Validate by the part of JSON Schema that the manifest's schema uses."""
    known = {
        "$ref",
        "$defs",
        "$schema",
        "$id",
        "anyOf",
        "oneOf",
        "type",
        "properties",
        "required",
        "additionalProperties",
        "items",
    }
    known |= {
        "title",
        "description",
        "default",
        "contentEncoding",
        "minimum",
        "maximum",
        "minItems",
        "maxItems",
        "maxProperties",
        "pattern",
    }
    assert set(schema) <= known, "this check does not know all that the schema uses"
    types = {"object": dict, "array": list, "string": str, "integer": int, "null": type(None)}
    if "$ref" in schema and not is_valid(
        root["$defs"][schema["$ref"].rpartition("/")[2]], value, root
    ):
        return False
    if "anyOf" in schema and not any(is_valid(part, value, root) for part in schema["anyOf"]):
        return False
    if "oneOf" in schema and sum(is_valid(part, value, root) for part in schema["oneOf"]) != 1:
        return False
    if "type" in schema and (
        not isinstance(value, types[schema["type"]]) or isinstance(value, bool)
    ):
        return False
    if isinstance(value, dict):
        properties, extra = schema.get("properties", {}), schema.get("additionalProperties", True)
        if not set(schema.get("required", ())) <= set(value) or (
            extra is False and not set(value) <= set(properties)
        ):
            return False
        return len(value) <= schema.get("maxProperties", len(value)) and all(
            is_valid(
                properties[key] if key in properties else extra if isinstance(extra, dict) else {},
                item,
                root,
            )
            for key, item in value.items()
        )
    if isinstance(value, list):
        fits = schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value))
        return fits and all(is_valid(schema.get("items", {}), item, root) for item in value)
    if isinstance(value, int):
        return bool(schema.get("minimum", value) <= value <= schema.get("maximum", value))
    return (
        re.search(schema.get("pattern", ""), value) is not None if isinstance(value, str) else True
    )


def test_schema_accepts_what_parse_accepts() -> None:
    """The JSON schema accepts what `parse` accepts."""
    schema = json_schema()
    json.dumps(schema)
    nulls = {"path": "m", "data": None, "url": None, "headers": None, "name": None}
    for document in (
        FULL,
        {"wasm": [nulls], "memory": None, "config": None, "timeout_ms": None},
        {"wasm": [{"data": ""}]},
    ):
        parse(document)
        assert is_valid(schema, document, schema)


@pytest.mark.parametrize(
    "document",
    [
        *(with_value(field, value) for field, value, _, _ in WRONG_TYPES if value != 1.0),
        {},
        {"wasm": []},
        {"wasm": [{}]},
        {"wasm": [{"path": "m", "url": "http://h"}]},
        with_value("memroy", {}),
        with_value("wasm[0].hash", "abc"),
        with_value("memory.max_pages", 65537),
        with_value("timeout_ms", -1),
        {"wasm": [{"path": "m"}] * 257},
        {"wasm": [{"url": "http://h/m", "method": "DELETE"}]},
        with_value("config", {str(number): "" for number in range(10_001)}),
    ],
)
def test_schema_refuses_what_parse_refuses(document: dict[str, Any]) -> None:
    """The JSON schema refuses what `parse` refuses."""
    parse_error(document)
    schema = json_schema()
    assert not is_valid(schema, document, schema)


def test_schema_describes_every_field() -> None:
    """The JSON schema describes every field."""
    schema = json_schema()
    assert schema["$id"] == "urn:plugwasm:manifest:1"
    assert schema["title"] == "plugwasm manifest"
    for definition in schema["$defs"].values():
        assert definition["description"]
        for field, entry in definition["properties"].items():
            assert entry.get("description"), field
