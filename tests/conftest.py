"""Fixtures that all tests share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from weakref import WeakValueDictionary

import pytest
from hypothesis import HealthCheck, settings

from plugwasm._host.registry import registered
from plugwasm._runtime import code_cache, modules
from plugwasm._script.engine_store import engine_folder

# How long an example takes is a matter of how busy the machine is.
settings.register_profile("plugwasm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("plugwasm")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep compiled code in a directory of this test run instead of the user's, where only the
    engines of scripts are: building one takes a minute.
    """
    os.environ.setdefault("PLUGWASM_ENGINES", str(engine_folder()))
    os.environ["PLUGWASM_CACHE"] = str(tmp_path_factory.mktemp("cache", numbered=True) / "plugwasm")


@pytest.fixture(autouse=True)
def _cache_is_as_before() -> Iterator[None]:
    """Restore the cache's configuration after each test."""
    before = {
        name: value
        for name, value in vars(code_cache._Settings).items()
        if not name.startswith("__")
    }
    yield
    for name, value in before.items():
        setattr(code_cache._Settings, name, value)


@pytest.fixture
def own_registry() -> Iterator[None]:
    """Undo what the test registers when it ends."""
    before = list(registered)
    registered.clear()
    yield
    registered[:] = before


@pytest.fixture
def nothing_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start the test with an empty code cache."""
    monkeypatch.setenv("PLUGWASM_CACHE", "off")
    monkeypatch.setattr(modules, "_seen", WeakValueDictionary())
    monkeypatch.setattr(modules, "_kept", [])


@pytest.fixture
def compilers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[bytes]]]:
    """List the compiler processes that the test starts, and check that all have ended."""
    found: list[subprocess.Popen[bytes]] = []
    original = subprocess.Popen

    def start(*args: Any, **kwargs: Any) -> subprocess.Popen[bytes]:
        found.append(original(*args, **kwargs))
        return found[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    yield found
    assert all(process.returncode is not None for process in found)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object:
    """Run a test that is marked `own_process` in another pytest, and fail with its report."""
    if pyfuncitem.get_closest_marker("own_process") is None or OWN_PROCESS in os.environ:
        return None
    options = ["-q", "-p", "no:xdist", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, pyfuncitem.nodeid],
        cwd=pyfuncitem.config.rootpath,
        env=os.environ | {OWN_PROCESS: "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    return True


OWN_PROCESS = "PLUGWASM_TESTS_OWN_PROCESS"
