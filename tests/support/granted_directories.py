"""Links that lead out of a directory granted to a guest, and a secret file beside it."""

from __future__ import annotations

import gc
import os
from pathlib import Path

SECRET = b"the secret of the host"


def open_host_descriptors() -> int:
    gc.collect()
    return len(os.listdir("/dev/fd"))


ESCAPES = [
    "..",
    "../outside/secret",
    "sub/../../outside/secret",
    "sub/deep/../../../outside/secret",
    "./../outside/secret",
    "/etc/passwd",
    "//etc/passwd",
    "out/secret",
    "out",
    "out/",
    "abs/secret",
    "abs",
    "abs/",
    "hop/secret",
    "up/outside/secret",
    "sub/up3/outside/secret",
    "proc/self/root/etc/passwd",
]


def plant_escapes(base: Path) -> None:
    root = base / "root"
    (root / "out").symlink_to("../outside")
    (root / "abs").symlink_to(base / "outside")
    (root / "hop").symlink_to("out")
    (root / "up").symlink_to("..")
    (root / "sub" / "up3").symlink_to("../..")
    (root / "proc").symlink_to("/proc")
