"""The implementations of the test plugin: one folder of `plugins/` each."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from .building import Build
from .table import FEATURES

PLUGINS = Path(__file__).with_name("plugins")


@dataclass(frozen=True)
class Implementation:
    """The fields are those of `conformance.toml`.

    Attributes:
        package: Where the kit comes from, with its version.
        wasi: Whether the plugin is granted WASI.
        supports: Features that it has.
        unsupported: All other features, and why it does not have them.
    """

    name: str
    language: str
    kit: str
    package: str
    build: Build
    wasi: bool
    supports: frozenset[str]
    unsupported: dict[str, str]


def find_implementations() -> tuple[Implementation, ...]:
    """Return the implementations of all folders of `plugins/`."""
    return tuple(_read(file) for file in sorted(PLUGINS.glob("*/conformance.toml")))


def _read(file: Path) -> Implementation:
    fields = tomllib.loads(file.read_text())
    supports, unsupported = frozenset(fields["supports"]), fields.get("unsupported", {})
    if supports | unsupported.keys() != FEATURES or supports & unsupported.keys():
        raise ValueError(
            f"{file}: each of {', '.join(sorted(FEATURES))} must be in `supports`, or in "
            f"`[unsupported]` with a reason"
        )
    return Implementation(
        name=file.parent.name,
        language=fields["language"],
        kit=fields["kit"],
        package=fields["package"],
        build=Build.of(file.parent, fields),
        wasi=fields.get("wasi", False),
        supports=supports,
        unsupported=unsupported,
    )
