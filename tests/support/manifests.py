"""Manifest documents, valid and invalid, and the errors that invalid ones raise."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest

from plugwasm.errors import ManifestError
from plugwasm.manifest import parse

HASH = "0123456789abcdef" * 4

FULL: dict[str, Any] = {
    "wasm": [
        {"path": "lib.wasm", "name": "lib"},
        {"data": base64.b64encode(b"\0asm\1\0\0\0").decode(), "hash": HASH},
        {
            "url": "https://example.com/m.wasm",
            "headers": {"X-Key": "k"},
            "method": "POST",
            "name": "main",
        },
    ],
    "memory": {"max_pages": 16, "max_http_response_bytes": 1024, "max_var_bytes": 0},
    "config": {"key": "value", "empty": ""},
    "allowed_hosts": ["*.example.com", "localhost"],
    "allowed_paths": {"ro:/srv/data": "/data"},
    "timeout_ms": 500,
}


def parse_error(value: object) -> ManifestError:
    with pytest.raises(ManifestError) as caught:
        parse(value)
    return caught.value


def with_value(path: str, value: object) -> dict[str, Any]:
    """Return ``FULL`` with ``value`` at ``path``, e.g. ``wasm[2].url``."""
    document: Any = json.loads(json.dumps(FULL))
    target = document
    *parents, last = re.findall(r"[a-z_]+|\d+", path)
    for part in parents:
        target = target[int(part) if part.isdigit() else part]
    target[int(last) if last.isdigit() else last] = value
    return dict(document)


# Where, what is wrong there, what was expected, what is said to be there.
WRONG_TYPES: list[tuple[str, object, str, str]] = [
    ("wasm", None, "a list", "null"),
    ("wasm", "m.wasm", "a list", "a string"),
    ("wasm", {"path": "m.wasm"}, "a list", "an object"),
    ("wasm[0]", "m.wasm", "an object", "a string"),
    ("wasm[0]", None, "an object", "null"),
    ("wasm[0].path", 1, "a string or null", "an integer"),
    ("wasm[0].path", ["m.wasm"], "a string or null", "a list"),
    ("wasm[0].name", True, "a string or null", "a boolean"),
    ("wasm[1].data", 1, "bytes, base64 text or null", "an integer"),
    ("wasm[1].data", [0, 97], "bytes, base64 text or null", "a list"),
    ("wasm[1].hash", 1.5, "a string or null", "a number with a fraction"),
    ("wasm[2].url", {}, "a string or null", "an object"),
    ("wasm[2].headers", [], "an object", "a list"),
    ("wasm[2].headers", "X-Key: k", "an object", "a string"),
    ("wasm[2].method", 0, "a string or null", "an integer"),
    ("memory", [], "an object", "a list"),
    ("memory", 16, "an object", "an integer"),
    ("memory.max_pages", "16", "an integer or null", "a string"),
    ("memory.max_pages", True, "an integer or null", "a boolean"),
    ("memory.max_pages", 1.0, "an integer or null", "a number with a fraction"),
    ("memory.max_http_response_bytes", "1k", "an integer or null", "a string"),
    ("memory.max_var_bytes", [], "an integer or null", "a list"),
    ("config", [], "an object", "a list"),
    ("config", "key=value", "an object", "a string"),
    ("allowed_hosts", "example.com", "a list or null", "a string"),
    ("allowed_hosts", {}, "a list or null", "an object"),
    ("allowed_hosts[1]", 7, "a string", "an integer"),
    ("allowed_paths", ["/srv"], "an object or null", "a list"),
    ("timeout_ms", "500", "an integer or null", "a string"),
    ("timeout_ms", 0.5, "an integer or null", "a number with a fraction"),
]
