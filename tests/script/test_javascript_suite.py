"""The engine of JavaScript passes the tests of the language: Test262, and those of QuickJS."""

from __future__ import annotations

import os

import pytest

from tests.script import javascript_suite as suite

QUICKJS_KNOWN = {
    "test_builtin/test_finalization_registry": "needs the module `os` of QuickJS",
    "test_builtin/test_json": "QuickJS-ng counts columns of JSON in another way",
    "test_builtin/test_line_column_numbers": "QuickJS-ng counts columns in another way",
    "test_builtin/test_weak_map": "needs the module `std` of QuickJS",
    "test_builtin/test_weak_map_cycles": "needs the module `std` of QuickJS",
    "test_builtin/test_weak_ref": "needs the module `std` of QuickJS",
    "test_language/test_unicode_ident": "expects a variable that its file does not have as a script",
    "test_loop/test_cyclic_labels": "QuickJS-ng does not compile labels that break themselves",
    "test_loop/test_for_in_proxy": "QuickJS-ng asks the proxy for other keys",
}
QUICKJS_TESTS = 76
EVERY = 50
"""Of Test262, one test of so many runs here: the whole takes some minutes."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.toolchain,  # once is enough: the engine is the same for all versions of Python
    pytest.mark.timeout(900),
]


@pytest.fixture(scope="module")
def test262() -> suite.Suite:
    """Test262, from the cache, or downloaded."""
    try:
        return suite.Suite()
    except OSError as error:
        if "CI" in os.environ:
            raise
        pytest.skip(f"Test262 cannot be downloaded: {error}")


def test_quickjs_tests_pass() -> None:
    """QuickJS's own tests pass, except for those whose reason is known."""
    try:
        found = suite.run_quickjs()
    except OSError as error:
        if "CI" in os.environ:
            raise
        pytest.skip(f"the tests of QuickJS cannot be downloaded: {error}")
    failed = {name for name, result in found.items() if result != suite.PASSED}
    assert failed == set(QUICKJS_KNOWN)
    assert len(found) == QUICKJS_TESTS


def test_test262_sample_passes(test262: suite.Suite) -> None:
    """Of every fiftieth test of Test262, those fail that are known to fail, and no others."""
    known = suite.known_failures()
    names = list(test262.names(suite.FOLDERS))[::EVERY]
    results = {name: test262.run(name) for name in names}
    failed = {name for name, result in results.items() if result.startswith(suite.FAILED)}
    assert failed == set(names) & set(known)
    assert sum(result == suite.PASSED for result in results.values()) > 750


def test_test262_known_failures_fail(test262: suite.Suite) -> None:
    """The list of known failures has no test that passes, of the first ten for each reason."""
    known = suite.known_failures()
    seen: dict[str, int] = {}
    for name, reason in known.items():
        seen[reason] = seen.get(reason, 0) + 1
        if seen[reason] > 10:
            continue
        assert test262.run(name).startswith(suite.FAILED), (name, reason)


def test_the_suite_notices_failures(test262: suite.Suite) -> None:
    """A test that fails, hangs, or does not fail as it should is a failure."""
    name = "built-ins/Array/length"
    assert test262.run(name) == suite.PASSED
    judged = {
        "assert.sameValue(1, 2);": "threw Test262Error",
        "null.x;": "threw TypeError",
        "(": "threw SyntaxError",
        "/*---\nnegative:\n  phase: parse\n  type: SyntaxError\n---*/ 1;": "expected SyntaxError, got ok",
        "/*---\nflags: [async]\n---*/ 1;": "a promise was returned that nothing will ever settle",
        "/*---\nflags: [async]\n---*/ $DONE(new TypeError('x'));": "threw TypeError: TypeError: x",
        "/*---\nincludes: [nothing.js]\n---*/ 1;": "there is no nothing.js",
    }
    for source, reason in judged.items():
        test = suite.read_test(source)
        assert reason in test262.run_test(test), source
    assert (
        test262.run_test(suite.read_test("/*---\nfeatures: [Temporal]\n---*/"))
        == "skipped: Temporal"
    )
