"""Print the figures of the package's layout: rooms, floors, arrows, circles.

Exits with 1 on a circle.

`make layout` runs it. A room is a module or package at the top of the package. An arrow goes from a
room to one that it imports from, in functions and for types too. A room's floor is one above the
highest that it imports from. A circle consists of modules that import each other at run time, in
functions too; imports for types alone may go both ways within a room.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from typing import TYPE_CHECKING

import grimp

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = "plugwasm"


def room(module: str) -> str:
    return module.split(".")[1]


def arrows(graph: grimp.ImportGraph) -> dict[str, set[str]]:
    """Return the rooms that each room imports from."""
    found: dict[str, set[str]] = {room(module): set() for module in graph.modules if module != ROOT}
    for module in graph.modules - {ROOT}:
        for other in graph.find_modules_directly_imported_by(module) - {ROOT}:
            if room(module) != room(other):
                found[room(module)].add(room(other))
    return found


def circles(imports: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the strongly connected components with more than one member (Tarjan's algorithm)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    path: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        path.append(node)
        for other in sorted(imports[node]):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in path:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            part = path[path.index(node) :]
            del path[path.index(node) :]
            if len(part) > 1:
                found.append(sorted(part))

    for node in sorted(imports):
        if node not in index:
            visit(node)
    return found


def floors(imports: Mapping[str, set[str]]) -> dict[int, list[str]]:
    """Return the rooms by floor. There must be no circle."""
    known: dict[str, int] = {}

    def floor(name: str) -> int:
        if name not in known:
            known[name] = max((floor(other) + 1 for other in imports[name]), default=0)
        return known[name]

    found = defaultdict(list)
    for name in sorted(imports):
        found[floor(name)].append(name)
    return dict(found)


def main() -> int:
    whole = grimp.build_graph(ROOT, cache_dir=None)
    at_run_time = grimp.build_graph(ROOT, exclude_type_checking_imports=True, cache_dir=None)
    imports = arrows(whole)
    between_rooms = circles(imports)
    between_modules = circles(
        {
            module: at_run_time.find_modules_directly_imported_by(module)
            for module in at_run_time.modules
        }
    )
    by_floor = {} if between_rooms else floors(imports)
    for number in sorted(by_floor, reverse=True):
        print(f"{number:3}  {'  '.join(by_floor[number])}")
    print(
        f"{len(whole.modules)} modules, {len(imports)} rooms on {len(by_floor)} floors, "
        f"{sum(map(len, imports.values()))} arrows"
    )
    for title, found in (("rooms", between_rooms), ("modules", between_modules)):
        print(f"{len(found)} circles of {title}")
        for circle in found:
            print("    " + " ".join(circle))
    return 1 if between_rooms or between_modules else 0


if __name__ == "__main__":
    sys.setrecursionlimit(10_000)
    sys.exit(main())
