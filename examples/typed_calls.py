"""Typed calls and interfaces, with the plugins in this directory: `python
examples/typed_calls.py`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Protocol

import plugwasm
from plugwasm import codecs

HERE = Path(__file__).resolve().parent


@dataclass
class Count:
    count: int
    total: int
    vowels: str


@dataclass
class Reader:
    name: str
    since: date


class Vowels(Protocol):
    """The exports of the plugin count_vowels."""

    def count_vowels(self, text: str) -> Count: ...


class Echo(Protocol):
    """The export of the plugin echo for one type, under another name."""

    @plugwasm.export("echo", codec=codecs.MSGPACK)
    def copy(self, readers: list[Reader]) -> list[Reader]: ...


class Greetings(Protocol):
    def greet(self, who: str) -> str: ...
    def sum(self, numbers: str) -> int: ...


class Desk:
    """What this application offers to plugins: its public methods are their host functions."""

    def __init__(self, greeting: str) -> None:
        self.greeting = greeting

    def greet(self, who: str) -> str:
        return f"{self.greeting}, {who}!"

    def add(self, a: int, b: int) -> int:
        return a + b

    def scale(self, x: float) -> float:
        return x * 2.5


def main() -> None:
    print("The output becomes the type that is asked for.")
    with plugwasm.Plugin(HERE / "count_vowels.wasm") as plugin:
        result = plugin.call("count_vowels", "Hello, World!", returns=Count)
        print(f"  {result}")

        print("\nAn interface: its methods call the exports.")
        vowels = plugin.bind(Vowels)
        print(f"  {vowels.count_vowels('Yes, why not?').total} vowels so far")

        print("\nOutput that is wrong is an error that says where.")
        try:
            plugin.call("count_vowels", "Hello", returns=dict[str, int])
        except plugwasm.OutputError as error:
            print(f"  {error.message}")

    with plugwasm.Plugin(HERE / "echo.wasm") as plugin:
        print("\nOther types travel as JSON, or by the codec that is given.")
        reader = Reader("Ada", date(1843, 9, 1))
        print(f"  {plugin.call('echo', reader).decode()}")
        print(f"  {plugin.bind(Echo).copy([reader])}")

        print("\nAn interface that the plugin does not have is refused at once.")
        try:
            plugin.bind(Vowels)
        except plugwasm.InterfaceError as error:
            print(f"  {error.message}")

    print("\nThe methods of an object are host functions.")
    with plugwasm.Plugin(
        HERE / "host_functions.wasm", functions=plugwasm.host_namespace(Desk("Good morning"))
    ) as plugin:
        greetings = plugin.bind(Greetings)
        print(f"  {greetings.greet('plugin')}")
        print(f"  19 + 23 = {greetings.sum('19 23')}")


if __name__ == "__main__":
    main()
