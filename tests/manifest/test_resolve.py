"""Sources of a plugin: files, bytes, text and URLs, with real files and a real server."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pickle
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugwasm._http import policy
from plugwasm._manifest import download
from plugwasm._manifest.download import download_module, redact_url
from plugwasm._manifest.files import read_file, sniff
from plugwasm._manifest.resolve import MAX_MODULE_BYTES, PluginSpec, resolve
from plugwasm.errors import Error, HashMismatchError, ManifestError, ModuleError, SourceError
from plugwasm.manifest import Manifest, WasmSource, parse
from tests.support.paths import ROOT

WASM = b"\0asm\1\0\0\0"
COMPONENT = b"\0asm\x0d\0\1\0"
WAT = b"  \n;; a comment\n(module)"
SECRET = "canary-5f0c"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def only_module(spec: PluginSpec) -> tuple[str, bytes, str]:
    assert spec.main == "main"
    (module,) = spec.modules
    return module.name, module.wasm, module.origin


def write(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# Files, bytes and text


@pytest.mark.parametrize("name", ["m.wasm", "m", "m.bin"])
@pytest.mark.parametrize("content", [WASM, WAT, b"(module)"])
def test_a_file_is_told_by_its_content(tmp_path: Path, name: str, content: bytes) -> None:
    path = write(tmp_path / name, content)
    for plugin in (path, str(path)):
        assert only_module(resolve(plugin)) == ("main", content, str(path))


def test_the_defaults_grant_nothing() -> None:
    spec = resolve(WASM)
    assert spec.config == {}
    assert spec.allowed_hosts == ()
    assert spec.allowed_paths == {}
    assert spec.timeout_ms is None
    assert spec.max_pages is None
    assert spec.max_http_response_bytes is None
    assert spec.max_var_bytes is None


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_of_any_kind_are_a_module(kind: Callable[[bytes], object]) -> None:
    assert only_module(resolve(kind(WASM))) == ("main", WASM, "the bytes given")


def test_module_text_as_str_or_bytes() -> None:
    """A module's text may be str or bytes."""
    for plugin in ("(module)", b"(module)", b"\xef\xbb\xbf(module)"):
        assert only_module(resolve(plugin))[1] == b"(module)"
    assert only_module(resolve(";; only a comment\n(module)"))[1].endswith(b"(module)")


def test_manifest_forms_are_equal(tmp_path: Path) -> None:
    """A manifest means the same in every form."""
    document: dict[str, Any] = {
        "wasm": [{"data": base64.b64encode(WASM).decode()}],
        "memory": {"max_pages": 3, "max_var_bytes": 0, "max_http_response_bytes": 5},
        "config": {"a": "b"},
        "allowed_hosts": ["h"],
        "allowed_paths": {"/srv": "/data"},
        "timeout_ms": 0,
    }
    text = json.dumps(document)
    toml = f"""
        wasm = [{{data = "{document["wasm"][0]["data"]}"}}]
        memory = {{max_pages = 3, max_var_bytes = 0, max_http_response_bytes = 5}}
        config.a = "b"
        allowed_hosts = ["h"]
        allowed_paths = {{"/srv" = "/data"}}
        timeout_ms = 0
    """
    forms: list[object] = [
        document,
        parse(document),
        text,
        toml,
        Manifest.parse(text.encode()),
        Manifest.parse(toml.encode()),
    ]
    forms += [
        write(tmp_path / "p.json", text),
        str(write(tmp_path / "p.TOML", toml)),
        Manifest.load(write(tmp_path / "p", toml)),
    ]
    for form in forms:
        spec = resolve(form)
        assert only_module(spec)[:2] == ("main", WASM)
        assert (spec.max_pages, spec.max_var_bytes, spec.max_http_response_bytes) == (3, 0, 5)
        assert (spec.config, spec.allowed_hosts, spec.allowed_paths) == (
            {"a": "b"},
            ("h",),
            {"/srv": "/data"},
        )
        assert spec.timeout_ms == 0


def test_one_line_toml_as_str(tmp_path: Path) -> None:
    """A one-line TOML manifest may be a str."""
    path = write(tmp_path / "m.wasm", WASM)
    assert only_module(resolve(f"wasm = [{{path = '{path}'}}]"))[2] == str(path)


