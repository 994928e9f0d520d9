"""The behaviour of the AssemblyScript plugin as data: the same tables as in
``examples/cases.py``, whose folder must be importable."""

from __future__ import annotations

from cases import EVERY_BYTE, LOOPBACK, Call, Case, vowels

PLUGIN = "as"


def case(
    title: str,
    calls: tuple[Call, ...],
    config: dict[str, str] | None = None,
    allowed_hosts: tuple[str, ...] = (),
) -> Case:
    """Return a case with the host functions, without which the plugin does not load."""
    return Case(
        title, PLUGIN, calls, config=config or {}, allowed_hosts=allowed_hosts, host_functions=True
    )


CASES: tuple[Case, ...] = (
    case(
        "counts, adds up in a var, and forgets",
        (
            Call("count_vowels", b"Hello, World!", vowels(3, 3)),
            Call("count_vowels", b"", vowels(0, 3)),
            Call("count_vowels", b"xae" * 1001, vowels(2002, 2005)),
            Call("forget", b"", b""),
            Call("count_vowels", b"aei", vowels(3, 3)),
        ),
    ),
    case(
        "config",
        (Call("count_vowels", "xä".encode(), vowels(1, 1, "äö")),),
        config={"vowels": "äö"},
    ),
    case(
        "copies",
        tuple(Call("echo", EVERY_BYTE[:n], EVERY_BYTE[:n]) for n in (0, 1, 7, 8, 9, 4097, 100_003)),
    ),
    case(
        "a host function",
        (
            Call("greet", b"World", b"Hello, World!"),
            Call("greet", "äöü".encode(), "Hello, äöü!".encode()),
        ),
    ),
    case(
        "HTTP",
        (
            Call("http_get", b"http://{server}/hello", b"hello"),
            Call("http_get", b"http://{server}/empty", b""),
            Call("http_get", b"http://{server}/broken", error="expected status 200, got 500"),
        ),
        allowed_hosts=LOOPBACK,
    ),
    case("HTTP without a grant", (Call("http_get", b"http://{server}/hello", error=""),)),
    case(
        "errors, and life after them",
        (
            Call("error", "this went wrong: äöü".encode(), error="this went wrong: äöü"),
            Call("throws", b"an exception", error=""),
            Call("log", b"a line", b""),
            Call("echo", b"still here", b"still here"),
        ),
    ),
)
