"""The behaviour of the example plugins as data: the answer of each to each call.

`verify.py` and the tests run this table; it does not depend on a host. `{server}` in an input,
output or error stands for the address (`host:port`) of an HTTP server that answers ROUTES.
"""

from __future__ import annotations

from dataclasses import dataclass, field

DATA = "/data"  # where the guest finds the files of a case

# path: (status, body)
ROUTES: dict[str, tuple[int, bytes]] = {
    "/hello": (200, b"hello"),
    "/empty": (200, b""),
    "/quoted": (200, 'a "quoted"\\ line\nand äöü 😀\x01'.encode()),
    "/bytes": (200, bytes(range(256)) * 300),
    "/broken": (500, b"went wrong"),
}


def greet(name: str) -> str:
    return f"Hello, {name}!"


def add(a: int, b: int) -> int:
    return a + b


def scale(x: float) -> float:
    return x * 2.5


@dataclass(frozen=True)
class Call:
    """One call and its expected result: bytes, or an error whose text contains `error` (`""`: any
    error)."""

    function: str
    input: bytes = b""
    output: bytes = b""
    error: str | None = None


@dataclass(frozen=True)
class Case:
    """Calls of one instance, in this order, and what the application grants to it.

    `host_functions`: greet, add and scale of this module. `files`: the content of a directory that
    the guest sees as DATA; None is no directory. `loads`: False if the plugin must be refused, at
    the latest by its first call.
    """

    title: str
    plugin: str
    calls: tuple[Call, ...]
    wasi: bool = False
    config: dict[str, str] = field(default_factory=dict)
    host_functions: bool = False
    allowed_hosts: tuple[str, ...] = ()
    files: dict[str, bytes] | None = None
    read_only: bool = False
    timeout_ms: int | None = None
    loads: bool = True


def vowels(count: int, total: int, which: str = "aeiouAEIOU") -> bytes:
    return f'{{"count":{count},"total":{total},"vowels":"{which}"}}'.encode()


EVERY_BYTE = bytes(range(256)) * 4100 + b"xyz"
LOOPBACK = ("127.0.0.1",)

COUNT_VOWELS = (
    Case(
        "counts, and adds up over calls",
        "count_vowels",
        (
            Call("count_vowels", b"Hello, World!", vowels(3, 3)),
            Call("count_vowels", b"", vowels(0, 3)),
            Call("count_vowels", b"aeiouAEIOUy", vowels(10, 13)),
            Call("count_vowels", b"xae" * 300_001, vowels(600_002, 600_015)),
        ),
    ),
    Case(
        "another set of vowels",
        "count_vowels",
        (Call("count_vowels", b"Hello, World!", vowels(3, 3, "lL")),),
        config={"vowels": "lL"},
    ),
    Case(
        "an empty set is the default",
        "count_vowels",
        (Call("count_vowels", b"Hi", vowels(1, 1)),),
        config={"vowels": ""},
    ),
    Case(
        "code points, not bytes, also where one lies across two pieces of the input",
        "count_vowels",
        (
            Call("count_vowels", "äö ßÃ 😀".encode(), vowels(2, 2, "ä😀")),
            Call("count_vowels", b"x" * 4095 + "ä".encode(), vowels(1, 3, "ä😀")),
        ),
        config={"vowels": "ä😀"},
    ),
    Case(
        "vowels are escaped in the output",
        "count_vowels",
        (Call("count_vowels", b'a"b', vowels(1, 1, '\\"\\\\')),),
        config={"vowels": '"\\'},
    ),
    Case(
        "the longest set",
        "count_vowels",
        (Call("count_vowels", b"aa", vowels(2, 2, "a" * 1024)),),
        config={"vowels": "a" * 1024},
    ),
    Case(
        "a set too long",
        "count_vowels",
        (Call("count_vowels", b"aa", error="longer than 1024 bytes"),),
        config={"vowels": "a" * 1025},
    ),
)

ECHO = (
    Case(
        "copies inputs of every length",
        "echo",
        tuple(
            Call(function, EVERY_BYTE[:n], EVERY_BYTE[:n])
            for function in ("echo", "kernel_copy")
            for n in (0, 1, 7, 8, 9, 15, 16, 17, 65_535, 65_536, 70_000, len(EVERY_BYTE), 3)
        ),
    ),
    Case("does nothing", "echo", (Call("nop", b"ignored", b""),)),
    Case(
        "allocates, and keeps what it allocates",
        "echo",
        (
            Call("alloc_length", b"0", b"0"),
            Call("alloc_length", b"1", b"16"),
            Call("alloc_length", b"5000", b"80000"),
            Call("alloc_length", b"", error="decimal number of rounds"),
            Call("alloc_length", b"12x", error="decimal number of rounds"),
        ),
    ),
    Case(
        "spins until its deadline, and works afterwards",
        "echo",
        (Call("spin", error=""), Call("echo", b"a", b"a")),
        timeout_ms=100,
    ),
)

