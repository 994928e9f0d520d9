"""The programs that kits are measured with: a folder of `sources/` for each kit."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from conformance.building import Build

SOURCES = Path(__file__).with_name("sources")
PROGRAMS = ("hello", "count_vowels", "echo")


@dataclass(frozen=True)
class Kit:
    """The fields are those of `programs.toml`. `kit` is "plugwasm" or "official"."""

    name: str
    language: str
    kit: str
    package: str
    build: Build
    wasi: bool


def find_kits() -> tuple[Kit, ...]:
    """Return the kits of all folders of `sources/`."""
    return tuple(_read(file) for file in sorted(SOURCES.glob("*/programs.toml")))


def _read(file: Path) -> Kit:
    fields = tomllib.loads(file.read_text())
    return Kit(
        name=file.parent.name,
        language=fields["language"],
        kit=fields["kit"],
        package=fields["package"],
        build=Build.of(file.parent, fields),
        wasi=fields.get("wasi", False),
    )
