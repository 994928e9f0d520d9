"""Fixtures of the tests of the cache of compiled code."""

from __future__ import annotations

from pathlib import Path

import pytest

from plugwasm._runtime import code_cache


@pytest.fixture
def fresh_cache_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the settings of the cache be as in a new process."""
    for name, value in (
        ("directory", None),
        ("enabled", None),
        ("max_bytes", code_cache.DEFAULT_MAX_BYTES),
        ("warned", False),
    ):
        monkeypatch.setattr(code_cache._Settings, name, value)
    monkeypatch.delenv("PLUGWASM_CACHE")


@pytest.fixture
def folder(fresh_cache_settings: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of an empty cache, which is not there yet."""
    path = tmp_path / "deep" / "kept"
    monkeypatch.setenv("PLUGWASM_CACHE", str(path))
    return path
