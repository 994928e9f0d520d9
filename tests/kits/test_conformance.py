"""The conformance table, its implementations and the page of results belong together."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from conformance import page
from conformance.hosts import Extism
from conformance.implementations import find_implementations
from conformance.kept import NotBuiltError
from conformance.results import Outcome, left_out, run_all
from conformance.server import serve
from conformance.table import FEATURES, read_cases, to_bytes

NAMES = [case.name for case in read_cases()]


def test_case_names_are_unique() -> None:
    """Each case has a name of its own, so that results can be told apart."""
    assert len(NAMES) == len(set(NAMES))


def test_page_has_every_case() -> None:
    """The committed figures are about the cases of cases.json, for every plugin and host."""
    for plugin in page.read_figures().plugins:
        for host, outcome in plugin.hosts.items():
            run = [*outcome.passed, *outcome.failed, *outcome.left_out]
            assert sorted(run) == sorted(NAMES), (
                f"{plugin.name} on {host}: `make conformance-page` runs the new table"
            )


def test_page_lists_every_case() -> None:
    """A reader of the page finds the name of each case."""
    listed = re.findall(
        r"^- (.+)$", page.PAGE.read_text("utf-8").partition("## The cases")[2], re.M
    )
    assert sorted(listed) == sorted(NAMES)


def test_page_has_every_implementation() -> None:
    """The committed figures are about all folders, with the reasons that these state now."""
    committed = {plugin.name: plugin for plugin in page.read_figures().plugins}
    found = {implementation.name: implementation for implementation in find_implementations()}
    assert committed.keys() == found.keys()
    for name, plugin in committed.items():
        assert plugin.unsupported == found[name].unsupported
        assert plugin.package == found[name].package


def test_committed_results_have_no_failures() -> None:
    """The page was made from a run in which all cases passed that were run."""
    for plugin in page.read_figures().plugins:
        for host, outcome in plugin.hosts.items():
            assert not outcome.failed, f"{plugin.name} on {host}"
            assert len(outcome.passed) > 70


def test_features_are_used() -> None:
    """A feature that can be left out is one that some case needs."""
    assert frozenset().union(*(case.needs for case in read_cases())) == FEATURES


def test_feature_in_neither_list_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A conformance.toml that forgets a feature is refused, and named."""
    folder = tmp_path / "broken"
    folder.mkdir()
    text = (Path(page.__file__).parent / "plugins" / "c" / "conformance.toml").read_text()
    (folder / "conformance.toml").write_text(text.replace('"floats", ', ""))
    monkeypatch.setattr("conformance.implementations.PLUGINS", tmp_path)
    with pytest.raises(ValueError, match=r"broken.*floats.*must be in `supports`"):
        find_implementations()


def test_left_out_names_the_reason() -> None:
    """What a plugin or a host lacks is left out with the reason that it states."""
    (c,) = (found for found in find_implementations() if found.name == "c")
    json = next(case for case in read_cases() if "json" in case.needs)
    floats = next(case for case in read_cases() if "floats" in case.needs)
    assert left_out(json, c, Extism()) == c.unsupported["json"]
    assert left_out(floats, c, Extism()) == Extism.lacks["floats"]
    assert left_out(read_cases()[0], c, Extism()) is None


def test_wrong_plugin_fails_in_the_table() -> None:
    """A plugin without the functions fails all cases that are run, and none is counted as passed."""
    (c,) = (found for found in find_implementations() if found.name == "c")

    class Host(Extism):
        def run(self, wasm: bytes, wasi: bool, case: object, server: str) -> None:
            raise KeyError("no such function")

    outcome = run_all(b"", c, Host(), "")
    assert outcome.passed == []
    assert outcome.failed.keys() | outcome.left_out.keys() == set(NAMES)
    assert set(outcome.failed.values()) == {"KeyError: 'no such function'"}


def test_failures_show_in_a_cell() -> None:
    """A row with a failure says so, and is not marked as passed."""
    cases = list(read_cases()[:2])
    first, second = cases[0].name, cases[1].name
    assert page.cell(cases, Outcome([first], {second: "wrong"}, {})) == "1 failed"
    assert page.cell(cases, Outcome([first], {}, {second: "no"})) == "1 of 2"
    assert page.cell(cases, Outcome([], {}, {first: "no", second: "no"})) == "–"
    assert page.cell(cases, Outcome([first, second], {}, {})) == "✓"


def test_missing_tool_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a toolchain is missing, the error names it and how to get it."""
    monkeypatch.setenv("PATH", "/nonexistent")
    (go,) = (found for found in find_implementations() if found.name == "go")
    with pytest.raises(NotBuiltError, match=r"^Go 1\.24 or later is needed, .*\nInstall"):
        go.build.path()


def test_server_answers_as_the_table_says() -> None:
    """The server of the HTTP cases gives what README.md says."""
    from urllib.request import Request, urlopen

    with serve() as server:
        request = Request(f"{server}/mirror", b"body", {"x-question": "why"}, method="PUT")
        with urlopen(request) as answer:
            assert answer.read() == b"PUT body"
            assert answer.headers["x-answer"] == "why"


def test_data_of_the_table() -> None:
    """The kinds of data stand for the bytes that README.md says."""
    assert to_bytes({"pattern": 300}, "")[256:258] == bytes([1, 32])
    assert to_bytes([{"text": "{server}/"}, {"hex": "00ff"}], "http://h") == b"http://h/\x00\xff"
    assert to_bytes({"repeat": "ab", "times": 3}, "") == b"ababab"
