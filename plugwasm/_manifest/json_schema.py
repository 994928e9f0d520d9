"""The JSON Schema of the manifest."""

from __future__ import annotations

import msgspec

from .model import Manifest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["json_schema"]


def json_schema() -> dict[str, Any]:
    """Return a JSON Schema (2020-12) of the manifest, for editors and for checks outside Python."""
    schema = msgspec.json.schema(Manifest)
    definitions = schema["$defs"]
    for owner, field in (("Manifest", "memory"), ("Manifest", "config"), ("WasmSource", "headers")):
        inner = definitions[owner]["properties"][field]
        kept = {key: inner.pop(key) for key in ("description", "default") if key in inner}
        definitions[owner]["properties"][field] = {"anyOf": [inner, {"type": "null"}], **kept}
    definitions["WasmSource"]["oneOf"] = [
        {"required": [field], "properties": {field: {"type": "string"}}}
        for field in ("path", "data", "url")
    ]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:plugwasm:manifest:1",
        "title": "plugwasm manifest",
        **schema,
    }


json_schema.__module__ = "plugwasm.manifest"
