"""The main features of plugwasm, with the plugins in this directory: `make demo` runs it."""

from __future__ import annotations

from pathlib import Path

import plugwasm

HERE = Path(__file__).resolve().parent


def main() -> None:
    print(
        "A plugin counts vowels. It keeps a total in a var, and which letters are vowels is "
        "configuration."
    )
    with plugwasm.Plugin(HERE / "count_vowels.wasm", config={"vowels": "aeiouyAEIOUY"}) as plugin:
        for text in ("Hello, World!", "Yes, why not?"):
            print(f"  {text!r:18} -> {plugin.call('count_vowels', text).decode()}")

    print("\nA plugin calls functions of this application.")

    @plugwasm.host_fn(register=False)
    def greet(who: str) -> str:
        return f"Hello, {who}, from the host"

    @plugwasm.host_fn(register=False)
    def add(a: int, b: int) -> int:
        return a + b

    @plugwasm.host_fn(register=False)
    def scale(x: float) -> float:
        return x * 1.5

    with plugwasm.Plugin(HERE / "host_functions.wasm", functions=[greet, add, scale]) as plugin:
        print(f"  {plugin.call('greet', 'plugin').decode()}")
        print(f"  19 + 23 = {plugin.call('sum', '19 23').decode()}")

    print("\nA plugin reads a directory that was granted to it, read-only, and nothing else.")
    manifest = {
        "wasm": [{"path": str(HERE / "wasi_files.wasm")}],
        "allowed_paths": {f"ro:{HERE.parent / 'pdk' / 'c'}": "/pdk"},
    }
    with plugwasm.Plugin(manifest, wasi=True) as plugin:
        print(f"  /pdk holds {plugin.call('list', '/pdk').decode().split()}")
        for function, argument in (("cat", "/etc/passwd"), ("write", "/pdk/new\ncontent")):
            try:
                plugin.call(function, argument)
            except plugwasm.GuestError as error:
                print(f"  {function} {argument.splitlines()[0]}: {error.message}")

    print("\nA plugin that never returns is ended by its deadline; the next call works.")
    with plugwasm.Plugin(
        {"wasm": [{"path": str(HERE / "echo.wasm")}], "timeout_ms": 200}
    ) as plugin:
        try:
            plugin.call("spin")
        except plugwasm.TimeoutError as error:
            print(f"  {error.message}")
        print(f"  echo -> {plugin.call('echo', 'still here').decode()}")


if __name__ == "__main__":
    main()
