"""`make bench-scripts` compares ways to run a script; what is not installed has no column."""

import dataclasses

import pytest

from benchmarks.measure import Figure, Goal, WrongResultError
from benchmarks.sandboxes import ways
from benchmarks.sandboxes.measuring import Line
from tests.support.scripts import need_engine


@pytest.mark.parametrize("language", ways.LANGUAGES)
def test_own_scripts_are_right(language):
    """plugwasm comes first, and gives the outputs that every way is checked for."""
    need_engine(language)
    ours = ways.ways_of(language)[0]
    assert ours.title == "plugwasm"
    assert ours.can_run(language)


def test_wrong_outputs_are_refused():
    """A way whose functions give something else is not measured."""
    ours = ways.ways_of("python")[-1]
    wrong = dataclasses.replace(ours, load=lambda source: source.replace("1.2", "1.3"))
    with pytest.raises(WrongResultError):
        wrong.can_run("python")


def test_missing_package_has_no_column(capsys):
    """It is left out, with a line that says how to get it."""

    def load(source):
        raise ImportError

    way = dataclasses.replace(ways.ways_of("javascript")[-1], load=load)
    assert not way.can_run("javascript")
    told = capsys.readouterr().err
    assert "`mini-racer` is not installed: pip install -e '.[bench-scripts]'" in told


@pytest.mark.parametrize(("seconds", "met"), [(9e-5, True), (2e-4, False)])
def test_goals_are_for_own_figures(seconds, met):
    """Whatever the others take."""
    figures = {"plugwasm": Figure((seconds,)), "other": Figure((1e-5,))}
    assert Line("a call", "s", figures, Goal(1e-4, at_most=True)).is_met is met
