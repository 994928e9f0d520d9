"""A stranger's manifest under the application's policy gets only what the policy allows,
whatever it asks for."""

from __future__ import annotations

import base64
import json
import pickle
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import plugwasm
from plugwasm import (
    CompiledPlugin,
    Egress,
    HashMismatchError,
    IsolatedPlugin,
    Limits,
    Manifest,
    ManifestError,
    ManifestPolicy,
    OptionError,
    Plugin,
    PluginPool,
    PluginRef,
    PluginSet,
    SourceError,
    TimeoutError,
)
from plugwasm.testing import Harness
from tests.support.guests import export, guest
from tests.support.http_server import Server, reply
from tests.support.paths import EXAMPLES

FILES = EXAMPLES / "wasi_files.wasm"
WAT = b"(module)"
DATA = base64.b64encode(WAT).decode()
SPIN = guest(export("spin", "(loop $l (br $l))"))
FETCH = guest(export("fetch", "(drop (call $http_request (call $copy) (i64.const 0)))"))
SECRET = "canary-31b8"


@pytest.fixture(name="server")
def _server() -> Iterator[Server]:
    with Server({"*": reply(WAT)}) as server:
        yield server


def check_refused(policy: ManifestPolicy, field: str, said: str, **fields: Any) -> ManifestError:
    document = {"wasm": [{"data": DATA}], **fields}
    for form in (
        document,
        json.dumps(document),
        json.dumps(document).encode(),
        Manifest.parse(document),
    ):
        with pytest.raises(ManifestError) as caught:
            policy.admit(form)
        assert (caught.value.field, said in str(caught.value)) == (field, True), str(caught.value)
    return caught.value


def test_nothing_granted_by_default(tmp_path: Path, server: Server) -> None:
    """By default, a policy allows nothing."""
    policy = ManifestPolicy()
    (tmp_path / "m.wasm").write_bytes(WAT)
    check_refused(
        policy,
        "wasm[0].path",
        "which is in no directory that the application grants",
        wasm=[{"path": str(tmp_path / "m.wasm")}],
    )
    check_refused(
        policy,
        "wasm[0].path",
        "which is in no directory that the application grants",
        wasm=[{"path": "/etc/passwd"}],
    )
    check_refused(policy, "wasm[0].url", "it asks for a download", wasm=[{"url": server.url}])
    check_refused(
        policy,
        "wasm",
        "it has 2 modules, more than the 1 that it may",
        wasm=[{"data": DATA}, {"data": DATA, "name": "x"}],
    )
    check_refused(
        policy,
        "allowed_paths",
        "which the application grants to no plugin",
        allowed_paths={"/etc": "/etc"},
    )
    check_refused(
        policy, 'config["key"]', "the application lets no manifest set it", config={"key": SECRET}
    )
    assert server.requests == []
    admitted = policy.admit(
        {
            "wasm": [{"data": DATA}],
            "allowed_hosts": ["127.0.0.1"],
            "timeout_ms": None,
            "memory": {"max_pages": None},
        }
    )
    with Plugin(admitted) as plugin:
        assert plugin.compiled_plugin.limits == Limits()
        assert plugin.compiled_plugin._spec.allowed_hosts == ()


def test_refusal_hides_files_and_config(tmp_path: Path) -> None:
    """A refusal reveals nothing about files or config."""
    policy = ManifestPolicy(module_paths=[tmp_path / "modules"])
    (tmp_path / "modules").mkdir()
    (tmp_path / "there").write_text(SECRET)
    messages = {
        str(
            check_refused(policy, "wasm[0].path", "", wasm=[{"path": str(tmp_path / name)}])
        ).replace(name, "…")
        for name in ("there", "not_there")
    }
    assert len(messages) == 1
    (tmp_path / "modules" / "txtfile").write_text(SECRET)
    masked = set()
    for name in ("txtfile", "missing"):
        with pytest.raises(SourceError) as caught:
            policy.admit({"wasm": [{"path": str(tmp_path / "modules" / name)}]})
        assert SECRET not in str(caught.value)
        masked.add(str(caught.value).replace(name, "…"))
    assert len(masked) == 1
    assert SECRET not in str(check_refused(policy, 'config["key"]', "", config={"key": SECRET}))