def test_existing_file_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An existing file wins over other readings of its name."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "{}", WASM)
    assert only_module(resolve("{}")) == ("main", WASM, "{}")


@pytest.mark.parametrize(
    "path",
    ["none.wasm", "wasm/none.wasm", "{folder}/none.wasm", "a=b", "wasm", "x" * 5000, "[[none]]"],
)
def test_missing_path_names_directory(path: str) -> None:
    """The error for a missing path names it and the current directory."""
    with pytest.raises(SourceError) as caught:
        resolve(path)
    if len(path) < 100:
        assert str(caught.value) == f"no such file: {path} (current directory: {os.getcwd()})"
    assert len(str(caught.value)) < 1000


def test_impossible_file_name() -> None:
    """A name that no file can have is a source error."""
    with pytest.raises(SourceError, match="cannot be the name of a file"):
        resolve("a\0b.wasm")


def test_directory_and_empty_file(tmp_path: Path) -> None:
    """The errors for a directory and an empty file say so."""
    with pytest.raises(SourceError, match="it is a directory"):
        resolve(tmp_path)
    for name in ("m.wasm", "m.toml", "m"):
        with pytest.raises(SourceError, match="it is empty"):
            resolve(write(tmp_path / name, b""))


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceError, match="not a regular file"):
        resolve(tmp_path / "pipe")


def test_unreadable_file(tmp_path: Path) -> None:
    """The error for a file without read permission says so."""
    path = write(tmp_path / "m.wasm", WASM)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(SourceError, match="Permission denied"):
        resolve(path)


def test_link_to_itself(tmp_path: Path) -> None:
    """A link to itself is a source error."""
    link = tmp_path / "m.wasm"
    link.symlink_to(link)
    with pytest.raises(SourceError, match=r"cannot read .*m\.wasm: Too many levels"):
        resolve(link)


def test_file_over_limit_is_refused(tmp_path: Path) -> None:
    """A file over the size limit is refused before it is read."""
    path = write(tmp_path / "m.wasm", WASM)
    assert read_file(str(path), len(WASM)) == WASM
    with pytest.raises(SourceError, match=f"larger than the limit of {len(WASM) - 1} bytes"):
        read_file(str(path), len(WASM) - 1)
    os.truncate(path, 2**40)
    with pytest.raises(SourceError, match="larger than the limit of 268435456 bytes"):
        resolve(path)


@pytest.mark.parametrize("content", [b"", b"  \n", b"\xef\xbb\xbf"])
def test_nothing_is_no_plugin(content: bytes) -> None:
    with pytest.raises(SourceError, match="empty"):
        resolve(content)


def test_component_is_refused(tmp_path: Path) -> None:
    """A component is refused, and the error says what to do."""
    for plugin in (
        COMPONENT,
        write(tmp_path / "c.wasm", COMPONENT),
        {"wasm": [{"data": COMPONENT}]},
    ):
        with pytest.raises(
            ModuleError, match="components are not supported; build it as a core module"
        ):
            resolve(plugin)


@pytest.mark.parametrize(
    "content", [b"\0as", b"\x7fELF\2\1\1\0", b"\x01asm\1\0\0\0", b"\x1f\x8b\x08\x00"]
)
def test_other_binary_is_refused(tmp_path: Path, content: bytes) -> None:
    """Other binary files are no modules."""
    for plugin in (content, write(tmp_path / "m", content), {"wasm": [{"data": content}]}):
        with pytest.raises(
            ModuleError, match="not a Wasm module: it begins with the bytes " + content[:4].hex(" ")
        ):
            resolve(plugin)


def test_text_in_wasm_file_is_refused(tmp_path: Path) -> None:
    """Text in a `.wasm` file is no module and is not shown."""
    path = write(tmp_path / "m.wasm", f"PASSWORD={SECRET}")
    for plugin in (path, {"wasm": [{"path": path}]}):
        with pytest.raises(ModuleError, match="is not a Wasm module") as caught:
            resolve(plugin)
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize("plugin", [None, 5, object(), [WASM], 1.5])
def test_invalid_source_is_refused(plugin: object) -> None:
    """A value that cannot be a plugin is refused."""
    with pytest.raises(
        ManifestError, match=r"expected a manifest .*, a path, a URL or a Wasm module; got"
    ):
        resolve(plugin)


