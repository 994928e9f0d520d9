"""The kernel behaves the same on the pooled engine and on the plain one, for any sequence of calls.

Slots of the pool are reused by kernels that left them in every state: the next one must not see
what is left. `tests/host/test_kernel.py` shows with the same rig that the kernel is right on the
plain engine. Its bookkeeping is checked, too.
"""

from __future__ import annotations

from plugwasm._host.kernel import INPUT_OFFSET
from tests.support.kernel_rig import EDGES, GRANULE, Rig

from .choices import Choices

COVERED: list[str] = []
SIZES = (5, 9)
PAGES = 12
_SIZES = (1, 8, 31, 32, 33, 100, 500, 4096, 70_000, 2**20)
_PLAIN = (
    "length",
    "free",
    "load_u8",
    "load_u64",
    "error_set",
    "input_load_u8",
    "input_load_u64",
    "alloc",
)
_PAIRS = ("output_set", "input_set", "store_u8", "store_u64")
_NONE = (
    "memory_bytes",
    "input_offset",
    "input_length",
    "output_offset",
    "output_length",
    "error_get",
    "top",
    "last",
    "bins",
)
SEEDS = [bytes((seed * step) % 256 for step in range(150)) for seed in (1, 3, 7, 11, 37)]


def check(data: bytes) -> None:
    plain, pooled = Rig(PAGES), Rig(PAGES, pooled=True)
    live: dict[int, int] = {}
    for name, arguments in build(data):
        if name == "call":
            given = bytes(range(256)) * (arguments[0] // 256 + 1)
            outcomes = [rig.call("ok", given[: arguments[0]]) for rig in (plain, pooled)]
            live = {INPUT_OFFSET: arguments[0]} if arguments[0] else {}
        elif name == "put":
            put = b"h" * arguments[0]
            # The host may make a block by itself only as the kernel would.
            outcomes = [plain.kernel.new_block_of_kernel(put), pooled.kernel.new_block(put)]  # type: ignore[list-item]
        else:
            outcomes = [getattr(rig, name)(*arguments) for rig in (plain, pooled)]
        assert outcomes[0] == outcomes[1], (
            f"{name}{arguments}: {outcomes[0]} on the plain engine, {outcomes[1]} on the pooled one"
        )
        if name in ("alloc", "put") and outcomes[0]:
            live[outcomes[0]] = arguments[0]  # type: ignore[index]
        elif name == "free":
            live.pop(arguments[0], None)
        elif name == "reset":
            live = {}
    size = plain.memory_bytes()
    assert plain.failure() == pooled.failure()
    assert bytes(plain.kernel.view(0, size)) == bytes(pooled.kernel.view(0, size)), (
        "the memories differ"
    )
    pooled.check_books(live)


def describe(data: bytes) -> str:
    return "\n".join(f"{name}{arguments}" for name, arguments in build(data))


def build(data: bytes) -> list[tuple[str, tuple[int, ...]]]:
    """Return calls: names and arguments."""
    choices = Choices(data)
    calls: list[tuple[str, tuple[int, ...]]] = []
    while choices and len(calls) < 60:
        match choices.below(8):
            case 0 | 1:
                calls.append(("alloc", (choices.pick(_SIZES) + choices.below(3) - 1,)))
            case 2:
                calls.append(("free", (INPUT_OFFSET + GRANULE * choices.byte(),)))
            case 3:
                calls.append((choices.pick(_PLAIN), (_anywhere(choices),)))
            case 4:
                calls.append((choices.pick(_PAIRS), (_anywhere(choices), _anywhere(choices))))
            case 5:
                calls.append((choices.pick(_NONE), ()))
            case 6:
                calls.append(("put", (1 + choices.below(5000),)))
            case _:
                calls.append(
                    ("call", (choices.pick((0, 1, 100, 5000, 300_000)),))
                    if choices.below(3)
                    else ("reset", ())
                )
    return calls


def _anywhere(choices: Choices) -> int:
    return choices.pick(
        (choices.pick(EDGES), INPUT_OFFSET + GRANULE * choices.byte(), choices.integer(8))
    )
