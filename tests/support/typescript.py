"""A stand-in for esbuild, for tests that need no more of TypeScript than that something removes
types.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from plugwasm._script import bundling

from .toolchains import fake_program

REMOVE_TYPES = """\
cat > "$0.in"
if grep -q broken "$0.in"; then
  printf '✘ [ERROR] Unexpected "broken"\\n\\n    rules.ts:2:3:\\n' >&2
  exit 1
fi
exec sed -E 's/: (string|number)//g' "$0.in"
"""


def stand_in_for_esbuild(
    folder: Path, monkeypatch: pytest.MonkeyPatch, lines: str = REMOVE_TYPES
) -> Path:
    """Let a program of shell stand in for esbuild: one that removes `: string` and `: number`."""
    program = fake_program(folder, "esbuild", lines)
    monkeypatch.setenv(bundling.VARIABLE, str(program))
    return program
