"""Find out what went wrong in a plugin, and where its time goes.

    pip install 'plugwasm[debug]'
    python examples/debugging.py

The plugin is `faulty.c`, built with debug information.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import plugwasm
from plugwasm import debugging

HERE = Path(__file__).resolve().parent


def main() -> None:
    numbers = " ".join(str(number) for number in range(90_000, 90_500))
    with plugwasm.Plugin(HERE / "faulty.wasm") as plugin, tempfile.TemporaryDirectory() as folder:
        print(
            "A call traps. The plugin was built with debug information, so its frames have lines:"
        )
        dumper = debugging.dump_on_trap(plugin, folder)
        try:
            plugin.call("primes", "2 3 5 seven")
        except plugwasm.TrapError as error:
            print(debugging.explain(error, plugin))

        print("\nIt left a core dump and its memories:")
        for dump in dumper.dumps:
            for path in (dump.core, *dump.memories):
                print(f"  {Path(path).suffix:10} {Path(path).stat().st_size} bytes")

        print("\nA call is slow. Where does the time go?")
        with debugging.profile(plugin) as profile:
            print(f"  {plugin.call('primes', numbers).decode()} primes")
        for function in profile.functions[:3]:
            print(
                f"  {function.function:16} {1000 * function.own:6.0f} ms of its own, "
                f"{1000 * function.total:6.0f} ms in all"
            )
        for name in ("primes.html", "primes.svg", "primes.json"):
            profile.save(Path(folder, name))
        print("  saved as a flame graph (.html, .svg) and for profiler.firefox.com (.json)")


if __name__ == "__main__":
    main()