@given(st.one_of(st.text(), st.binary(), st.binary().map(WASM.__add__), st.text().map("{".__add__)))
def test_random_sources(plugin: str | bytes) -> None:
    """Any value is resolved or is one of our errors."""
    try:
        spec = resolve(plugin)
    except Error:
        return
    assert sniff(spec.modules[0].wasm) in ("wasm", "wat")


# Manifests


def test_manifest_paths_relative_to_file(tmp_path: Path) -> None:
    """The paths in a manifest file are relative to it."""
    write(tmp_path / "m.wasm", WASM)
    path = write(tmp_path / "p.toml", '[[wasm]]\npath = "m.wasm"\n')
    assert only_module(resolve(path)) == ("main", WASM, str(tmp_path / "m.wasm"))


def test_manifest_missing_file_names_field(tmp_path: Path) -> None:
    """The error for a missing file that a manifest names shows the field."""
    path = write(tmp_path / "p.toml", '[[wasm]]\npath = "m.wasm"\n')
    with pytest.raises(
        SourceError,
        match=r"manifest field `wasm\[0\]`: no such file: .*m\.wasm \(current directory",
    ):
        resolve(path)


def test_manifest_error_names_file(tmp_path: Path) -> None:
    """A manifest error in a file names the file."""
    path = write(tmp_path / "p.toml", "wasm = 5")
    with pytest.raises(
        ManifestError, match=r"p\.toml: manifest field `wasm`: expected a list, got an integer"
    ):
        resolve(path)


def test_hash_in_either_case() -> None:
    """A hash may be in upper or lower case."""
    for digest in (sha256(WASM), sha256(WASM).upper()):
        assert only_module(resolve({"wasm": [{"data": WASM, "hash": digest}]}))[1] == WASM


def test_hash_mismatch_names_module(tmp_path: Path) -> None:
    """The error for a wrong hash names the module and the expected hash, but not the actual one."""
    path = write(tmp_path / "lib.wasm", WASM)
    wrong = "0" * 64
    with pytest.raises(HashMismatchError) as caught:
        resolve({"wasm": [{"data": WASM}, {"path": path, "name": "lib", "hash": wrong}]})
    for part in ("wasm[1].hash", str(path), "`lib`", wrong, "`plugwasm inspect`"):
        assert part in str(caught.value)
    assert sha256(WASM) not in str(caught.value), (
        "whoever wrote the manifest would learn what the file holds"
    )
    assert caught.value.field == "wasm[1].hash"
    assert pickle.loads(pickle.dumps(caught.value)).field == "wasm[1].hash"


@pytest.mark.parametrize("content", [COMPONENT, b"\0as", b"\x7fELF"])
def test_hash_checked_before_content(content: bytes) -> None:
    """A wrong hash is found before the content is examined."""
    with pytest.raises(HashMismatchError):
        resolve({"wasm": [{"data": content, "hash": "0" * 64}]})


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        ([{}], ["main"]),
        ([{"name": "other"}], ["main"]),
        ([{"name": "lib"}, {}], ["lib", "main"]),
        ([{"name": "main"}, {"name": "lib"}], ["main", "lib"]),
        ([{"name": "a"}, {"name": "b"}], ["a", "main"]),
        ([{}, {}, {}], ["0", "1", "main"]),
        ([{}, {"name": "0"}, {}], ["0_", "0", "main"]),
        ([{"path": "lib.wasm"}, {}], ["lib", "main"]),
        ([{"path": "lib.wasm"}, {"path": "lib.wasm"}, {}], ["lib", "1", "main"]),
        ([{"path": "lib.wasm"}, {"name": "lib"}, {}], ["0", "lib", "main"]),
        ([{"path": "main.wasm"}, {}], ["0", "main"]),
        ([{"path": "env.wasm"}, {"path": "wasi_snapshot_preview1.wasm"}, {}], ["0", "1", "main"]),
        ([{"path": "extism:host"}, {}], ["0", "main"]),
    ],
)
def test_modules_are_named_by_the_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sources: list[dict[str, str]], names: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for source in sources:
        if "path" in source:
            write(tmp_path / source["path"], WASM)
    spec = resolve(
        {"wasm": [source if "path" in source else {"data": WASM, **source} for source in sources]}
    )
    assert [module.name for module in spec.modules] == names
    assert spec.main == "main"