def test_modules_from_granted_directories(tmp_path: Path) -> None:
    """Modules come from the allowed directories, whatever the path looks like."""
    modules = tmp_path / "modules"
    (modules / "sub").mkdir(parents=True)
    (tmp_path / "modules-not").mkdir()
    for place in (
        modules / "m.wasm",
        modules / "sub" / "m.wasm",
        tmp_path / "outside.wasm",
        tmp_path / "modules-not" / "m.wasm",
    ):
        place.write_bytes(b"\0asm\1\0\0\0")
    (modules / "out").symlink_to(tmp_path / "outside.wasm")
    (modules / "up").symlink_to(tmp_path)
    (tmp_path / "in").symlink_to(modules)
    policy = ManifestPolicy(module_paths=[tmp_path / "in"])
    for path in (
        "m.wasm",
        "sub/m.wasm",
        "sub/../m.wasm",
        str(modules / "m.wasm"),
        str(tmp_path / "in" / "m.wasm"),
    ):
        Plugin(policy.admit({"wasm": [{"path": path}]}, base=modules)).close()
    for path in (
        "../outside.wasm",
        "out",
        "up/outside.wasm",
        "../modules-not/m.wasm",
        "..",
        ".",
        "/",
        "sub/../../outside.wasm",
    ):
        with pytest.raises(ManifestError, match="which is in no directory"):
            policy.admit({"wasm": [{"path": path}]}, base=modules)


def test_downloads_by_own_egress(server: Server) -> None:
    """Downloads are limited by the policy's egress for downloads."""
    granting = ManifestPolicy(downloads=Egress(allowed_hosts=["127.0.0.1"]))
    Plugin(granting.admit({"wasm": [{"url": server.url}]})).close()
    seen = len(server.requests)
    for policy in (
        ManifestPolicy(downloads=Egress(allowed_hosts=["registry.example"])),
        ManifestPolicy(downloads=Egress(allowed_hosts=["*"])),
        ManifestPolicy(
            downloads=Egress(allowed_hosts=[]), egress=Egress(allowed_hosts=["127.0.0.1"])
        ),
    ):
        with pytest.raises(SourceError, match=r"not granted|not public|refused|grants no host"):
            policy.admit({"wasm": [{"url": server.url}]})
    assert len(server.requests) == seen
    with pytest.raises(OptionError, match="downloads: expected an Egress with `allowed_hosts`"):
        ManifestPolicy(downloads=Egress())


def test_a_hash_holds_under_a_policy() -> None:
    with pytest.raises(HashMismatchError):
        ManifestPolicy().admit({"wasm": [{"data": DATA, "hash": "0" * 64}]})


RUNNERS: dict[str, Callable[..., Any]] = {
    "Plugin": lambda plugin, **options: Plugin(plugin, **options),
    "compiled": lambda plugin, **options: Plugin(CompiledPlugin(plugin, **options)),
    "IsolatedPlugin": lambda plugin, **options: IsolatedPlugin(plugin, **options),
    "PluginPool": lambda plugin, **options: PluginPool(plugin, size=1, **options),
    "PluginRef": lambda plugin, **options: pickle.loads(
        pickle.dumps(PluginRef(plugin, **options))
    ).plugin(),
}


