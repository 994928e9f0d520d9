"""The C kit with a C library."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import plugwasm
from plugwasm._project.build import build_project, plan_build
from plugwasm._project.languages import LANGUAGES
from plugwasm._project.new import make_project
from plugwasm._project.project_file import read_project

from .packages import need

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.toolchain, pytest.mark.slow, pytest.mark.timeout(600)]

SOURCE = """
#include <stdlib.h>
#include <string.h>
#include "plugwasm.h"

PDK_FUNCTION(mixed) {
    pdk_reset();
    char *kept = malloc(1000);
    memset(kept, 'k', 1000);
    pdk_bytes input = pdk_input_all();
    char *more = pdk_take(100000), *tiny = pdk_take(1);
    if (!kept || !input.data || !more || !tiny) return pdk_fail("no memory");
    if ((uintptr_t)more % 16 || (uintptr_t)tiny % 16) return pdk_fail("not aligned");
    memset(more, 'm', 100000);
    *tiny = 't';
    for (int i = 0; i < 1000; i++)
        if (kept[i] != 'k') return pdk_fail("overlap");
    free(kept);
    return pdk_output(input.data, input.size);
}

PDK_FUNCTION(too_much) {
    pdk_reset();
    return pdk_take((size_t)-8) || pdk_take((size_t)-64) ? 0 : pdk_fail("no room");
}

PDK_FUNCTION(pages) {
    char text[20];
    return pdk_output(text, (size_t)(pdk_put_u64(text, __builtin_wasm_memory_size(0)) - text));
}
"""


def test_arena_beside_malloc(tmp_path: Path) -> None:
    """Memory of the arena and of malloc() do not overlap, and calls use it again."""
    need("zig")
    folder = tmp_path / "x"
    make_project(LANGUAGES["c"], "x", str(folder))
    (folder / "src" / "plugin.c").write_text(SOURCE)
    text = (folder / "plugin.toml").read_text()
    (folder / "plugin.toml").write_text(text.replace("[build]", "[build]\nwasi = true"))
    built = build_project(plan_build(read_project(folder)), quiet=True)
    with plugwasm.Plugin(built.path, wasi=True) as plugin:
        data = bytes(range(256)) * 500
        assert plugin.call("mixed", data) == data
        pages = plugin.call("pages")
        for _ in range(50):
            assert plugin.call("mixed", data) == data
        assert plugin.call("pages") == pages
        with pytest.raises(plugwasm.GuestError, match="no room"):
            plugin.call("too_much")
        assert plugin.call("mixed", b"") == b""
