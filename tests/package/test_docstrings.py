"""The examples in docstrings of the package run as they stand."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import msgspec
import pyarrow
import pytest

import plugwasm
import plugwasm.aio
import plugwasm.otel
import plugwasm.recording
import plugwasm.testing
from plugwasm import Function, Plugin, PluginRef
from plugwasm.observing import Observer
from tests.support.guests import export, guest
from tests.support.paths import EXAMPLES, ROOT


def examples() -> Iterator[tuple[str, str]]:
    """Yield each indented paragraph of a docstring that is Python with a call in it, and its
    file."""
    for path in sorted((ROOT / "plugwasm").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                for block in re.findall(
                    r"(?:\A|\n\n)((?: {4}.*(?:\n+(?= {4})|\n?))+)", ast.get_docstring(node) or ""
                ):
                    code = textwrap.dedent(block)
                    if has_a_call(code):
                        yield path.relative_to(ROOT).as_posix(), code


def has_a_call(code: str) -> bool:
    try:
        return any(isinstance(node, ast.Call) for node in ast.walk(ast.parse(code)))
    except SyntaxError:
        return False


class User(msgspec.Struct):
    name: str


ANSWERS_A_LIST = """(if (i32.gt_u (call $input_load_u8 (i64.const 0)) (i32.const 127))
    (then (call $echo)) (else (call $give <<[{"name": "Ada"}]>>)))"""
GREETS = """(drop (call $now)) (drop (call $http_request <<{"url": "https://api.example.com/user/1"}>> (i64.const 0)))
    (call $give <<Hello, Ada>>)"""


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the names that the examples use: files in the current directory, and objects of an
    application."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(EXAMPLES / "count_vowels.wasm", tmp_path)
    (tmp_path / "report.wasm").write_text(guest(export("report", "(call $echo)")))
    now = '(import "extism:host/user" "now" (func $now (result i64)))'
    (tmp_path / "my.wasm").write_text(guest(export("greet", GREETS), now))
    fails = iter([True])

    def f(plugin: object, inputs: object, outputs: object) -> None:
        if next(fails, False):
            raise LookupError

    body = export("find", ANSWERS_A_LIST) + export("run", "(call $f)")
    table = pyarrow.table({"text": ["Hello", "World"]})
    return {
        "plugwasm": plugwasm,
        "observing": plugwasm.observing,
        "plugin": Plugin(
            guest(body, '(import "extism:host/user" "f" (func $f))'),
            functions=[Function(None, "f", [], [], f)],
        ),
        "data": b"",
        "query": [User("Ada")],
        "User": User,
        "Protocol": Protocol,
        "A": Observer,
        "B": Observer,
        "uploaded": '{"wasm": [{"data": "AGFzbQEAAAA="}]}',
        "ref": PluginRef(guest(export("count_vowels", "(call $give <<2>>)")), functions=[]),
        "table": table,
        "threads": SimpleNamespace(map=lambda count, batches: [count(batch) for batch in batches]),
        "dataset": SimpleNamespace(map_batches=lambda count, batch_format: count(table)),
        "frame": SimpleNamespace(
            _meta=table.to_pandas(),
            map_partitions=lambda count, meta: count(table.to_pandas()),
            mapInArrow=lambda count, schema: list(count(iter(table.to_batches()))),
        ),
    }


@pytest.mark.parametrize("code", [pytest.param(code, id=path) for path, code in examples()])
def test_an_example_runs(code: str, names: dict[str, Any]) -> None:
    code = code.replace("[...]", "[]")  # what an application has
    outcome = eval(
        compile(code, "<docstring>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names
    )
    if inspect.iscoroutine(outcome):

        async def main() -> None:
            await outcome

        asyncio.run(main())
    for name, value in names.items():
        if name.startswith("test_"):
            value()
