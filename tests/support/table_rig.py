"""A kernel with its table of config and vars, driven without a plugin."""

from __future__ import annotations

from typing import Any

from plugwasm._engine import EngineFailure
from plugwasm._host.kernel import Kernel
from plugwasm._host.kernel.table import HALF, HAS_VARS, parse_vars
from plugwasm._host.vars import Vars

from .kernel_rig import Owner, Rig

GROW, FETCH = 0, 2


class TableRig:
    """A kernel that has been lent vars. Requests other than for growth and for vars fail."""

    def __init__(
        self, vars: dict[bytes, bytes], *, max_bytes: int = 2**20, fuel: bool = False
    ) -> None:
        self.rig = Rig(max_pages=64, fuel=fuel)
        self.owner: Owner = self.rig.owner
        self.kernel: Kernel = self.rig.kernel
        self.owner.vars = Vars(max_bytes, 10_000, vars)
        self.owner.serve = self._serve

    def _serve(self, values: Any) -> None:
        assert values[4] & 0xFF == FETCH
        values[0] = self.owner.vars.lend(self.kernel.open_table(), values[0], values[2])

    def new_block(self, data: bytes) -> int:
        return self.kernel.new_block(data)

    def get(self, name: bytes) -> bytes:
        value: int = self.rig.var_get(self.new_block(name))
        block = self.kernel.block(value)
        return b"" if block is None else bytes(block)

    def set(self, name: bytes, value: bytes) -> None:
        self.rig.var_set(self.new_block(name), self.new_block(value))

    def is_ended_within(self, fuel: int, function: str, *arguments: int) -> bool:
        """Call an export, and return whether it ran out of that much fuel."""
        getattr(self.rig, function)  # made before
        self.rig.store.set_fuel(fuel)
        try:
            getattr(self.rig, function)(*arguments)
        except EngineFailure:
            return True
        return False

    def half(self) -> int:
        return self.kernel.open_table().words[HALF] or 1024

    def read(self) -> dict[bytes, bytes]:
        """What is in the table, as the host reads it when the instance was ended."""
        table = self.kernel.open_table()
        assert table.words[HAS_VARS]
        return parse_vars(*table.copy_half())
