"""Types of arguments that several public functions take. Imported by type checkers, and at run time when an application names them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from .._manifest.model import Manifest
from .._manifest.resolve import Admitted
from .observers import Observer

PluginInput: TypeAlias = (
    str
    | bytes
    | bytearray
    | memoryview
    | os.PathLike[str]
    | Mapping[str, Any]
    | Manifest
    | Admitted
)
"""A plugin: a path, a URL, the bytes or the text of a module, or a manifest in any form."""

Observe: TypeAlias = bool | Observer | Sequence[Observer] | None
"""What observes a plugin: observers, True for statistics only, or nothing."""
