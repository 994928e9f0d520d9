"""Doors, at which host functions wait until a test opens them."""

from __future__ import annotations

import pytest

from tests.support.plugin_sets import Doors


@pytest.fixture
def doors() -> Doors:
    return Doors()