def test_recipe_hides_config() -> None:
    """A recipe's `repr` shows no config value."""
    spec = resolve({"wasm": [{"data": WASM}], "config": {"password": SECRET}})
    assert SECRET not in repr(spec)
    assert "password" in repr(spec)


def test_recipe_is_independent_of_manifest() -> None:
    """A later change of the manifest does not change the recipe."""
    manifest = Manifest(wasm=[WasmSource(data=WASM)], config={"a": "b"})
    spec = resolve(manifest)
    manifest.config["a"] = "c"
    assert spec.config == {"a": "b"}


# URLs


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.answers: dict[str, Callable[[Handler], None]] = {}
        self.stopping = threading.Event()

    def url(self, path: str = "/m.wasm") -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors: several of these tests close the connection early."""


def not_found(handler: Handler) -> None:
    handler.answer(404)


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing to stderr."""

    def do_GET(self) -> None:
        self.server.requests.append(
            (self.command, self.path, {key.lower(): value for key, value in self.headers.items()})
        )
        self.server.answers.get(self.path.partition("?")[0], not_found)(self)

    do_POST = do_GET

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def drip(self, start: bytes, piece: bytes) -> None:
        self.close_connection = True
        self.wfile.write(start)
        while not self.server.stopping.wait(0.02):
            self.wfile.write(piece)


def served() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.stopping.set()
    server.shutdown()
    thread.join()
    server.server_close()


server = pytest.fixture(served, name="server")
other_server = pytest.fixture(served, name="other_server")


def redirect(status: int, location: str) -> Callable[[Handler], None]:
    return lambda handler: handler.answer(status, Location=location)


def serve_module(handler: Handler) -> None:
    handler.answer(200, WASM)


def no_download_is_left(seconds: float = 5) -> bool:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if not any(thread.name.startswith("plugwasm-") for thread in threading.enumerate()):
            return True
        time.sleep(0.01)
    return False


def test_a_module_is_fetched_from_a_url(server: Server) -> None:
    server.answers["/m.wasm"] = serve_module
    assert only_module(resolve(server.url())) == ("main", WASM, server.url())
    assert only_module(resolve(server.url().replace("http", "HTTP")))[1] == WASM
    spec = resolve({"wasm": [{"url": server.url(), "hash": sha256(WASM)}, {"data": WASM}]})
    assert [(module.name, module.wasm) for module in spec.modules] == [
        ("m", WASM),
        ("main", WASM),
    ]


def test_url_request_is_sent_as_given(server: Server) -> None:
    """Method, query and headers are sent as given."""
    server.answers["/m.wasm"] = serve_module
    resolve(
        {
            "wasm": [
                {
                    "url": server.url("/m.wasm?a=b#c"),
                    "method": "POST",
                    "headers": {"X-Key": "k", "user-agent": "me"},
                }
            ]
        }
    )
    ((method, path, headers),) = server.requests
    assert (method, path, headers["x-key"], headers["user-agent"]) == (
        "POST",
        "/m.wasm?a=b",
        "k",
        "me",
    )


@pytest.mark.parametrize("status", [204, 400, 401, 404, 500])
def test_url_status_other_than_200(server: Server, status: int) -> None:
    """The error for any status but 200 names it."""
    server.answers["/m.wasm"] = lambda handler: handler.answer(status)
    with pytest.raises(SourceError, match=f"answered with status {status}"):
        resolve(server.url())


def test_url_empty_or_other_body(server: Server) -> None:
    """An empty body or another kind of content is no module."""
    server.answers["/m.wasm"] = lambda handler: handler.answer(200)
    with pytest.raises(SourceError, match="is empty"):
        resolve(server.url())
    server.answers["/m.wasm"] = lambda handler: handler.answer(200, b"<html>")
    with pytest.raises(ModuleError, match="not a Wasm module"):
        resolve(server.url())


