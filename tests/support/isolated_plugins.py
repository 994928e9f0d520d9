"""A guest that never ends, and whether its worker process has ended."""

from __future__ import annotations

from pathlib import Path

from tests.support.guests import LOOP, export, guest


def is_zombie_or_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


ENDLESS = guest(
    export("loop", LOOP)
    + export("fine", "(call $echo)")
    + export("keeps", "(call $var_set <<v>> <<1>>)")
    + export("kept", "(call $give (call $var_get <<v>>))")
)
