"""What a manifest makes the host do before anything runs: fetch modules and read files. The
application's `Egress` limits that too, and no error shows the manifest's author what the host
read."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import plugwasm
from plugwasm import (
    CompiledPlugin,
    Egress,
    IsolatedPlugin,
    Plugin,
    PluginPool,
    PluginRef,
    PluginSet,
)
from plugwasm._http import connection as wire
from plugwasm._manifest.download import download_module
from plugwasm._manifest.resolve import resolve
from plugwasm.errors import Error, HashMismatchError, ManifestError, ModuleError, SourceError
from plugwasm.testing import Harness
from tests.support.guests import export, guest
from tests.support.http_server import Connection, Request, Server, redirect, reply

WASM = b"\0asm\1\0\0\0"
ECHO = guest(export("run", "(call $answer (i64.const 7))"))
SECRET = "hunter2-hunter2"
EXAMPLE_ONLY = Egress(allowed_hosts=["example.com"])


@pytest.fixture
def server() -> Iterator[Server]:
    with Server({"/m.wasm": reply(WASM), "/run.wat": reply(ECHO.encode())}) as server:
        yield server


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Resolve every name to the test server, unless a test sets another address."""
    known: dict[str, list[str]] = {}
    monkeypatch.setattr(wire, "look_up", lambda host, port: known.get(host, ["127.0.0.1"]))
    return known


def by_name(server: Server, name: str, path: str = "/m.wasm") -> str:
    return server.url.replace("127.0.0.1", name) + path


# ---- where modules are fetched from, with an egress

MADE: dict[str, Callable[[Any, Egress], object]] = {
    "a plugin": lambda plugin, egress: Plugin(plugin, egress=egress),
    "a compiled plugin": lambda plugin, egress: CompiledPlugin(plugin, egress=egress),
    "an isolated plugin": lambda plugin, egress: IsolatedPlugin(plugin, egress=egress),
    "a pool": lambda plugin, egress: PluginPool(plugin, egress=egress),
    "a ref": lambda plugin, egress: PluginRef(plugin, egress=egress),
    "a ref that embeds": lambda plugin, egress: PluginRef(plugin, egress=egress, embed=True),
    "a ref to a policy by name": lambda plugin, egress: PluginRef(
        plugin, egress="tests_of_downloads:EGRESS"
    ),
    "a harness": lambda plugin, egress: Harness(plugin, egress=egress),
}


@pytest.fixture
def named_egress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tests_of_downloads.py").write_text(
        "import plugwasm\nEGRESS = plugwasm.Egress(allowed_hosts=['example.com'])\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.parametrize("made", MADE.values(), ids=MADE)
@pytest.mark.parametrize("form", ["a manifest", "a manifest in JSON", "a URL"])
def test_egress_limits_downloads(
    made: Callable[[Any, Egress], object], form: str, server: Server, named_egress: None
) -> None:
    """Nothing is fetched that the egress does not allow, whatever the plugin is created from."""
    url = server.url + "/run.wat"
    plugin: Any = {
        "a manifest": {"wasm": [{"url": url, "method": "POST", "headers": {"X-Key": "k"}}]},
        "a manifest in JSON": f'{{"wasm":[{{"url":"{url}"}}]}}',
        "a URL": url,
    }[form]
    with pytest.raises(
        SourceError,
        match=r"the host 127.0.0.1 is not granted: no entry of allowed_hosts matches it",
    ):
        made(plugin, EXAMPLE_ONLY)
    assert server.connections == 0


def test_egress_limits_downloads_of_ref(server: Server) -> None:
    """A ref created elsewhere fetches nothing that its egress does not allow."""
    digest = hashlib.sha256(ECHO.encode()).hexdigest()
    ref = pickle.loads(
        pickle.dumps(
            PluginRef(
                {"wasm": [{"url": server.url + "/run.wat", "hash": digest}]}, egress=EXAMPLE_ONLY
            )
        )
    )
    with pytest.raises(SourceError, match=r"is not granted"):
        ref.compiled()
    with pytest.raises(SourceError, match=r"is not granted"):
        ref.plugin(isolated=True)
    assert server.connections == 0


