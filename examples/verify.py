"""Build the example plugins again, and check that new and committed .wasm files behave as in
`cases.py`.

    python examples/verify.py [--host plugwasm|extism] [--committed] [NAME ...]

The behaviour must be the same, not the bytes, which change with the compiler. `--committed` builds
nothing. `--host extism` runs the same table on the official Python SDK (the extra `bench`): a
plugin does not depend on a host.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import build
import cases
from cases import Case

if TYPE_CHECKING:
    from collections.abc import Iterator

HOSTS = {"plugwasm": "plugwasm", "extism": "extism.extism"}

# (host, plugin, title of the case): the bug of that host that makes the case fail
KNOWN_FAULTS = {
    (
        "extism",
        "host_functions",
        "floats",
    ): "extism 1.1.1 cannot return a float from a host function"
}


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, body = cases.ROUTES.get(self.path, (404, b"not here"))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def server() -> Iterator[str]:
    """Run an HTTP server on the loopback interface that answers `cases.ROUTES`; yield its
    `host:port`."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{httpd.server_port}"
        finally:
            httpd.shutdown()
            thread.join()


def host_functions(host: Any) -> list[Any]:
    """Return greet, add and scale of `cases.py`, with explicit signatures, as every Extism host for
    Python has them."""
    i64, f64 = host.ValType.I64, host.ValType.F64

    def greet(plugin: Any, params: list[Any], results: list[Any]) -> None:
        plugin.return_string(results[0], cases.greet(plugin.input_string(params[0])))

    def add(plugin: Any, params: list[Any], results: list[Any]) -> None:
        results[0].value = cases.add(params[0].value, params[1].value)

    def scale(plugin: Any, params: list[Any], results: list[Any]) -> None:
        results[0].value = cases.scale(params[0].value)

    return [
        host.host_fn(name="greet", signature=([i64], [i64]))(greet),
        host.host_fn(name="add", signature=([i64, i64], [i64]))(add),
        host.host_fn(name="scale", signature=([f64], [f64]))(scale),
    ]


def failures(host: Any, wasm: bytes, case: Case, address: str) -> list[str]:
    """Run one case on a host (the module `plugwasm`, or one with the same API), and return what
    differs from the table."""

    def here(value: bytes) -> bytes:
        return value.replace(b"{server}", address.encode())

    manifest: dict[str, Any] = {"wasm": [{"data": wasm}], "allowed_hosts": list(case.allowed_hosts)}
    if case.timeout_ms is not None:
        manifest["timeout_ms"] = case.timeout_ms
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="plugwasm-case-") as directory:
        if case.files is not None:
            for name, content in case.files.items():
                Path(directory, name).write_bytes(content)
            manifest["allowed_paths"] = {"ro:" * case.read_only + directory: cases.DATA}
        functions = host_functions(host) if case.host_functions else []
        try:
            plugin = host.Plugin(manifest, wasi=case.wasi, config=case.config, functions=functions)
        except host.Error as error:
            return [f"did not load: {error}"] if case.loads else []
        with plugin:
            for call in case.calls:
                what = f"{call.function}({_short(here(call.input))})"
                try:
                    output = plugin.call(call.function, here(call.input))
                except host.Error as error:
                    if call.error is None:
                        wrong.append(
                            f"{what}: expected {_short(here(call.output))}, got the error {error}"
                        )
                    elif here(call.error.encode()).decode() not in str(error):
                        wrong.append(
                            f"{what}: expected an error with {call.error!r}, got the error {error}"
                        )
                    continue
                if call.error is not None:
                    wrong.append(f"{what}: expected an error, got {_short(output)}")
                elif output != here(call.output):
                    wrong.append(
                        f"{what}: expected {_short(here(call.output))}, got {_short(output)}"
                    )
    return wrong


def _short(value: bytes) -> str:
    return repr(value) if len(value) <= 100 else f"{value[:60]!r}… ({len(value)} bytes)"


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Check that the example plugins, fresh and committed, behave as cases.py says."
    )
    parser.add_argument(
        "--host",
        choices=HOSTS,
        default="plugwasm",
        help="what runs the plugins (default: plugwasm)",
    )
    parser.add_argument(
        "--committed",
        action="store_true",
        help="check the committed .wasm files only, build nothing",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"which plugins (default: all of {', '.join(build.PLUGINS)})",
    )
    arguments = parser.parse_args()
    names = arguments.names or list(build.PLUGINS)
    unknown = sorted(set(names) - set(build.PLUGINS))
    if unknown:
        parser.error(f"no such plugin: {', '.join(unknown)}; there are {', '.join(build.PLUGINS)}")
    host = importlib.import_module(HOSTS[arguments.host])

    versions = {"committed": build.HERE}
    bad = checked = 0
    with tempfile.TemporaryDirectory(prefix="plugwasm-verify-") as fresh, server() as address:
        if not arguments.committed:
            build.build(Path(fresh), names)
            versions["fresh"] = Path(fresh)
        for name in names:
            for case in (case for case in cases.CASES if case.plugin == name):
                if fault := KNOWN_FAULTS.get((arguments.host, name, case.title)):
                    print(f"skipped {name}, {case.title}: {fault}")
                    continue
                for version, directory in versions.items():
                    path = directory / f"{name}.wasm"
                    wrong = (
                        failures(host, path.read_bytes(), case, address)
                        if path.exists()
                        else [f"there is no {path.name}"]
                    )
                    checked += 1
                    bad += bool(wrong)
                    for line in wrong:
                        print(f"{name} ({version}), {case.title}:\n    {line}", file=sys.stderr)
    if bad:
        print(
            f"{bad} of {checked} checks failed on {arguments.host}. "
            "If the committed files are old: python examples/build.py",
            file=sys.stderr,
        )
        return 1
    print(
        f"{checked} checks passed on {arguments.host}: {', '.join(names)}; {' and '.join(versions)}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
