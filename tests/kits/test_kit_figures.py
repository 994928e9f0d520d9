"""The page of sizes and speeds is about the kits that there are, and meets its goals."""

from __future__ import annotations

from benchmarks.kits import page
from benchmarks.kits.programs import PROGRAMS, find_kits

KITS = {(kit.language, kit.kit): kit for kit in page.read_figures().kits}


def test_figures_are_of_all_kits() -> None:
    """Each folder of programs has its row, with the package that it is built with now."""
    found = {(kit.language, kit.kit): kit.package for kit in find_kits()}
    assert {key: kit.package for key, kit in KITS.items()} == found
    assert all(kit.bytes.keys() == set(PROGRAMS) for kit in KITS.values())


def test_size_goals_are_met() -> None:
    """Small programs are as small as the kits promise."""
    assert KITS["Rust", "plugwasm"].bytes["count_vowels"] < 30_000
    assert KITS["C", "plugwasm"].bytes["count_vowels"] < 2048
    assert KITS["Zig", "plugwasm"].bytes["hello"] < 2048
    assert KITS["Zig", "plugwasm"].bytes["count_vowels"] < 2560


def test_kits_are_no_larger() -> None:
    """No program is larger than with the official kit of its language."""
    for (language, kit), official in KITS.items():
        if kit != "official":
            continue
        ours = KITS[language, "plugwasm"]
        for program in PROGRAMS:
            assert ours.bytes[program] <= official.bytes[program], f"{program} in {language}"


def test_page_shows_every_row() -> None:
    """Sizes and speeds have a row for each kit."""
    text = page.PAGE.read_text("utf-8")
    for language, kit in KITS:
        name = "plugwasm" if kit == "plugwasm" else "official: "
        assert text.count(f"| {language} | {name}") == 2
