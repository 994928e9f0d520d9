"""Recordings are made without what other tests have registered."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _own_registry(own_registry: None) -> None:
    pass
