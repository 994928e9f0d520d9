"""The engine of Python passes the tests of the language that MicroPython brings."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.script import micropython_suite as suite
from tests.support.scripts import need_engine

KNOWN = {
    "basics/builtin_compile": "`exec` of a code object in a function sees no locals",
    "basics/bytes_compare3": "warnings go to the log",
    "basics/exception_chain": "warnings go to the log",
    "basics/int_big_to_small": "locks the heap, and the output of the test is in it",
    "extmod/time_res": "`time.gmtime` takes whole seconds",
    "float/math_constants": "`exp(1.0)` of the C library is not `e` in the last digit",
    "stress/bytecode_limit": "code may be longer here",
    "stress/qstr_limit": "names may be longer here",
    "unicode/file1": "there are no files",
    "unicode/file2": "there are no files",
    "unicode/file_invalid": "there are no files",
}
LEAST = 650

pytestmark = [
    pytest.mark.slow,  # some hundred instances, and as many runs of CPython
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        sys.version_info[:2] != (3, 11), reason="what is right is what CPython 3.11 prints"
    ),
]


@pytest.fixture(scope="module")
def tests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MicroPython's tests."""
    need_engine("python")
    folder = tmp_path_factory.mktemp("micropython")
    suite.unpack(folder)
    return folder


def test_language_tests_pass(tests: Path) -> None:
    """All tests that can run pass, except for those whose reason is known."""
    found = suite.run(tests, suite.FOLDERS)
    failed = {name for name, result in found.items() if result.startswith("failed")}
    assert failed == set(KNOWN)
    assert sum(result == suite.PASSED for result in found.values()) >= LEAST


def test_collecting_at_each_allocation(tests: Path) -> None:
    """Nothing is freed that is still used, if the collector runs at each allocation."""
    found = suite.run(tests, ("unicode", "extmod"), collect=True)
    failed = {name for name, result in found.items() if result.startswith("failed")}
    known = {name for name in KNOWN if name.startswith(("unicode", "extmod"))}
    # It counts allocations until memory is short, which is another number then.
    assert failed - {"extmod/deflate_compress_memory_error"} == known
