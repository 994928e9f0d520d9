"""A reference to a plugin that adds columns to batches."""

from __future__ import annotations

import pytest

import plugwasm
from plugwasm import PluginRef
from tests.support.batches import ROWS


@pytest.fixture(scope="module")
def ref() -> PluginRef:
    return PluginRef(ROWS, name="rows", limits=plugwasm.Limits(timeout=0.3))
