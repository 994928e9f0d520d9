"""docs/performance.md and its plots show the figures of the last measurement, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks.growth import numbers, page, scripts_page, svg
from tests.support.paths import ROOT

DOCS = ROOT / "docs"
FIGURES: dict[str, Any] = json.loads((DOCS / page.FIGURES).read_text("utf-8"))
PLOTS = {name: text for name, text in page.pages(FIGURES).items() if name.endswith(".svg")}
SVG = "{http://www.w3.org/2000/svg}"


def test_the_text_has_no_figures() -> None:
    """The text of the page has no times or ratios of its own: they would get out of date."""
    text = page.TEMPLATE.read_text("utf-8")
    assert not re.findall(r"\d\s*(?:ns|µs|ms|s|×|%)(?!\w)|\d times|\d\s*MB", text)


def test_all_places_are_filled() -> None:
    """Each name of the text is filled in once, and nothing is left over."""
    text = page.TEMPLATE.read_text("utf-8")
    names = re.findall(r"\{\{(\w+)\}\}", text)
    assert len(names) == len(set(names)) > 10
    assert "{{" not in page.pages(FIGURES)[page.PAGE]


def test_each_plot_is_shown_and_kept() -> None:
    """The page shows each plot, and docs has no plot that it does not show."""
    text = page.pages(FIGURES)[page.PAGE]
    shown = set(re.findall(r"!\[[^\]]+\]\((performance/\w+\.svg)\)", text))
    assert shown == set(PLOTS)
    assert shown == {f"performance/{path.name}" for path in (DOCS / "performance").glob("*.svg")}


def test_figures_name_machine_and_versions() -> None:
    """The figures are kept with the processor, the system, Python, the versions and the day."""
    about = FIGURES["about"]
    assert {"processor", "processors", "system", "python", "day", "versions"} <= set(about)
    assert {"plugwasm", "wasmtime", "extism", "extism-sys"} == set(about["versions"])
    line = next(
        line for line in page.pages(FIGURES)[page.PAGE].splitlines() if line.startswith("> ")
    )
    assert about["processor"] in line
    assert about["versions"]["wasmtime"] in line


def test_another_figure_changes_the_page() -> None:
    """A figure that is different in the file is different in the page and in its plot."""
    other = json.loads(json.dumps(FIGURES))
    other["sizes"]["echo"]["plugwasm"][3] = 12.34
    assert "| 12.3 s |" not in page.pages(FIGURES)[page.PAGE]
    assert "| 12.3 s |" in page.pages(other)[page.PAGE]
    assert page.pages(other)["performance/sizes.svg"] != PLOTS["performance/sizes.svg"]


def test_cells_that_were_not_reached() -> None:
    """If the system refuses the last instances, their cells are empty, and a note says why."""
    other = json.loads(json.dumps(FIGURES))
    for field in ("start", "call", "bytes"):
        other["instances"]["extism"][field][-1] = None
    made = page.pages(other)
    assert "An empty cell: the system had no memory" in made[page.PAGE]
    points = [
        len(line.get("points", "").split())
        for line in ElementTree.fromstring(made["performance/instances.svg"]).iter(f"{SVG}polyline")
    ]
    marks = len(FIGURES["instances"]["marks"])
    assert sorted(set(points)) == [marks - 1, marks]


def test_without_a_free_threaded_build() -> None:
    """Without a build, a sentence says so; with one, its figures have a column."""
    other = json.loads(json.dumps(FIGURES))
    other["threads"]["free-threaded"] = None
    for work in page.WORK:
        other["threads"][work].pop("free-threaded", None)
    assert "Free-threaded Python was not measured" in page.pages(other)[page.PAGE]
    other["threads"]["free-threaded"] = "3.14.2"
    for work in page.WORK:
        other["threads"][work]["free-threaded"] = other["threads"][work]["plugwasm"]
    text = page.pages(other)[page.PAGE]
    assert "Python 3.14.2 without a GIL" in text
    assert "short, free-threaded" in text


@pytest.mark.parametrize("name", sorted(PLOTS))
def test_plots_are_drawings_of_their_size(name: str) -> None:
    """Each plot is XML with colours for both modes and a title, and stays within its size."""
    root = ElementTree.fromstring(PLOTS[name])
    assert root.get("role") == "img"
    assert root.get("aria-label") == root.findtext(f"{SVG}title")
    assert "@media (prefers-color-scheme:dark)" in (root.findtext(f"{SVG}style") or "")
    width, height = (float(root.get(side, "nan")) for side in ("width", "height"))
    for element in root.iter():
        for key in ("x", "x1", "x2", "cx"):
            assert 0 <= float(element.get(key, "0")) <= width
        for key in ("y", "y1", "y2", "cy"):
            assert 0 <= float(element.get(key, "0")) <= height
        right = float(element.get("x", "0")) + float(element.get("width", "0"))
        assert right <= width + 1
        for point in element.get("points", "").split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= width
            assert 0 <= y <= height


def _contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        ]
        return sum(
            weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True)
        )

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colours", [svg._LIGHT, svg._DARK], ids=["light", "dark"])
def test_plots_are_readable_in_both_modes(colours: dict[str, str]) -> None:
    """Text has a contrast of 4.5 with the ground, as WCAG asks, and lines and bars one of 3."""
    assert set(svg._LIGHT) == set(svg._DARK)
    for name in ("text", "soft"):
        assert _contrast(colours[name], colours["ground"]) >= 4.5, name
    for number in range(svg.COLOURS):
        assert _contrast(colours[f"c{number}"], colours["ground"]) >= 3, number


def test_names_in_plots_are_escaped() -> None:
    """Text with the characters of XML is text."""
    drawn = svg.bars('a < b & "c"', ["<part>"], [svg.Bar("<row> & more", [1.0])], str)
    root = ElementTree.fromstring(drawn)
    assert root.get("aria-label") == 'a < b & "c"'
    assert "<row> & more" in [text.text for text in root.iter(f"{SVG}text")]


def test_figures_without_scripts_have_a_page() -> None:
    """Those of a run before scripts were measured, or on a machine that cannot build an engine."""
    for none in (None, {}):
        found = set(scripts_page.tables(none).values())
        assert found == {"(Not measured in this run.)"}


def test_tables_of_scripts() -> None:
    """Stages come with their sum; each language has its figures, and tenants theirs and all."""
    stages = {language: [0.001, 0.002, 0.003, 0.004] for language in ("javascript", "python")}
    calls = dict.fromkeys(("nothing", "total", "count", "upper"), 2e-6)
    filled = scripts_page.tables(
        {
            "load": stages,
            "fresh": {language: [1e-4, 2e-4, 3e-4] for language in stages},
            "start": stages,
            "calls": dict.fromkeys(stages, calls),
            "tenants": {"marks": [10], **{one: [[3e5, 2e8]] for one in stages}},
        }
    )
    assert filled["script_load"].endswith("| Python | 1 ms | 2 ms | 3 ms | 6 ms | 4 ms |")
    assert filled["script_fresh"].endswith("| Python | 100 µs | 200 µs | 300 µs | 600 µs |")
    assert filled["script_start"].endswith("| Python | 1 ms | 2 ms | 3 ms | 4 ms | 10 ms |")
    assert filled["script_tenants"].endswith("| 10 | 300 KB | 200 MB | 300 KB | 200 MB |")
    assert filled["script_calls"].count("2 µs") == 8


def test_times_and_sizes_as_text() -> None:
    """Figures have three digits and the unit that fits."""
    assert [numbers.show_time(value) for value in (0, 4.21e-10, 1.5e-8, 2.5e-6, 0.99996e-3, 0.0123, 12.0)] == [
        "0", "0.42 ns", "15 ns", "2.5 µs", "1 ms", "12.3 ms", "12 s",
    ]  # fmt: skip
    assert [numbers.show_rate(value) for value in (94.2, 4720.0, 76_500.0, 1_230_000.0)] == [
        "94", "4,720", "76.5 k", "1.23 M",
    ]  # fmt: skip
    assert [numbers.show_bytes(value) for value in (10, 1000, 262_144, 10**7)] == [
        "10 B", "1 KB", "262 KB", "10 MB",
    ]  # fmt: skip


def test_quick_figures_are_not_for_docs(tmp_path: Path) -> None:
    """Figures of a quick run cannot be written to docs by mistake."""
    import subprocess
    import sys

    command = [sys.executable, "-m", "benchmarks.growth", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "too short for the page in docs" in done.stderr
