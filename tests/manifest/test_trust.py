"""Who may provide a manifest: bytes are a module, a manifest's paths have one base, and
everything is checked when a plugin is created."""

from __future__ import annotations

import base64
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import plugwasm
from plugwasm import (
    CompiledPlugin,
    Egress,
    IsolatedPlugin,
    Manifest,
    ManifestError,
    ModuleError,
    Plugin,
    PluginPool,
    PluginRef,
    PluginSet,
    SourceError,
)
from plugwasm.testing import Harness
from tests.support.http_server import Server, reply
from tests.support.paths import EXAMPLES

FILES = str(EXAMPLES / "wasi_files.wasm")
SECRET = "canary-77aa"
WAT = b"(module)"


@pytest.fixture(name="server")
def _server() -> Iterator[Server]:
    with Server({"*": reply(WAT)}) as server:
        yield server


def in_set(plugin: object) -> None:
    """Raise the error that keeps the plugin out of a set."""
    with PluginSet({"x": plugin}, wasi=True) as plugins:
        (entry,) = plugins._catalog.state.entries.values()
        if entry.error is not None:
            raise entry.error


MAKERS: dict[str, Callable[[Any], object]] = {
    "Plugin": lambda plugin: Plugin(plugin, wasi=True),
    "CompiledPlugin": lambda plugin: CompiledPlugin(plugin, wasi=True),
    "IsolatedPlugin": lambda plugin: IsolatedPlugin(plugin, wasi=True),
    "PluginPool": lambda plugin: PluginPool(plugin, wasi=True),
    "PluginRef": lambda plugin: PluginRef(plugin, wasi=True),
    "embedded PluginRef": lambda plugin: PluginRef(plugin, wasi=True, embed=True),
    "PluginSet": in_set,
    "Harness": lambda plugin: Harness(plugin, wasi=True),
    "debugging.explain": lambda plugin: plugwasm.debugging.explain(plugwasm.TrapError("x"), plugin),
}


def uploads(url: str, secret: Path) -> dict[str, str]:
    document = {
        "wasm": [{"url": url, "method": "POST"}, {"path": str(secret)}],
        "allowed_paths": {"/etc": "/etc"},
    }
    text = json.dumps(document)
    return {
        "JSON": text,
        "JSON after spaces": f" \n\t{text}",
        "JSON after a mark": f"\ufeff{text}",
        "TOML": f"wasm = [{{url = '{url}'}}]\nallowed_paths = {{'/etc' = '/etc'}}",
        "TOML with a comment first": f"# a plugin\nwasm = [{{path = '{secret}'}}]",
    }


def check_refused(make: Callable[[Any], object], plugin: object, server: Server) -> None:
    with pytest.raises(ModuleError) as caught:
        make(plugin)
    assert "manifest" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert server.requests == []


# Bytes are a module, never a manifest


@pytest.mark.parametrize("maker", MAKERS)
def test_manifest_as_bytes_is_not_obeyed(maker: str, tmp_path: Path, server: Server) -> None:
    """A manifest in bytes or in a file with another name is never used as one."""
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    for text in uploads(server.url, secret).values():
        for kind in (bytes, bytearray, memoryview):
            check_refused(MAKERS[maker], kind(text.encode()), server)
        for name in ("m.wasm", "m.wat", "m", "m.bin", "json", "m.json.wasm", "m.json "):
            path = tmp_path / name
            path.write_text(text)
            check_refused(MAKERS[maker], path, server)
            check_refused(MAKERS[maker], str(path), server)


def test_a_link_is_told_by_its_own_name(tmp_path: Path, server: Server) -> None:
    (tmp_path / "m.json").write_text(json.dumps({"wasm": [{"url": server.url}]}))
    (tmp_path / "upload").symlink_to(tmp_path / "m.json")
    check_refused(Plugin, tmp_path / "upload", server)