def test_egress_limits_downloads_of_set(server: Server) -> None:
    """A set fetches nothing that its egress does not allow."""
    manifest = {"wasm": [{"url": server.url + "/run.wat"}]}
    with PluginSet([manifest, server.url + "/run.wat"], egress=EXAMPLE_ONLY) as plugins:
        assert all("is not granted" in str(description.error) for description in plugins.describe())
        assert len(plugins.describe()) == 2
    assert server.connections == 0
    with PluginSet([manifest], egress=Egress(allowed_hosts=["127.0.0.1"])) as plugins:
        assert plugins.describe()[0].error is None


@pytest.mark.parametrize("method", ["DELETE", "PUT", "PATCH"])
def test_downloads_by_get_or_post_only(server: Server, method: str) -> None:
    """A manifest can use only the methods GET and POST."""
    for egress in (None, EXAMPLE_ONLY, Egress(allowed_hosts=["127.0.0.1"])):
        with pytest.raises(ManifestError, match=r"expected GET or POST"):
            CompiledPlugin(
                {"wasm": [{"url": server.url + "/m.wasm", "method": method}]}, egress=egress
            )
    assert server.connections == 0


def test_egress_grants_download(server: Server, names: dict[str, list[str]]) -> None:
    """A download that an egress allows follows its rules."""
    source = {"url": by_name(server, "modules.test"), "headers": {"X-Key": "k"}}
    origin = by_name(server, "modules.test", "")
    egress = Egress(
        allowed_hosts=["modules.test"],
        private_addresses=["127.0.0.1"],
        methods=["GET"],
        added_headers={origin: {"Authorization": SECRET}},
    )
    assert resolve({"wasm": [source]}, egress=egress).modules[0].wasm == WASM
    assert server.requests[0].headers["x-key"] == "k"
    assert server.requests[0].headers["authorization"] == SECRET
    for refused, message in (
        ({**source, "method": "POST"}, "method: expected one of GET"),
        ({**source, "headers": {"Host": "other"}}, "Host may not be set"),
        ({**source, "headers": {"Proxy-Authorization": "x"}}, "may not be set"),
        ({**source, "headers": {"X-Key": "1", "X_Key": "2"}}, "X_Key is given twice"),
    ):
        with pytest.raises(SourceError, match=message):
            resolve({"wasm": [refused]}, egress=egress)
    for changed in (
        egress.replace(private_addresses=[]),
        egress.replace(ports=[1]),
        egress.replace(schemes=["https"]),
    ):
        with pytest.raises(SourceError, match=r"cannot fetch .* refused"):
            resolve({"wasm": [source]}, egress=changed)
    assert len(server.requests) == 1


def test_egress_checks_redirect(server: Server, names: dict[str, list[str]]) -> None:
    """A redirect is checked by the egress."""
    with Server(
        {"/": redirect(server.url + "/m.wasm"), "/name": redirect(by_name(server, "other.test"))}
    ) as first:
        for path in ("/", "/name"):
            with pytest.raises(SourceError, match=r"redirects to a target that is not granted"):
                download_module(
                    by_name(first, "modules.test", path),
                    limit=1000,
                    egress=Egress(allowed_hosts=["modules.test"], private_addresses=["127.0.0.1"]),
                )
    assert server.connections == 0


def test_egress_without_hosts(server: Server, names: dict[str, list[str]]) -> None:
    """An egress without hosts leaves public hosts to the manifest."""
    with pytest.raises(SourceError, match=r"its address 127.0.0.1 is a loopback address"):
        download_module(by_name(server, "modules.test"), limit=1000, egress=Egress())
    assert server.connections == 0
    assert download_module(server.url + "/m.wasm", limit=1000, egress=Egress()) == WASM


def test_egress_queue_includes_downloads(server: Server) -> None:
    """Downloads take places in the queue of the egress."""
    egress = Egress(allowed_hosts=["127.0.0.1"], max_per_second=1)
    for _ in range(2):
        download_module(server.url + "/m.wasm", limit=1000, egress=egress)
    with pytest.raises(SourceError, match=r"longer than 0.1 seconds"):
        download_module(server.url + "/m.wasm", limit=1000, egress=egress, seconds=0.1)