@pytest.mark.parametrize("runner", RUNNERS)
def test_limits_hosts_and_directories_hold(runner: str, tmp_path: Path, server: Server) -> None:
    """Limits, hosts and directories apply wherever the manifest runs."""
    run = RUNNERS[runner]
    policy = ManifestPolicy(limits=Limits(timeout=0.3))
    with (
        run(
            policy.admit(
                {"wasm": [{"data": base64.b64encode(SPIN.encode()).decode()}], "timeout_ms": 60_000}
            )
        ) as plugin,
        pytest.raises(TimeoutError),
    ):
        plugin.call("spin")

    fetching = {
        "wasm": [{"data": base64.b64encode(FETCH.encode()).decode()}],
        "allowed_hosts": ["127.0.0.1"],
    }
    request = json.dumps({"url": server.url})
    for egress in (
        None,
        Egress(),
        Egress(allowed_hosts=["*"]),
        Egress(allowed_hosts=["other.example"]),
    ):
        with (
            run(ManifestPolicy(egress=egress).admit(fetching)) as plugin,
            pytest.raises(plugwasm.Error),
        ):
            plugin.call("fetch", request)
    assert server.requests == []
    with run(ManifestPolicy(egress=Egress(allowed_hosts=["127.0.0.1"])).admit(fetching)) as plugin:
        plugin.call("fetch", request)
    assert len(server.requests) == 1

    (tmp_path / "note").write_text("read me")
    asking = {
        "wasm": [{"data": base64.b64encode(FILES.read_bytes()).decode()}],
        "allowed_paths": {str(tmp_path): "/data"},
    }
    policy = ManifestPolicy(allowed_paths=[f"ro:{tmp_path}"])
    with run(policy.admit(asking), wasi=True) as plugin:
        assert plugin.call("cat", "/data/note") == b"read me"
        with pytest.raises(plugwasm.Error):
            plugin.call("write", "/data/new\ntext")
    assert not (tmp_path / "new").exists()


def test_directory_is_same_by_any_path(tmp_path: Path) -> None:
    """A directory is recognised by whatever path it is requested."""
    (tmp_path / "data" / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "data")
    policy = ManifestPolicy(allowed_paths=[tmp_path / "data"])
    for path in ("data", "./data", "link", "data/inner/..", str(tmp_path / "data")):
        admitted = policy.admit(
            {"wasm": [{"data": DATA}], "allowed_paths": {f"ro:{path}": "/d"}}, base=tmp_path
        )
        assert admitted.allowed_paths == {f"ro:{tmp_path}/data": "/d"}
    for path in ("data/inner", "..", ".", "data/.."):
        with pytest.raises(ManifestError, match="grants to no plugin"):
            policy.admit({"wasm": [{"data": DATA}], "allowed_paths": {path: "/d"}}, base=tmp_path)
    with pytest.raises(ManifestError, match="twice"):
        policy.admit(
            {"wasm": [{"data": DATA}], "allowed_paths": {"data": "/a", "link": "/b"}}, base=tmp_path
        )


def test_config_keys() -> None:
    """A manifest can set only the config keys that the policy allows."""
    document = {"wasm": [{"data": DATA}], "config": {"tone": "warm"}}
    with Plugin(ManifestPolicy(config=["tone"]).admit(document)) as plugin:
        assert plugin.config == {"tone": "warm"}
    with Plugin(ManifestPolicy(config=None).admit(document), config={"tone": "cold"}) as plugin:
        assert plugin.config == {"tone": "cold"}
    check_refused(
        ManifestPolicy(config=["other"]),
        'config["tone"]',
        "lets no manifest set it",
        config={"tone": "warm"},
    )


def test_manifest_within_policy_is_admitted() -> None:
    """`Manifest.within` returns what the policy admits."""
    admitted = Manifest.parse({"wasm": [{"data": DATA}], "timeout_ms": 5}).within(ManifestPolicy())
    with Plugin(admitted) as plugin:
        assert plugin.compiled_plugin.limits.timeout == 0.005
    with pytest.raises(ManifestError, match="download"):
        Manifest.parse({"wasm": [{"url": "http://127.0.0.1/"}]}).within(ManifestPolicy())