def test_official_sdk_json_bytes_is_explained() -> None:
    """For programs of the official SDK that pass JSON as bytes, the error says what to write."""
    with pytest.raises(
        ModuleError,
        match=r"plugwasm\.Manifest\.parse\(data\).*json\.loads\(data\).*plugwasm\.ManifestPolicy\(…\)\.admit\(data\)",
    ):
        Plugin(json.dumps({"wasm": [{"data": "AAAA"}]}).encode())


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_wat_as_bytes_is_module(kind: Callable[[bytes], Any]) -> None:
    """WAT as bytes is a module."""
    for wat in (WAT, b"\xef\xbb\xbf ;; text\n(module)"):
        Plugin(kind(wat)).close()


@pytest.mark.parametrize("suffix", ["json", "toml", "JSON", "Toml"])
def test_manifest_file_name_is_binding(tmp_path: Path, suffix: str) -> None:
    """A file with a manifest's name is only read as a manifest."""
    path = tmp_path / f"m.{suffix}"
    path.write_bytes(b"\0asm\1\0\0\0")
    for maker in ("Plugin", "PluginRef"):
        with pytest.raises(ManifestError, match="expected a manifest, got a Wasm module"):
            MAKERS[maker](path)
    path.write_bytes(WAT)
    with pytest.raises(ManifestError, match="neither a Wasm module nor a manifest"):
        Plugin(path)


def test_bytes_as_manifest_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes are a manifest on explicit request."""
    document = {"wasm": [{"data": base64.b64encode(WAT).decode()}], "config": {"a": "b"}}
    toml = f"wasm = [{{data = '{document['wasm'][0]['data']}'}}]\nconfig.a = 'b'"  # type: ignore[index]
    for data in (
        json.dumps(document).encode(),
        json.dumps(document),
        toml.encode(),
        document,
        bytearray(toml.encode()),
    ):
        with Plugin(Manifest.parse(data)) as plugin:
            assert plugin.config == {"a": "b"}
    assert Manifest.parse(toml, format="toml") == Manifest.parse(
        json.dumps(document), format="json"
    )
    with pytest.raises(ManifestError, match="TOML"):
        Manifest.parse(json.dumps(document), format="toml")
    with pytest.raises(ManifestError, match="not valid JSON"):
        Manifest.parse(toml, format="json")
    with pytest.raises(plugwasm.OptionError, match="format: expected"):
        Manifest.parse(toml, format="yaml")  # type: ignore[arg-type]
    (tmp_path / "upload").write_text(toml)
    assert Manifest.load(tmp_path / "upload").config == {"a": "b"}
    monkeypatch.chdir(tmp_path)
    based = Manifest.parse(
        '{"wasm": [{"path": "m.wasm"}], "allowed_paths": {"ro:d": "/d"}}', base="sub"
    )
    assert based.wasm[0].path == "sub/m.wasm"
    assert based.allowed_paths == {f"ro:{tmp_path}/sub/d": "/d"}


@pytest.mark.parametrize("field", ["data", "path", "url"])
def test_nested_manifest_is_refused(field: str, tmp_path: Path) -> None:
    """A module of a manifest cannot be a manifest."""
    inner = json.dumps({"wasm": [{"path": str(tmp_path / "secret")}]})
    (tmp_path / "inner.json").write_text(inner)
    with Server({"*": reply(inner.encode())}) as server:
        values = {"data": inner.encode(), "path": str(tmp_path / "inner.json"), "url": server.url}
        for maker in ("Plugin", "Harness", "PluginSet", "PluginRef"):
            if (maker, field) != ("PluginRef", "data"):  # which are not looked at before they run
                with pytest.raises(ModuleError, match="is not a Wasm module"):
                    MAKERS[maker]({"wasm": [{field: values[field]}]})
        with pytest.raises(ModuleError, match="is not a Wasm module"):
            Plugin(server.url)


# All paths of a manifest have one base


@pytest.fixture(name="site")
def _site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create a directory with a manifest, its module and its data, and unrelated files with the
    same names in the current directory."""
    site = tmp_path / "site"
    for folder, text in ((site, "of the file"), (tmp_path, "of the current directory")):
        (folder / "data").mkdir(parents=True)
        (folder / "data" / "note").write_text(text)
        (folder / "m.wasm").write_bytes(Path(FILES).read_bytes())
    (site / "p.json").write_text(
        json.dumps(
            {
                "wasm": [{"path": "m.wasm"}],
                "allowed_paths": {"ro:data": "/data", "../data": "/other"},
            }
        )
    )
    (site / "p.toml").write_text(
        "wasm = [{path = 'm.wasm'}]\nallowed_paths = {'ro:data' = '/data', '../data' = '/other'}"
    )
    monkeypatch.chdir(tmp_path)
    return site


