"""Files of a directory that are plugins: modules and scripts.

Decisions: docs/decisions.md, 60.
"""

from __future__ import annotations

import os
import re
from typing import Final

from .._manifest.files import format_path
from .._manifest.resolve import PluginSpec, resolve_module
from .._script.names import SUFFIXES, language_of

SCRIPT_FILES: Final = tuple(f"plugin{suffix}" for suffix in SUFFIXES)
"""Scripts that may stand in the place of the module of a folder."""
NO_PLUGIN: Final = re.compile(
    r"_.*|conftest\.py|test_.*\.py|.*_test\.py|.*\.(?:test|spec|config)\.[cm]?[jt]s", re.S | re.I
)
"""Scripts in a directory that are no plugins: private ones, tests of plugins, and settings of
tools.
"""


def is_module(file: str, is_directory: bool) -> bool:
    """Return whether a file is a module."""
    return file.lower().endswith(".wasm") and not is_directory


def is_script_file(file: str, is_directory: bool) -> bool:
    """Return whether a file is a script, and neither private nor a test of one."""
    return language_of(file) is not None and not is_directory and NO_PLUGIN.fullmatch(file) is None


def place_in_order(entry: tuple[str, bool, bool]) -> tuple[str, str]:
    """Return a key that sorts entries of a directory by name, and scripts after modules."""
    file, _, is_directory = entry
    if is_script_file(file, is_directory):
        return f"{os.path.splitext(file)[0]}.wasm", file
    return file, ""


def read_module(content: bytes, file: str, location: str) -> PluginSpec:
    """Return the spec of a module or a script without a manifest."""
    language = language_of(file)
    if language is None:
        return resolve_module(content, format_path(location))
    from .._script.spec import ScriptSpec

    spec = ScriptSpec(language, content, file, location)
    spec.on_path = False  # it may be a stranger's
    return spec