# ---- without one


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "192.168.1.1",
        "100.64.0.1",
        "::1",
        "fd00::1",
        "::ffff:7f00:1",
    ],
)
def test_private_address_is_refused(
    server: Server, names: dict[str, list[str]], address: str
) -> None:
    """No name can lead to a non-public address."""
    names["modules.example.org"] = ["93.184.216.34", address]
    with pytest.raises(SourceError, match=r"its address \S+ is .*pass an `egress` that grants it"):
        download_module(by_name(server, "modules.example.org"), limit=1000)
    assert server.connections == 0


def test_redirect_to_private_is_refused(server: Server, names: dict[str, list[str]]) -> None:
    """No redirect can lead to a non-public address.

    The first server has the address that its URL names. The redirect goes to another address, or to
    the same by another name.
    """
    targets = [
        "http://127.0.0.2/",
        "http://10.0.0.1/",
        "http://[::1]/",
        "http://localhost./",
        "http://169.254.169.254/latest/",
        "http://minio/",
    ]
    names["minio"] = ["10.0.0.1"]
    names["localhost"] = ["::1"]
    routes = {f"/{index}": redirect(target) for index, target in enumerate(targets)}
    with Server(routes) as first:
        for path in routes:
            with pytest.raises(SourceError, match=r"cannot fetch .*its address"):
                download_module(first.url + path, limit=1000)


def test_what_the_url_names_is_reached(server: Server, names: dict[str, list[str]]) -> None:
    for host in ("127.0.0.1", "localhost", "minio"):
        assert download_module(by_name(server, host), limit=1000) == WASM
    names["metadata"] = ["169.254.169.254"]
    with pytest.raises(SourceError, match=r"link-local"):
        download_module("http://metadata/m.wasm", limit=1000)


def test_url_credentials_go_to_their_host(server: Server) -> None:
    """The user and password in a URL are sent to its host only."""
    with Server({"/": redirect(server.url + "/m.wasm")}) as first:
        assert download_module(first.url.replace("//", "//user:p%40ss@"), limit=1000) == WASM
        assert first.requests[0].headers["authorization"] == "Basic dXNlcjpwQHNz"
    assert "authorization" not in server.requests[0].headers


def test_redirect_drops_manifest_headers(server: Server) -> None:
    """Headers of the manifest are not sent to another origin after a redirect."""
    with Server({"/": redirect(server.url + "/m.wasm")}) as first:
        headers = {
            "Authorization": SECRET,
            "Cookie": SECRET,
            "X-Api-Key": SECRET,
            "User-Agent": SECRET,
        }
        assert download_module(first.url, headers, limit=1000) == WASM
    assert SECRET not in str(server.requests)
    assert server.requests[0].headers["user-agent"] == "plugwasm"


