"""The manifest: what to run and what it may do, as typed objects.

`parse` takes a mapping, JSON or TOML; `load` takes a file of either. Both return a `Manifest`, or
raise a `ManifestError` that names the field and its position, what was expected, and what was
found. `json_schema` describes manifests for editors.
"""

from ._manifest.json_schema import json_schema
from ._manifest.model import Manifest, MemoryOptions, WasmSource, load, parse

__all__ = ["Manifest", "MemoryOptions", "WasmSource", "json_schema", "load", "parse"]
