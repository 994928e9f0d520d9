"""`plugwasm inspect`: imports, exports, size and hash of a plugin, without running it."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

pytest.importorskip("typer")


from tests.support.command_line import COUNT, FIVE, is_harmless, run_command


def test_inspect_shows_import_providers(tmp_path: Path) -> None:
    """`inspect` shows who provides each import."""
    (tmp_path / "lib.wat").write_text(FIVE)
    (tmp_path / "main.wat").write_text(
        """
        (module
          (import "extism:host/env" "alloc" (func (param i64) (result i64)))
          (import "extism:host/env" "var_get" (func (param i64) (result i64)))
          (import "extism:host/env" "from_the_future" (func))
          (import "extism:host/env" "length" (func (param i32) (result i64)))
          (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "fd_levitate" (func))
          (import "lib" "five" (func (result i32)))
          (import "extism:host/user" "ask" (func (param i64) (result i64)))
          (import "elsewhere" "table" (table 1 funcref))
          (memory (export "memory") 3)
          (func (export "go") (result i32) (i32.const 0))
          (func (export "no") (param f64)))
        """
    )
    manifest = {
        "wasm": [
            {"path": str(tmp_path / "lib.wat"), "name": "lib"},
            {"path": str(tmp_path / "main.wat")},
        ]
    }
    done = run_command("inspect", json.dumps(manifest), "--json")
    assert done.code == 0
    found = json.loads(done.out)
    lib, main = found["modules"]
    assert (lib["name"], lib["main"], main["name"], main["main"]) == ("lib", False, "main", True)
    assert {
        item["name"]: (item["provider"], item["provided_by"], item["fits"])
        for item in main["imports"]
    } == {
        "alloc": ("kernel", None, True),
        "var_get": ("env", None, True),
        "from_the_future": ("nobody", None, True),
        "length": ("kernel", None, False),
        "fd_write": ("wasi", None, True),
        "fd_levitate": ("nobody", None, True),
        "five": ("module", "lib", True),
        "ask": ("application", None, True),
        "table": ("nobody", None, True),
    }
    assert {item["name"]: item["callable"] for item in main["exports"]} == {
        "memory": False,
        "go": True,
        "no": False,
    }
    assert [item["callable"] for item in lib["exports"]] == [False]
    assert main["memories"] == {"own": 1, "pages": 3, "imported": 0}
    assert main["exports"][1]["type"] == {"params": [], "results": ["i32"]}
    assert found["needs"] == {
        "wasi": True,
        "host_functions": ["extism:host/user.ask"],
        "missing": [
            "extism:host/env.from_the_future",
            "wasi_snapshot_preview1.fd_levitate",
            "elsewhere.table",
        ],
    }
    text = run_command("inspect", json.dumps(manifest)).out.decode()
    assert re.search(r"^    go +\(\) -> \(i32\) +callable$", text, re.MULTILINE)
    assert re.search(r"^    no +\(f64\) -> \(\)$", text, re.MULTILINE)
    assert re.search(
        r"^    length +\(i32\) -> \(i64\) +kernel, with another type$", text, re.MULTILINE
    )
    assert re.search(r"^    five +\(\) -> \(i32\) +module lib$", text, re.MULTILINE)
    assert "3 pages (192 KiB)" in text
    assert text.endswith(
        "Nobody has: extism:host/env.from_the_future, wasi_snapshot_preview1.fd_levitate, elsewhere.table\n"
    )


def test_inspect_shows_size_and_hash() -> None:
    """`inspect` shows the size and the hash."""
    content = Path(COUNT).read_bytes()
    text = run_command("inspect", COUNT).out.decode()
    assert text.startswith("count_vowels\n")
    assert f"{len(content):,} bytes" in text
    assert hashlib.sha256(content).hexdigest() in text
    assert "It needs" not in text


def test_inspect_escapes_names(evil: str) -> None:
    text = run_command("inspect", evil).out.decode()
    assert r"    [red]\x1b[31mname  () -> (i32)" in text
    assert is_harmless(text)
    assert (
        json.loads(run_command("inspect", evil, "--json").out)["modules"][0]["exports"][-1]["name"]
        == "[red]\x1b[31mname"
    )


def test_inspect_runs_nothing() -> None:
    assert run_command("inspect", "(module (func $f unreachable) (start $f))").code == 0
