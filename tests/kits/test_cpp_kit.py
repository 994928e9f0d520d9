"""The C++ kit with exceptions, which not every C++ library for WebAssembly has.

The kit is compiled for this machine, over a host of a few functions in the same program.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from conformance.kept import run

from .packages import PDK, need

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.toolchain, pytest.mark.slow, pytest.mark.timeout(600)]

PROGRAM = """
#define PDK_NO_ARENA
#define import_module(name) unused
#define import_name(name) unused
#define export_name(name) used
#include "plugwasm.hpp"

#include <cstdio>
#include <cstring>
#include <stdexcept>

static std::string memory(1, '.');
static std::string message;

extern "C" {
uint64_t extism_alloc(uint64_t size) {
    const auto at = memory.size();
    memory.resize(at + size);
    return at;
}
void extism_free(uint64_t) {}
uint64_t extism_length(uint64_t at) { return memory.size() - at; }
void extism_store_u8(uint64_t at, uint32_t value) { memory[at] = static_cast<char>(value); }
void extism_store_u64(uint64_t at, uint64_t value) { std::memcpy(&memory[at], &value, 8); }
void extism_output_set(uint64_t, uint64_t) {}
void extism_error_set(uint64_t at) { message = at ? memory.substr(at) : ""; }
}

PLUGWASM_EXPORT(fine) { return "fine"; }
PLUGWASM_EXPORT(refuse) { return plugwasm::Error{"refused", 7}; }
PLUGWASM_EXPORT(leave) { throw std::runtime_error("an exception with a message of more than 32 bytes"); }
PLUGWASM_EXPORT(strange) { throw 1; }

int main() {
    for (auto function : {plugwasm_export_fine, plugwasm_export_refuse, plugwasm_export_leave,
                          plugwasm_export_strange}) {
        message.clear();
        const int code = function();
        std::printf("%d %s\\n", code, message.c_str());
    }
}
"""


def test_exceptions_become_errors(tmp_path: Path) -> None:
    """An exception that leaves an export is the error of the call, with its message and code 1."""
    compiler = shutil.which("c++")
    if compiler is None:
        missing = "a C++ compiler for this machine is needed (c++)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    source = tmp_path / "exceptions.cpp"
    source.write_text(PROGRAM)
    includes = [f"-I{PDK / language / 'include'}" for language in ("c", "cpp")]
    command = [compiler, "-std=c++20", "-Wno-attributes", *includes, str(source)]
    run([*command, "-o", "exceptions"], tmp_path)
    done = subprocess.run([tmp_path / "exceptions"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "0 ",
        "7 refused",
        "1 an exception with a message of more than 32 bytes",
        "1 an exception that is no std::exception left the export",
    ]


def test_older_standard_is_refused(tmp_path: Path) -> None:
    """C++17 gets one sentence about the option, before errors about templates."""
    need("zig")
    (tmp_path / "old.cpp").write_text('#include "plugwasm.hpp"\n')
    includes = [f"-I{PDK / language / 'include'}" for language in ("c", "cpp")]
    command = ["c++", "-std=c++17", *includes, "-c", "old.cpp", "-o", "old.o"]
    done = subprocess.run(
        [sys.executable, "-m", "ziglang", *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "plugwasm.hpp needs C++20: compile with -std=c++20" in done.stderr
