"""Recordings are made without functions that other tests registered."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _own_registry(own_registry: None) -> None:
    pass
