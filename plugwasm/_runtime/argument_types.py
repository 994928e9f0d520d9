"""Types of arguments that several public functions take.

Type checkers import this module, and applications that name one of the types.
"""

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
"""The observers of a plugin: observers, True for statistics only, or nothing."""
