"""Fixtures that all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from plugwasm._runtime import code_cache

# How long an example takes is a matter of how busy the machine is.
settings.register_profile("plugwasm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("plugwasm")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Compiled code goes to a directory of this test run, not to the user's."""
    os.environ["PLUGWASM_CACHE"] = str(tmp_path_factory.mktemp("cache", numbered=True) / "plugwasm")


@pytest.fixture(autouse=True)
def _cache_is_as_before() -> Iterator[None]:
    """What a test configures of the cache holds for that test."""
    before = {
        name: value
        for name, value in vars(code_cache._Settings).items()
        if not name.startswith("__")
    }
    yield
    for name, value in before.items():
        setattr(code_cache._Settings, name, value)