def test_url_server_not_there() -> None:
    """An unreachable server is a source error that can be pickled."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/m.wasm"
        with pytest.raises(SourceError, match=r"cannot fetch .*refused") as caught:
            resolve(url)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http://[::1",
        "http://h:99999/",
        "http://" + "a" * 70 + ".example/",
        "https://a b/",
    ],
)
def test_url_malformed(url: str) -> None:
    """A malformed URL is a source error."""
    with pytest.raises(SourceError, match="cannot fetch"):
        resolve(url)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed(server: Server, status: int) -> None:
    server.answers["/old"] = redirect(status, "/m.wasm")
    server.answers["/m.wasm"] = serve_module
    assert (
        download_module(server.url("/old"), {"X-Key": "k"}, "POST", limit=MAX_MODULE_BYTES) == WASM
    )
    method, path, headers = server.requests[1]
    assert (method, path, headers["x-key"]) == (
        "POST" if status in (307, 308) else "GET",
        "/m.wasm",
        "k",
    )


def test_redirect_limit(server: Server) -> None:
    """Five redirects are followed, and six are not."""
    for hop in range(6):
        server.answers[f"/{hop}"] = redirect(302, f"/{hop + 1}")
    server.answers["/6"] = serve_module
    assert download_module(server.url("/1"), limit=MAX_MODULE_BYTES) == WASM
    with pytest.raises(SourceError, match="more than 5 redirects"):
        download_module(server.url("/0"), limit=MAX_MODULE_BYTES)


def test_a_redirect_loop_ends(server: Server) -> None:
    server.answers["/m.wasm"] = redirect(302, "/m.wasm")
    with pytest.raises(SourceError, match="more than 5 redirects"):
        resolve(server.url())
    assert len(server.requests) == 6


def test_redirect_drops_headers(server: Server, other_server: Server) -> None:
    """Headers are not sent to another origin after a redirect."""
    server.answers["/old"] = redirect(302, other_server.url("/back"))
    other_server.answers["/back"] = redirect(302, server.url("/m.wasm"))
    server.answers["/m.wasm"] = serve_module
    assert (
        download_module(
            server.url("/old"), {"X-Key": SECRET, "Authorization": SECRET}, limit=MAX_MODULE_BYTES
        )
        == WASM
    )
    assert SECRET in str(server.requests[0])
    assert SECRET not in str(other_server.requests + server.requests[1:])


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://127.0.0.1/", "http://[", "//[::1", "http://:99999/"]
)
def test_redirect_to_other_scheme_is_refused(server: Server, location: str) -> None:
    """A redirect to another scheme is refused."""
    server.answers["/m.wasm"] = redirect(302, location)
    with pytest.raises(SourceError, match="cannot fetch"):
        resolve(server.url())


def test_body_over_limit_is_refused(server: Server) -> None:
    """A body over the limit is refused, with and without a length."""

    def without_length(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(bytes(1000))

    def in_chunks(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write((b"64\r\n" + bytes(100) + b"\r\n") * 10 + b"0\r\n\r\n")

    server.answers["/length"] = lambda handler: handler.answer(200, bytes(1000))
    server.answers["/close"] = without_length
    server.answers["/chunks"] = in_chunks
    for path in server.answers:
        assert download_module(server.url(path), limit=1000) == bytes(1000)
        with pytest.raises(SourceError, match="larger than the limit of 999 bytes"):
            download_module(server.url(path), limit=999)


def test_body_limit_is_on_decoded_size(server: Server) -> None:
    """The size limit applies to the decoded body."""
    import gzip

    server.answers["/m.wasm"] = lambda handler: handler.answer(
        200, gzip.compress(bytes(1_000_000)), Content_Encoding="gzip"
    )
    assert download_module(server.url(), limit=1_000_000) == bytes(1_000_000)
    with pytest.raises(SourceError, match="larger than the limit"):
        download_module(server.url(), limit=999_999)


def test_body_without_end(server: Server) -> None:
    """An endless body is read up to the limit only."""
    server.answers["/m.wasm"] = lambda handler: handler.drip(
        b"HTTP/1.1 200 OK\r\n\r\n", bytes(100_000)
    )
    with pytest.raises(SourceError, match="larger than the limit"):
        download_module(server.url(), limit=500_000, seconds=20)


def test_body_ending_early(server: Server) -> None:
    """A body that ends early is an error."""

    def short(handler: Handler) -> None:
        handler.close_connection = True
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + WASM)

    server.answers["/m.wasm"] = short
    with pytest.raises(SourceError, match="cannot fetch"):
        resolve(server.url())


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        (b"H", b""),
    ],
    ids=["body", "chunk size", "body without length", "header", "nothing"],
)
def test_time_limit_leaves_no_thread(server: Server, start: bytes, piece: bytes) -> None:
    """The time limit applies to the whole download and leaves no thread."""
    server.answers["/m.wasm"] = lambda handler: handler.drip(start, piece)
    began = time.monotonic()
    with pytest.raises(SourceError, match=r"longer than 0\.3 seconds"):
        download_module(server.url(), seconds=0.3, limit=MAX_MODULE_BYTES)
    assert time.monotonic() - began < 2
    assert no_download_is_left()


def test_url_errors_hide_secrets(server: Server) -> None:
    """No error of a download shows a secret."""
    server.answers["/length"] = lambda handler: handler.answer(200, bytes(10))
    server.answers["/away"] = redirect(302, f"ftp://{SECRET}@h/")
    host = server.url("").removeprefix("http://")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        refused = f"127.0.0.1:{unused.getsockname()[1]}"
        for place in (f"{host}/none", f"{host}/away", f"{refused}/", f"{host}9999/", "[/"):
            url = f"http://u:{SECRET}@{place}?token={SECRET}#{SECRET}"
            with pytest.raises(SourceError) as caught:
                resolve({"wasm": [{"url": url, "headers": {"X-Key": SECRET}}]})
            error = caught.value
            assert SECRET not in f"{error} {error!r} {error.__dict__} {error.__cause__!r}"
        with pytest.raises(HashMismatchError) as mismatch:
            resolve({"wasm": [{"url": f"http://{host}/length?{SECRET}", "hash": "0" * 64}]})
        assert SECRET not in str(mismatch.value)


def test_https_certificate_is_checked(
    server: Server, other_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTPS requires a trusted certificate, and redirects cannot leave HTTPS."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl to make a certificate")
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "certificate.pem")
    request = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    command = [openssl, *request.split(), "-keyout", key, "-out", certificate]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.answers["/m.wasm"] = serve_module
    server.answers["/away"] = redirect(302, other_server.url())
    other_server.answers["/m.wasm"] = serve_module
    secure = server.url().replace("http://", "https://")
    with pytest.raises(SourceError, match="CERTIFICATE_VERIFY_FAILED"):
        resolve(secure)
    assert server.requests == []
    monkeypatch.setenv("SSL_CERT_FILE", certificate)
    assert only_module(resolve(secure)) == ("main", WASM, secure)
    with pytest.raises(SourceError, match="redirects from https to http"):
        resolve(secure.replace("m.wasm", "away"))
    assert other_server.requests == []
    with pytest.raises(SourceError, match="localhost"):
        resolve(secure.replace("127.0.0.1", "localhost"))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://h/a/b.wasm", "https://h/a/b.wasm"),
        ("https://u:p@h:80/a?q#f", "https://h:80/a?…"),
        ("https://u@p@h/a@b", "https://h/a@b"),
        ("https://u:p", "https://u:…"),
        ("https://[::1]/a", "https://[::1]/a"),
        ("https://h/\x1b[0m", "'https://h/\\x1b[0m'"),
    ],
)
def test_url_shown_without_secrets(url: str, shown: str) -> None:
    """A URL is shown without parts that may be secret."""
    assert redact_url(url) == shown


# Start-up


@pytest.mark.parametrize("how", ["path", "bytes"])
def test_lazy_imports(tmp_path: Path, how: str) -> None:
    """Resolving a module imports nothing that it does not need."""
    path = write(tmp_path / "m.wasm", WASM)
    plugin = repr(str(path)) if how == "path" else repr(WASM)
    heavy = (
        "msgspec",
        "urllib3",
        "json",
        "logging",
        "typing",
        "re",
        "hashlib",
        "dataclasses",
        "plugwasm.manifest",
        "plugwasm._manifest.download",
    )
    # Without the site module, so that nothing but the interpreter's own start has been imported
    # before.
    code = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from plugwasm._manifest.resolve import resolve
assert resolve({plugin}).modules[0].wasm == {WASM!r}
print(sorted(set(sys.modules) & {set(heavy)!r}))
"""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_limits_are_documented() -> None:
    """The limits are the documented ones."""
    assert (MAX_MODULE_BYTES, download.DOWNLOAD_SECONDS, policy._MAX_DOWNLOAD_REDIRECTS) == (
        256 * 2**20,
        30,
        5,
    )
