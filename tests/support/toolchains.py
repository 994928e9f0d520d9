"""Toolchains of other languages, for tests that build projects."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from plugwasm._project.languages import LANGUAGES
from plugwasm._project.problems import ProjectError


def require_language(name: str) -> None:
    """Skip the test where the tools of a language are missing; fail in CI."""
    try:
        LANGUAGES[name].find_tools()
    except ProjectError as error:
        if os.environ.get("CI"):
            pytest.fail(error.message)
        pytest.skip(error.message)


def fake_program(folder: Path, name: str, script: str) -> Path:
    """Write a program that a test puts on the PATH."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path
