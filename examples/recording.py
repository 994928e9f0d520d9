"""Record a call that fails in production with the answers of the host, and replay it without them.

pip install plugwasm
python examples/recording.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import plugwasm
from plugwasm import recording

HERE = Path(__file__).resolve().parent


def in_production(folder: str) -> Path:
    """Run the plugin where its files are, and return the recording."""
    with tempfile.TemporaryDirectory() as files:
        Path(files, "report.txt").write_text("Sales went up.\n")
        manifest = {
            "wasm": [{"path": str(HERE / "wasi_files.wasm")}],
            "allowed_paths": {files: "/reports"},
        }
        recorder = recording.Recorder(folder, when=lambda call: call.error is not None)
        with plugwasm.Plugin(manifest, wasi=True, observe=recorder) as plugin:
            print("  report.txt:", plugin.call("cat", "/reports/report.txt", returns=str).strip())
            try:
                plugin.call("cat", "/reports/summary.txt")
            except plugwasm.GuestError as error:
                print("  summary.txt:", error)
    return next(Path(folder).iterdir())


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        print("In production a call fails, and the recorder writes down how it came to that:")
        file = in_production(folder)

        print("\nThe files are gone. The recording has what the plugin saw of them:")
        made = recording.load(file)
        for call in made.calls:
            names = [asked.name for asked in call.host_calls]
            files = [name for name in names if name.startswith(("path_", "fd_read"))]
            print(f"  {call.function} asked for {', '.join(files)}")

        print("\nReplayed, it does the same:")
        for replayed in made.replay(HERE / "wasi_files.wasm").calls:
            print("  ", replayed.error or (replayed.output or b"").decode().strip())

        print("\nAs a test, it fails when the plugin does something else:")
        file.write_text(file.read_text().replace("/reports/report.txt", "/reports/other.txt", 1))
        try:
            recording.load(file).replay(HERE / "wasi_files.wasm")
        except recording.ReplayError as error:
            print(f"  recorded {error.recorded}\n  now      {error.now}")


if __name__ == "__main__":
    main()
