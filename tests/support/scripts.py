"""Scripts of tests."""

from __future__ import annotations

import os

import pytest

from plugwasm import Plugin, SourceError, script
from plugwasm._script.engine import Engine, get_engine


def need_engine(language: str = "javascript") -> Engine:
    """Return the engine of a language, built if need be, or skip the test."""
    try:
        return get_engine(language)
    except SourceError as error:
        if "CI" in os.environ:
            raise
        pytest.skip(f"needs the engine of {language}: {error}")


def make_plugin(source: str, **options: object) -> Plugin:
    """Return a plugin of a script; the options are those of `script`."""
    return Plugin(script("javascript", source, **options))  # type: ignore[arg-type]


def make_python(source: str, **options: object) -> Plugin:
    """Return a plugin of a script in Python; the options are those of `script`."""
    need_engine("python")
    return Plugin(script("python", source, **options))  # type: ignore[arg-type]