RUNNERS: dict[str, Callable[[Any], Any]] = {
    "Plugin": lambda plugin: Plugin(plugin, wasi=True),
    "IsolatedPlugin": lambda plugin: IsolatedPlugin(plugin, wasi=True),
    "PluginPool": lambda plugin: PluginPool(plugin, wasi=True, size=1),
    "PluginRef": lambda plugin: PluginRef(plugin, wasi=True).plugin(),
    "isolated PluginRef": lambda plugin: PluginRef(plugin, wasi=True).plugin(isolated=True),
    "Harness": lambda plugin: Harness(plugin, wasi=True).plugin(),
}


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("form", ["json", "toml"])
def test_file_paths_relative_to_file(runner: str, form: str, site: Path) -> None:
    """The paths in a manifest file are relative to the file."""
    with RUNNERS[runner](f"site/p.{form}") as plugin:
        assert plugin.call("cat", "/data/note") == b"of the file"
        assert plugin.call("cat", "/other/note") == b"of the current directory"


@pytest.mark.parametrize("runner", RUNNERS)
def test_other_paths_relative_to_base(runner: str, site: Path) -> None:
    """The paths in other manifests are relative to the current directory or their base."""
    document = {"wasm": [{"path": "m.wasm"}], "allowed_paths": {"ro:data": "/data"}}
    for manifest, expected in (
        (document, b"of the current directory"),
        (json.dumps(document), b"of the current directory"),
        (Manifest.parse(document, base=site), b"of the file"),
        (Manifest.parse(document, base="site"), b"of the file"),
    ):
        with RUNNERS[runner](manifest) as plugin:
            assert plugin.call("cat", "/data/note") == expected


@pytest.mark.parametrize("runner", RUNNERS)
def test_parent_of_link_is_of_its_target(runner: str, site: Path) -> None:
    """The parent of a link is the parent of its target."""
    (site / "deep" / "er").mkdir(parents=True)
    (site / "deep" / "data").mkdir()
    (site / "deep" / "data" / "note").write_text("beside where the link leads")
    (site / "link").symlink_to(site / "deep" / "er")
    (site / "p.json").write_text(
        json.dumps({"wasm": [{"path": "m.wasm"}], "allowed_paths": {"ro:link/../data": "/data"}})
    )
    (site / "deep" / "q.json").write_text(
        json.dumps({"wasm": [{"path": "../m.wasm"}], "allowed_paths": {"ro:data": "/data"}})
    )
    for path in ("site/p.json", "site/link/../q.json"):
        with RUNNERS[runner](path) as plugin:
            assert plugin.call("cat", "/data/note") == b"beside where the link leads"


def test_no_fallback_to_current_directory(site: Path) -> None:
    """A module that is not beside its manifest is not taken from the current directory."""
    (site / "m.wasm").unlink()
    for maker in ("Plugin", "PluginRef", "PluginSet"):
        with pytest.raises(SourceError, match=r"no such file: (\S*/)?site/m\.wasm"):
            MAKERS[maker]("site/p.json")


