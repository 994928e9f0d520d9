"""The plugins of docs/bindings.md are built and called."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import plugwasm
from tests.bindings.builds import BUILDS, LANGUAGES, build
from tests.support.paths import ROOT

pytestmark = [
    pytest.mark.slow,  # compiles plugins
    pytest.mark.toolchain,
    pytest.mark.timeout(600),
]
PAGE = (ROOT / "docs" / "bindings.md").read_text()
FENCES = {"assemblyscript": "ts"}


def block(fence: str) -> str:
    """Return the first block of a language."""
    found = re.search(rf"^```{fence}\n(.*?)^```", PAGE, re.S | re.M)
    assert found is not None, fence
    return found[1]


@pytest.mark.parametrize("language", LANGUAGES)
def test_plugin_of_the_page(language: str, tmp_path: Path) -> None:
    """The page's implementation of its schema builds, counts vowels, and fails as it says."""
    schema = tmp_path / "vowels.yaml"
    schema.write_text(block("yaml"))
    path = build(
        language,
        tmp_path / "project",
        schema,
        implementation=block(FENCES.get(language, language)),
    )
    with plugwasm.Plugin(path, wasi=BUILDS[language].wasi) as plugin:
        report = plugin.call("count_vowels", "Hello, World!", returns=dict)
        assert report == {"count": 3, "vowels": "aeiou"}
        with pytest.raises(plugwasm.GuestError, match="nothing to count") as caught:
            plugin.call("count_vowels", "")
        assert caught.value.code == 2