@pytest.mark.parametrize("option", [{"limits": Limits()}, {"egress": Egress()}])
def test_limits_and_egress_given_once(option: dict[str, Any]) -> None:
    """Limits and egress can be given only once."""
    admitted = ManifestPolicy().admit({"wasm": [{"data": DATA}]})
    for make in (Plugin, CompiledPlugin, IsolatedPlugin, PluginPool, PluginRef, Harness):
        with pytest.raises(OptionError, match="ManifestPolicy has admitted has its own"):
            make(admitted, **option)


def test_set_runs_admitted_manifest(server: Server) -> None:
    """A set runs what its policy admitted."""
    spinning = {"wasm": [{"data": base64.b64encode(SPIN.encode()).decode()}]}
    fetching = {
        "wasm": [{"data": base64.b64encode(FETCH.encode()).decode()}],
        "allowed_hosts": ["127.0.0.1"],
    }
    policy = ManifestPolicy(limits=Limits(timeout=0.2))
    given = {"spinning": policy.admit(spinning), "fetching": policy.admit(fetching)}
    for isolated in (False, True):
        with PluginSet(
            given, egress=Egress(allowed_hosts=["127.0.0.1"]), isolated=isolated
        ) as plugins:
            timeouts = {plugin.name: plugin.grants.timeout for plugin in plugins.describe()}
            assert timeouts == {"spinning": 0.2, "fetching": 0.2}
            start = time.monotonic()
            with pytest.raises(TimeoutError):
                plugins.call("spinning", "spin")
            assert time.monotonic() - start < 20
            with pytest.raises(plugwasm.Error):
                plugins.call("fetching", "fetch", json.dumps({"url": server.url}))
    assert server.requests == []


def test_harness_takes_admitted_manifest() -> None:
    """A harness accepts an admitted manifest."""
    with (
        Harness(
            ManifestPolicy(limits=Limits(timeout=0.2)).admit(
                {"wasm": [{"data": base64.b64encode(SPIN.encode()).decode()}]}
            )
        ).plugin() as plugin,
        pytest.raises(plugwasm.Error),
    ):
        plugin.call("spin")


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"modules": 0}, "modules: expected a number from 1 to 256, got 0"),
        ({"modules": True}, "modules: expected"),
        ({"modules": "2"}, "modules: expected"),
        ({"module_paths": "/srv"}, "module_paths: expected a list of directories, got str"),
        (
            {"allowed_paths": Path("/srv")},
            "allowed_paths: expected a list of directories, got PosixPath",
        ),
        (
            {"allowed_paths": [1]},
            "allowed_paths: expected a list of directories, got other things in it",
        ),
        ({"allowed_paths": ["a\0"]}, "allowed_paths: a\\x00 cannot be the name of a directory"),
        ({"allowed_paths": 5}, "allowed_paths: expected a list of directories, got int"),
        ({"config": "key"}, "config: expected a list of keys, got str"),
        ({"limits": 5}, "limits: expected Limits, got int"),
        ({"egress": "example.com"}, "egress: expected an Egress, got str"),
        ({"downloads": True}, "downloads: expected an Egress, got bool"),
    ],
)
def test_invalid_option_is_named(option: dict[str, Any], said: str) -> None:
    """The error for an invalid option names it."""
    with pytest.raises(OptionError) as caught:
        ManifestPolicy(**option)
    assert said in str(caught.value)


def test_policy_is_frozen_and_pickles() -> None:
    """A policy is immutable and can be pickled."""
    policy = ManifestPolicy(
        modules=3, config=["a"], allowed_paths=["ro:/srv"], limits=Limits(timeout=1)
    )
    with pytest.raises(AttributeError, match="make another"):
        policy.modules = 4
    copy = pickle.loads(pickle.dumps(policy))
    assert (copy.modules, copy.config, copy.allowed_paths, copy.limits) == (
        3,
        {"a"},
        ("ro:/srv",),
        Limits(timeout=1),
    )
    assert repr(copy) == repr(policy)