def test_downloads_have_total_limit(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """All downloads of a manifest have a total limit."""

    def slow(request: Request, connection: Connection) -> None:
        connection.pause(0.3)
        reply(WASM)(request, connection)

    monkeypatch.setattr("plugwasm._manifest.module_files.TOTAL_DOWNLOAD_SECONDS", 0.7)
    with (
        Server(slow) as slow_server,
        pytest.raises(SourceError, match=r"wasm\[[123]\]`: .*longer than"),
    ):
        resolve({"wasm": [{"url": f"{slow_server.url}/{index}"} for index in range(10)]})


# ---- what errors tell

CONTENTS = {
    "binary": b"\x7fELF" + SECRET.encode(),
    "text": SECRET.encode(),
    "like a module's text": f"({SECRET})".encode(),
}


def error_text(error: BaseException | None) -> str:
    """Return everything that an application could show of an error, except its cause."""
    assert error is not None
    return f"{error} {error!r} {error.__dict__}"


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
@pytest.mark.parametrize("egress", [None, EXAMPLE_ONLY], ids=["its own", "a stranger's"])
@pytest.mark.parametrize("made", [CompiledPlugin, PluginRef, IsolatedPlugin])
def test_hash_mismatch_hides_actual_hash(
    made: Any, egress: Egress | None, content: bytes, tmp_path: Path
) -> None:
    """The error for a wrong hash does not show the file's hash."""
    path = tmp_path / "secret"
    path.write_bytes(content)
    options = {"embed": True} if made is PluginRef else {}
    with pytest.raises(Error) as caught:
        made({"wasm": [{"path": str(path), "hash": "0" * 64}]}, egress=egress, **options)
    everything = error_text(caught.value) + error_text(caught.value.__cause__ or caught.value)
    digest = hashlib.sha256(content).hexdigest()
    assert digest not in everything
    assert digest[:12] not in everything


def test_hash_mismatch_message(tmp_path: Path) -> None:
    """The error for a wrong hash shows the expected hash and says what to do."""
    path = tmp_path / "m.wasm"
    path.write_bytes(WASM)
    for egress in (None, EXAMPLE_ONLY):
        with pytest.raises(
            HashMismatchError,
            match=rf"expected {'0' * 64}, but the sha256 of .*m.wasm is another.* `plugwasm inspect`",
        ):
            resolve({"wasm": [{"path": str(path), "hash": "0" * 64}]}, egress=egress)


@pytest.mark.parametrize("content", [b"\x7fELF", b"zyxw:x:0:0", b"\x01\x02\x03\x04"])
def test_what_is_no_module_is_not_shown(content: bytes, tmp_path: Path, server: Server) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    with Server(reply(content)) as other:
        for source in ({"path": str(path)}, {"url": other.url + "/secret"}):
            with pytest.raises(
                ModuleError, match=r"is not a Wasm module: it does not begin with 00 61 73 6d"
            ) as caught:
                resolve({"wasm": [source]})
            assert content[:4].hex(" ") not in str(caught.value)
            assert content[:4].decode("latin-1") not in str(caught.value)


def test_foreign_manifest_learns_no_paths(tmp_path: Path) -> None:
    """A stranger's manifest learns nothing about the paths that it names.

    Whether there is a file, its kind, size and content: every case is the same error.
    """
    for name, content in {
        "empty": b"",
        "binary": b"\x7fELF",
        "text": b"root:x",
        "lisp": b"(setq password 5)",
        "ini": b";; password",
    }.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "component").write_bytes(b"\0asm\x0d\0\1\0")
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "pipe")
    os.symlink(tmp_path / "link", tmp_path / "link")
    with open(tmp_path / "large", "wb") as file:
        file.truncate(2**30)
    said = set()
    for name in ("none", "none/none", "empty/none", *os.listdir(tmp_path)):
        for pin in ({}, {"hash": "0" * 64}):
            path = str(tmp_path / name)
            with pytest.raises(SourceError) as caught:
                CompiledPlugin(
                    {"wasm": [{"path": path, **pin}]}, egress=Egress(allowed_hosts=["*"])
                )
            shown = plugwasm._manifest.files.format_path(path)
            assert caught.value.__cause__ is not None, "the application's log says more"
            said.add((type(caught.value), str(caught.value).replace(shown, "PATH")))
    assert len(said) == 1
    assert "cannot be read as a module" in said.pop()[1]


def test_foreign_manifest_may_have_text(tmp_path: Path) -> None:
    """A stranger's manifest may name a text module if the file's name says that it is one."""
    path = tmp_path / "m.WAT"
    path.write_text("(module)")
    assert (
        resolve({"wasm": [{"path": str(path)}]}, egress=EXAMPLE_ONLY).modules[0].wasm == b"(module)"
    )


def test_own_manifest_path_errors(tmp_path: Path) -> None:
    """For the application's own manifest, errors say what is wrong with a path."""
    (tmp_path / "empty").write_bytes(b"")
    for name, message in (
        ("none", "no such file"),
        ("empty", "it is empty"),
        (".", "it is a directory"),
    ):
        with pytest.raises(SourceError, match=rf"manifest field `wasm\[0\]`: .*{message}"):
            resolve({"wasm": [{"path": str(tmp_path / name)}]})


def test_own_content_is_shown() -> None:
    """Errors show the content of files that the application names itself."""
    with pytest.raises(ModuleError, match=r"it begins with the bytes 7f 45 4c 46"):
        resolve(b"\x7fELF\x01\x01")
    with pytest.raises(ModuleError, match=r"it begins with the bytes 7f 45 4c 46"):
        resolve({"wasm": [{"data": b"\x7fELF\x01\x01"}]})