def test_later_process_has_same_directories(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is started later gets the same directories."""
    (site.parent / "elsewhere" / "data").mkdir(parents=True)
    compiled = CompiledPlugin(
        {"wasm": [{"path": "m.wasm"}], "allowed_paths": {"data": "/data"}}, wasi=True
    )
    ref = PluginRef({"wasm": [{"path": "m.wasm"}], "allowed_paths": {"data": "/data"}}, wasi=True)
    with IsolatedPlugin(compiled) as plugin:
        monkeypatch.chdir(site.parent / "elsewhere")
        assert plugin._worker is not None
        os.kill(plugin._worker._process.pid, signal.SIGKILL)
        with pytest.raises(plugwasm.WorkerError):
            plugin.call("cat", "/data/note")
        assert plugin.call("cat", "/data/note") == b"of the current directory"
    for later in (IsolatedPlugin(compiled), ref.plugin(), ref.plugin(isolated=True)):
        with later:
            assert later.call("cat", "/data/note") == b"of the current directory"


def test_folder_of_set_is_base(site: Path) -> None:
    """The paths of a plugin in a set are relative to its folder."""
    (site.parent / "plugins").mkdir()
    (site / "p.toml").rename(site / "manifest.toml")
    (site / "p.json").unlink()
    site.rename(site.parent / "plugins" / "site")
    (site.parent / "plugins" / "data").mkdir()
    granted = ["plugins/site/data", "ro:plugins/data"]
    with PluginSet(directories=["plugins"], wasi=True, allowed_paths=granted) as plugins:
        assert plugins.call("site", "cat", "/data/note") == b"of the file"
    with PluginSet(directories=["plugins"], wasi=True, allowed_paths=["data"]) as plugins:
        (description,) = plugins.describe()
        assert description.error is not None
        assert "plugins/site/data, which the application grants to no plugin" in description.error


def test_one_directory_in_two_spellings(site: Path) -> None:
    """Two spellings of one directory are an error."""
    with pytest.raises(ManifestError, match="twice, in two spellings"):
        Plugin(
            {
                "wasm": [{"path": "m.wasm"}],
                "allowed_paths": {"data": "/a", str(site.parent / "data"): "/b"},
            },
            wasi=True,
        )


# All of a manifest is checked when the plugin is made


HOSTS = {
    "https://example.com": "example.com",
    "https://user@example.com:8443/path": "example.com",
    "http://*.example.com": "*.example.com",
    "localhost:8080": "localhost",
    "localhost:*": "localhost",
    "example.com/path": "example.com",
    "[::1]:80": "[::1]",
}


@pytest.mark.parametrize("host", HOSTS)
def test_invalid_host_found_at_creation(host: str) -> None:
    """An invalid host is found when the manifest is created, and the error says what to write."""
    document = {"wasm": [{"data": WAT}], "allowed_hosts": ["fine.example", host]}
    for make in (
        *MAKERS.values(),
        Manifest.parse,
        lambda given: Manifest(wasm=[], allowed_hosts=given["allowed_hosts"]),
    ):
        with pytest.raises(ManifestError) as caught:
            make(document)
        assert caught.value.field == "allowed_hosts[1]"
        assert str(caught.value).startswith(
            "manifest field `allowed_hosts[1]`: expected the name of a host or a pattern; "
        )
        assert str(caught.value).endswith(f'; write "{HOSTS[host]}"')
    Plugin({"wasm": [{"data": WAT}], "allowed_hosts": [HOSTS[host]]}).close()


@pytest.mark.parametrize(
    "host",
    ["", "a b", "exa$mple", "1.2.3", "a..b", "*" * 254, "a" * 64 + ".example", "[::g]", ".", "a\0"],
)
def test_invalid_host_without_guess(host: str) -> None:
    """A value that cannot be a host is refused without a suggestion."""
    with pytest.raises(ManifestError, match=r"allowed_hosts\[0\]") as caught:
        Manifest.parse({"wasm": [{"data": WAT}], "allowed_hosts": [host]})
    assert "; write" not in str(caught.value)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "*",
        "*.example.com",
        "EXAMPLE.com.",
        "::1",
        "[::1]",
        "10.0.0.1",
        "a_b",
        "?.example",
    ],
)
def test_host_forms(host: str) -> None:
    """Every form of a host is accepted."""
    Manifest.parse({"wasm": [{"data": WAT}], "allowed_hosts": [host]})


def test_host_password_is_not_shown() -> None:
    """A password in an invalid host is not shown."""
    with pytest.raises(ManifestError) as caught:
        Manifest.parse(
            {
                "wasm": [{"data": WAT}],
                "allowed_hosts": [f"https://user:{SECRET}@example.com/?{SECRET}"],
            }
        )
    assert SECRET not in str(caught.value)
    assert str(caught.value).endswith(
        '"https://example.com/?…" is a URL; expected its host alone; write "example.com"'
    )


def test_harness_reports_invalid_host() -> None:
    """A harness reports an invalid host at once."""
    with pytest.raises(plugwasm.OptionError, match="is a URL"):
        Harness(WAT, allowed_hosts=["https://example.com"])


@pytest.mark.parametrize("maker", ["Plugin", "CompiledPlugin", "IsolatedPlugin", "PluginPool"])
@pytest.mark.parametrize("wasi", [True, False])
def test_missing_directory_is_error(maker: str, wasi: bool, tmp_path: Path) -> None:
    """A missing directory is a manifest error."""
    (tmp_path / "file").write_text("")
    makers: dict[str, Any] = {
        name: getattr(plugwasm, name)
        for name in ("Plugin", "CompiledPlugin", "IsolatedPlugin", "PluginPool")
    }
    for path in (tmp_path / "none", tmp_path / "file"):
        for prefix in ("", "ro:"):
            with pytest.raises(ManifestError, match=r"allowed_paths.*(none|file)") as caught:
                makers[maker](
                    {"wasm": [{"data": WAT}], "allowed_paths": {f"{prefix}{path}": "/x"}}, wasi=wasi
                )
            assert caught.value.field == "allowed_paths"


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        (
            {"allowed_paths": {"ro:": "/x"}},
            'allowed_paths["ro:"]',
            "expected a directory of the host, got an empty path",
        ),
        ({"allowed_paths": {"": "/x"}}, 'allowed_paths[""]', "got an empty path"),
        ({"allowed_paths": {"/a\0": "/x"}}, 'allowed_paths["/a\\x00"]', "zero byte"),
        ({"allowed_paths": {"/a": "/x\0"}}, 'allowed_paths["/a"]', "zero byte"),
        (
            {"allowed_paths": {"/a": "/x", "/b": "/x"}},
            'allowed_paths["/b"]',
            'got "/x", which "/a" has already',
        ),
        ({"wasm": []}, "wasm", "at least one module"),
        (
            {"wasm": [{"data": WAT, "name": "a"}, {"data": WAT, "name": "a"}]},
            "wasm[1].name",
            "the name of wasm[0]",
        ),
        ({"wasm": [{"url": "ftp://h/m"}]}, "wasm[0].url", "http:// or https://"),
        ({"wasm": [{"data": WAT, "hash": "00"}]}, "wasm[0].hash", "64 hexadecimal digits"),
        ({"timeout_ms": -1}, "timeout_ms", "from 0"),
        ({"memory": {"max_pages": 65537}}, "memory.max_pages", "65536"),
        ({"config": {"a": 1}}, 'config["a"]', "expected a string"),
    ],
)
def test_checks_come_before_reading(fields: dict[str, Any], field: str, said: str) -> None:
    """Everything that can be checked is checked before anything is read."""
    document = {"wasm": [{"path": "/not/there.wasm"}], **fields}
    for maker in ("Plugin", "PluginRef", "PluginSet", "Harness"):
        with pytest.raises(ManifestError) as caught:
            MAKERS[maker](document)
        assert caught.value.field == field
        assert said in str(caught.value)


# Mistakes, and what to write instead


@pytest.mark.parametrize(
    ("plugin", "error", "said"),
    [
        (
            {"wasm": ["echo.wasm"]},
            ManifestError,
            '`wasm[0]`: expected an object, got a string; write {"path": "echo.wasm"}',
        ),
        (
            '{"wasm": ["echo.wasm"]}',
            ManifestError,
            '`wasm[0]`: expected an object, got a string; write {"path": "echo.wasm"}',
        ),
        ({"wasm": [Path("echo.wasm")]}, ManifestError, 'got a path; write {"path": "echo.wasm"}'),
        ({"wasm": ["https://h/m?key=k"]}, ManifestError, 'write {"url": "https://h/m?…"}'),
        ({"wasm": [WAT]}, ManifestError, 'got bytes; write {"data": …}'),
        (
            {"wasm": "echo.wasm"},
            ManifestError,
            '`wasm`: expected a list, got a string; write [{"path": "echo.wasm"}]',
        ),
        ({"wasm": WAT}, ManifestError, 'write [{"data": …}]'),
        (
            {"wasm": {"path": "echo.wasm"}},
            ManifestError,
            "`wasm`: expected a list, got an object; write [{…}]",
        ),
        (
            {"wasm": [{"data": WAT}], "config": {1: "x"}},
            ManifestError,
            'keys that are strings, got an integer as a key; write "1"',
        ),
        (
            b"",
            SourceError,
            "the bytes given are empty; expected those of a Wasm module, such as `Path('plugin.wasm').read_bytes()`",
        ),
        (
            None,
            ManifestError,
            "expected a manifest (a mapping, a Manifest, JSON or TOML), a path, a URL or a Wasm module; got None; pass such as 'plugin.wasm', or {\"wasm\":",
        ),
        (
            [WAT],
            ManifestError,
            'got a list; a manifest with several modules is {"wasm": [{"path": "a.wasm"}, ',
        ),
        (Plugin, ManifestError, "got a class; pass such as 'plugin.wasm'"),
        (
            {"wasm": [{"path": ""}]},
            ManifestError,
            "manifest field `wasm[0].path`: expected the path of a file, got an empty string",
        ),
        (
            {"wasm": [{"path": "a\0b"}]},
            ManifestError,
            "manifest field `wasm[0].path`: expected the path of a file, got one with a zero byte",
        ),
        ({"wasm": None}, ManifestError, "manifest field `wasm`: expected a list, got null"),
        (
            "wasm: plugin\npath: x",
            ManifestError,
            'a manifest is such as {"wasm": [{"path": "plugin.wasm"}]}',
        ),
        ("{}", ManifestError, "manifest field `wasm`: it is missing, and says what to run"),
    ],
)
def test_mistakes_are_explained(plugin: Any, error: type[Exception], said: str) -> None:
    """The error for a mistake says what to write."""
    for maker in ("Plugin", "PluginRef", "Harness"):
        with pytest.raises(error) as caught:
            MAKERS[maker](plugin)
        assert said in str(caught.value)


def test_file_object_is_refused() -> None:
    """A file object is no plugin, but its content can be."""
    with (
        open(FILES, "rb") as file,
        pytest.raises(
            ManifestError, match=r"got BufferedReader; pass what its `read\(\)` gives, or the path"
        ),
    ):
        Plugin(file)  # type: ignore[arg-type]


def test_invalid_files_are_explained(tmp_path: Path) -> None:
    """The error for an invalid file says what to pass."""
    (tmp_path / "empty.wasm").write_bytes(b"")
    project = tmp_path / "greet"
    project.mkdir()
    (project / "plugin.wasm").write_bytes(WAT)
    (tmp_path / "count_vowels.wasm").write_bytes(WAT)
    for path, said in (
        (tmp_path / "empty.wasm", "it is empty; expected a Wasm module or a manifest"),
        (tmp_path, "it is a directory; give the module in it, or the directory to a PluginSet"),
        (
            project,
            f"it is a directory; give the module, {project}/plugin.wasm, or the directory to",
        ),
        (tmp_path / "count_vowel.wasm", f"did you mean {tmp_path}/count_vowels.wasm?"),
        (tmp_path / "count_vowels", f"did you mean {tmp_path}/count_vowels.wasm?"),
        (tmp_path / "other.wasm", "current directory: "),
    ):
        for plugin in (path, str(path)):
            with pytest.raises(SourceError) as caught:
                Plugin(plugin)
            assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[plugin]\ntitel = 'x'",
            "plugin.toml: field `plugin.titel`: unknown field; did you mean `title`?",
        ),
        (
            "[plugins]\ntitle = 'x'",
            "plugin.toml: field `plugins`: unknown field; did you mean `plugin`?",
        ),
        ("title = 'x'", "plugin.toml: field `title`: it belongs to the table [plugin]"),
        ("wasm = []", "plugin.toml: field `wasm`: it belongs to the table [manifest]"),
        (
            "[plugin]\norder = 'first'",
            "plugin.toml: field `plugin.order`: expected an integer, got a string",
        ),
        ("[plugin]\nhomepage = 'x'", "plugin.toml: field `plugin.homepage`: expected an address"),
        ("[plugin", "plugin.toml: the text is not valid TOML, nor JSON, which begins with `{`: "),
        (
            "[manifest]\nwasn = []",
            "plugin.toml: manifest field `wasn`: unknown field; did you mean `wasm`?",
        ),
    ],
)
def test_description_error_is_told_apart(text: str, said: str, tmp_path: Path) -> None:
    """An error in a plugin's metadata is not called a manifest error."""
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "plugin.toml").write_text(text)
    (tmp_path / "x" / "plugin.wasm").write_bytes(WAT)
    with PluginSet.from_directory(tmp_path) as plugins:
        (description,) = plugins.describe()
    assert description.error is not None
    assert said in description.error


