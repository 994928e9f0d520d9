"""The HTTP server that the table's requests go to."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.path == "/mirror":
            self._answer(200, self.command.encode() + b" " + body, self.headers.get("x-question"))
        elif self.path == "/hello":
            self._answer(200, b"Hello")
        elif self.path == "/empty":
            self._answer(204, b"")
        elif self.path == "/large":
            self._answer(200, b"x" * 100_000)
        else:
            self._answer(404, b"not found")

    do_POST = do_PUT = do_DELETE = do_PATCH = do_GET

    def _answer(self, status: int, body: bytes, answer: str | None = None) -> None:
        self.send_response(status)
        if answer is not None:
            self.send_header("x-answer", answer)
        if status != 204:
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def serve() -> Iterator[str]:
    """Run the server, and give its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
