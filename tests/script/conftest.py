"""All tests of scripts need the engine."""

from __future__ import annotations

import pytest

from tests.support.scripts import need_engine


@pytest.fixture(scope="session", autouse=True)
def _engine() -> None:
    need_engine()