HOST_FUNCTIONS = (
    Case(
        "strings and integers",
        "host_functions",
        (
            Call("greet", b"World", b"Hello, World!"),
            Call("greet", "äöü".encode(), "Hello, äöü!".encode()),
            Call("greet", b"x" * 100_000, b"Hello, " + b"x" * 100_000 + b"!"),
            Call("sum", b"40 2", b"42"),
            Call("sum", b"-40 -2", b"-42"),
            Call("sum", b"9223372036854775806 1", b"9223372036854775807"),
            Call("sum", b"-9223372036854775807 -1", b"-9223372036854775808"),
            Call("sum", b"40", error="two integers"),
            Call("repeat_greet", b"World", b"Hello, World!"),
        ),
        host_functions=True,
    ),
    Case(
        "floats",
        "host_functions",
        (
            Call("scale", b"2.5", b"6.25"),
            Call("scale", b"-0.000002", b"-0.000005"),
            Call("scale", b"4", b"10"),
            Call("scale", b"0", b"0"),
            Call("scale", b"x", error="decimal number"),
        ),
        host_functions=True,
    ),
    Case(
        "a thousand calls",
        "host_functions",
        (Call("repeat_greet", b"you", b"Hello, you!"),),
        config={"times": "1000"},
        host_functions=True,
    ),
    Case(
        "a bad number of calls",
        "host_functions",
        (Call("repeat_greet", error="times"),),
        config={"times": "1x"},
        host_functions=True,
    ),
    Case(
        "greet, add and scale are missing",
        "host_functions",
        (Call("greet", error=""),),
        loads=False,
    ),
)

HTTP_GET = (
    Case(
        "bodies and statuses",
        "http_get",
        (
            Call("http_get", b"http://{server}/hello", b'{"status":200,"length":5,"body":"hello"}'),
            Call("http_get", b"http://{server}/empty", b'{"status":200,"length":0,"body":""}'),
            Call(
                "http_get",
                b"http://{server}/quoted",
                (
                    '{"status":200,"length":33,"body":'
                    '"a \\"quoted\\"\\\\ line\\u000aand äöü 😀\\u0001"}'
                ).encode(),
            ),
            Call("http_body", b"http://{server}/bytes", bytes(range(256)) * 300),
            Call("http_body", b"http://{server}/empty", b""),
            Call(
                "http_get",
                b"http://{server}/broken",
                error="GET http://{server}/broken: expected status 200, got 500",
            ),
            Call(
                "http_body",
                b"http://{server}/nowhere",
                error="GET http://{server}/nowhere: expected status 200, got 404",
            ),
            Call("headers", b"http://{server}/hello", b"{}"),
            Call("http_get", b"not a URL", error=""),
            Call("http_get", b"http://{server}/" + b"x" * 8192, error="longer than 8192 bytes"),
            Call("http_get", b"http://{server}/hello", b'{"status":200,"length":5,"body":"hello"}'),
        ),
        allowed_hosts=LOOPBACK,
    ),
    Case("no host is granted", "http_get", (Call("http_get", b"http://{server}/hello", error=""),)),
    Case(
        "another host is granted",
        "http_get",
        (Call("http_get", b"http://{server}/hello", error=""),),
        allowed_hosts=("example.com",),
    ),
)

WASI_FILES = (
    Case(
        "reads, writes and lists",
        "wasi_files",
        (
            Call("cat", b"/data/a.txt", b"content of a"),
            Call("cat", b"/data/large", EVERY_BYTE),
            Call("cat", b"/data/empty", b""),
            Call("cat", b"/data/nowhere", error="cannot open /data/nowhere: "),
            Call("list", b"/data", b"a.txt\nempty\nlarge\n"),
            Call("write", b"/data/new\nfirst\nsecond", b"12"),
            Call("cat", b"/data/new", b"first\nsecond"),
            Call("write", b"/data/new\n", b"0"),
            Call("cat", b"/data/new", b""),
            Call("list", b"/data", b"a.txt\nempty\nlarge\nnew\n"),
            Call("list", b"/data/a.txt", error="cannot list /data/a.txt: "),
            Call("write", b"/data/new", error="a path, a newline and the content"),
            Call("say", b"hello", b""),
        ),
        wasi=True,
        files={"a.txt": b"content of a", "large": EVERY_BYTE, "empty": b""},
    ),
    Case(
        "stays in its directory",
        "wasi_files",
        (
            Call("cat", b"/etc/passwd", error="cannot open /etc/passwd: "),
            Call("cat", b"/data/../../etc/passwd", error="cannot open "),
            Call("list", b"/", error="cannot list /: "),
        ),
        wasi=True,
        files={"a.txt": b""},
    ),
    Case(
        "a directory that is read-only",
        "wasi_files",
        (
            Call("cat", b"/data/a.txt", b"a"),
            Call("write", b"/data/a.txt\nb", error="cannot open /data/a.txt: "),
            Call("write", b"/data/b.txt\nb", error="cannot open /data/b.txt: "),
            Call("cat", b"/data/a.txt", b"a"),
            Call("list", b"/data", b"a.txt\n"),
        ),
        wasi=True,
        files={"a.txt": b"a"},
        read_only=True,
    ),
    Case(
        "no directory is granted",
        "wasi_files",
        (Call("cat", b"/data/a.txt", error="cannot open /data/a.txt: "),),
        wasi=True,
    ),
)

BENCH_WASI = (
    Case(
        "copies, and sees a clock and chance and nothing else",
        "bench_wasi",
        (
            Call("echo", b"", b""),
            Call("echo", EVERY_BYTE, EVERY_BYTE),
            Call(
                "surroundings",
                b"",
                b'{"arguments":0,"variables":0,"stdin":false,"clock":true,"random":true}',
            ),
        ),
        wasi=True,
    ),
)

FAULTY = (
    Case(
        "counts primes", "faulty", (Call("primes", b"2 3 4 5 6 7", b"4"), Call("primes", b"", b"0"))
    ),
)

CASES: tuple[Case, ...] = (
    *COUNT_VOWELS,
    *ECHO,
    *HOST_FUNCTIONS,
    *HTTP_GET,
    *WASI_FILES,
    *BENCH_WASI,
    *FAULTY,
)