@pytest.mark.parametrize("name", ["plugin.c", "lib.RS", "main.go"])
def test_source_code_is_no_plugin(name: str, tmp_path: Path) -> None:
    """The source of a plugin, given as a plugin, is recognized by the file's name."""
    (tmp_path / name).write_text("int x;")
    with pytest.raises(ModuleError, match="is not a Wasm module, but source code: build it"):
        Plugin(tmp_path / name)


@pytest.mark.parametrize("table", ["plugin", "build", "test"])
def test_project_file_is_no_manifest(table: str, tmp_path: Path) -> None:
    """A `plugin.toml` given as a manifest is recognized as the file of a project."""
    file = tmp_path / "plugin.toml"
    file.write_text(f"[{table}]\nname = 'x'")
    with pytest.raises(ManifestError, match="the file of a project, not a manifest; name the mod"):
        Plugin(file)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ": the path is empty"),
        ("hello world", "it would begin with `{`"),
        ("allowed_hosts = []", "it would begin with `{`"),
    ],
)
def test_text_neither_path_nor_manifest(text: str, said: str) -> None:
    """The error for text that is neither a path nor a manifest shows an example of one."""
    with pytest.raises(SourceError) as caught:
        Plugin(text)
    assert said in str(caught.value)


# A stranger's manifest under the application's policy: `test_policy`


def test_egress_does_not_imply_manifest(server: Server) -> None:
    """Passing an egress does not make bytes a manifest."""
    with pytest.raises(ModuleError):
        Plugin(
            json.dumps({"wasm": [{"url": server.url}]}).encode(),
            egress=Egress(allowed_hosts=["127.0.0.1"]),
        )


def test_directories_need_distinct_names(tmp_path: Path) -> None:
    """Two directories cannot have the same guest path."""
    for name in ("a", "b"):
        os.mkdir(tmp_path / name)
    grants = {str(tmp_path / "a"): "/d", str(tmp_path / "b"): "/d"}
    with pytest.raises(
        ManifestError, match=r'expected another path, got "/d", which ".*/a" has already'
    ):
        CompiledPlugin({"wasm": [{"data": b"(module)"}], "allowed_paths": grants}, wasi=True)
