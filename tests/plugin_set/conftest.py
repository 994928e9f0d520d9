"""A host function whose calls wait until the test releases them."""

from __future__ import annotations

import pytest

from tests.support.plugin_sets import HeldCalls


@pytest.fixture
def doors() -> HeldCalls:
    return HeldCalls()
