"""Shares of plugins in what they share for HTTP: threads that look up names, and places in the
queue of an `Egress`. No plugin can take them all."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import plugwasm
from plugwasm import Egress, Plugin
from plugwasm._host import grants
from plugwasm._http import connection, lookups
from plugwasm._http.client import HttpClient
from plugwasm._http.egress import Egress as Policy
from plugwasm._http.rate_limit import shared_limiter
from plugwasm._http.request_owner import RequestOwner
from plugwasm._http.transport import EgressRequest, EgressResponse
from plugwasm.errors import EgressError, SourceError, TimeoutError
from tests.support.egress import client_for, deadline
from tests.support.egress import send as send_to
from tests.support.guests import export, guest, manifest
from tests.support.http_server import Server, reply, silence
from tests.support.threads import InThread
from tests.support.waiting import soon

CLIENT = guest(export("send", "(call $give (call $http_request (call $copy) (i64.const 0)))"))
OTHER_CLIENT = CLIENT + " ;; of another author"


def client(
    *hosts: str, module: str = CLIENT, egress: Egress | None = None, **fields: Any
) -> Plugin:
    return Plugin(manifest(module, allowed_hosts=list(hosts), **fields), egress=egress)


def send(plugin: Plugin, url: str) -> bytes:
    return plugin.call("send", json.dumps({"url": url}))


class Resolver:
    """A resolver for which names that end with `.hang` never resolve, and others are the test
    server's."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.hanging = 0
        self.most = 0
        self._lock = threading.Lock()

    def __call__(self, host: str, port: int) -> list[str]:
        if host.endswith(".hang"):
            with self._lock:
                self.hanging += 1
                self.most = max(self.most, self.hanging)
            self.released.wait(60)
            with self._lock:
                self.hanging -= 1
            raise socket.gaierror("never told")
        return ["127.0.0.1"]


def no_lookup_lives() -> bool:
    return not any(thread.name == connection._LOOKUP_THREAD for thread in threading.enumerate())


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    assert soon(no_lookup_lives, 30)
    resolver = Resolver()
    monkeypatch.setattr(connection, "look_up", resolver)
    yield resolver
    resolver.released.set()
    assert soon(no_lookup_lives, 30)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server({"/": reply(b"served"), "/slow": silence}) as server:
        yield server


def by_name(server: Server, name: str) -> str:
    return server.url.replace("127.0.0.1", name)


def hang_often(plugin: Plugin, times: int = 70, name: str = "{}.hang") -> None:
    for index in range(times):
        with pytest.raises(TimeoutError):
            send(plugin, f"http://{name.format(index)}/")


# ---- owners


class Silent:
    """A transport that gives no response."""

    def send(self, request: EgressRequest, /) -> EgressResponse:
        raise EgressError("no response")


def test_denial_reads_no_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a request that is sent needs an owner, whose family is a hash of all modules."""
    hashed: list[object] = []
    monkeypatch.setattr(grants, "_hash_spec", lambda spec: hashed.append(spec))
    egress = Egress(transport=Silent(), resolve=False)
    for hosts, expected in ((), 0), (("b.test",), 0), (("a.test",), 1):
        with client(*hosts, egress=egress) as plugin:
            for _ in range(2):
                with pytest.raises(EgressError):
                    send(plugin, "http://a.test/")
        assert len(hashed) == expected


# ---- names


@pytest.mark.parametrize("module", [CLIENT, OTHER_CLIENT], ids=["the same code", "other code"])
def test_lookups_use_share_of_plugin(server: Server, names: Resolver, module: str) -> None:
    """Names that never resolve use up only the share of the plugin that looks them up."""
    everywhere = Egress(allowed_hosts=["*", "127.0.0.1"])
    with (
        client("*", timeout_ms=30) as hostile,
        client("*", "127.0.0.1", module=module, egress=everywhere, timeout_ms=20_000) as other,
    ):
        hang_often(hostile)
        assert names.hanging == lookups.OWN
        assert send(other, by_name(server, "plugin.test")) == b"served"


@pytest.mark.slow
def test_recreated_plugin_keeps_its_share(server: Server, names: Resolver) -> None:
    """A plugin that is created anew for each call does not get a new share each time."""
    for index in range(connection._MAX_LOOKUPS + 10):
        with client("*", timeout_ms=20) as hostile, pytest.raises(TimeoutError):
            send(hostile, f"http://{index}.hang/")
    assert names.hanging == connection._MAX_LOOKUPS // 2
    with client("*", "127.0.0.1", module=OTHER_CLIENT, timeout_ms=20_000) as other:
        assert send(other, by_name(server, "plugin.test")) == b"served"


@pytest.mark.slow
def test_many_plugins_leave_room(server: Server, names: Resolver) -> None:
    """Many hostile plugins leave some lookups to others."""

    def client_of(index: int, **fields: Any) -> Plugin:
        return client("*", "127.0.0.1", module=f"{CLIENT} ;; {index}", **fields)

    for index in range(8):
        with client_of(index, timeout_ms=20) as hostile:
            hang_often(hostile, 20)
    assert names.hanging <= connection._MAX_LOOKUPS // 2 + 8
    for index in range(8, 12):
        with client_of(index, timeout_ms=20_000) as other:
            assert send(other, by_name(server, "plugin.test")) == b"served"


def test_tenants_have_a_share_each(server: Server, names: Resolver) -> None:
    """Tenants of one egress have a share each."""
    shared = Egress(allowed_hosts=["*", "127.0.0.1"], max_concurrent=50)
    with (
        client("*", egress=shared, timeout_ms=30) as hostile,
        client("*", "127.0.0.1", egress=shared, timeout_ms=20_000) as other,
    ):
        hang_often(hostile, 40)
        assert send(other, by_name(server, "plugin.test")) == b"served"


@pytest.mark.slow
def test_lookup_counts_until_thread_ends(server: Server, names: Resolver) -> None:
    """A lookup counts until its thread ends and no longer."""
    with client("*", "127.0.0.1", timeout_ms=200) as plugin:
        hang_often(plugin, lookups.OWN)
        with pytest.raises(TimeoutError):
            send(plugin, by_name(server, "plugin.test"))
        names.released.set()
        assert soon(no_lookup_lives, 30)
        assert lookups._state.under_way == {}
        assert send(plugin, by_name(server, "plugin.test")) == b"served"


def test_waiting_lookup_gets_free_room(server: Server, names: Resolver) -> None:
    """A plugin that waits for a lookup gets one when there is room again."""
    compiled = plugwasm.CompiledPlugin(
        manifest(CLIENT, allowed_hosts=["*", "127.0.0.1"], timeout_ms=30)
    )
    with Plugin(compiled) as hostile:
        hang_often(hostile, lookups.OWN)
    over: list[object] = []

    def ask() -> bytes:
        answer = send_to(
            compiled._grants.http_client,
            "GET",
            by_name(server, "plugin.test"),
            {},
            None,
            lambda: 30.0,
        )
        over.append(answer)
        return answer.body

    waiting = InThread(ask)
    time.sleep(0.2)
    assert not over
    names.released.set()
    assert waiting.result() == b"served"


@pytest.mark.slow
def test_total_lookups_are_limited(names: Resolver) -> None:
    """The total number of lookups is limited, however many owners there are."""
    for index in range(connection._MAX_LOOKUPS + 20):
        policy = Policy(allowed_hosts=["*"])
        with pytest.raises(TimeoutError):
            send_to(policy, "GET", f"http://{index}.hang/", {}, None, deadline(0.02))
    assert names.most == connection._MAX_LOOKUPS


def test_failed_thread_start_is_not_counted(
    names: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lookup whose thread cannot be started does not count."""

    def no_thread(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_thread)
        for _ in range(3):
            with pytest.raises(EgressError):
                send_to(
                    Policy(allowed_hosts=["*"]),
                    "GET",
                    "http://plugin.test/",
                    {},
                    None,
                    lambda: 30.0,
                )
    assert lookups._state.under_way == {}


def test_interrupted_wait_is_not_counted(names: Resolver) -> None:
    """A wait for a lookup that is interrupted does not count."""
    calls = iter([None, None, None, None])

    def remaining() -> float:
        if next(calls, 0) == 0:
            raise KeyboardInterrupt
        return 30.0

    with pytest.raises(KeyboardInterrupt):
        connection.resolve_host(connection.CallClock(remaining), "x.hang", 80, RequestOwner())
    names.released.set()
    assert soon(lambda: lookups._state.under_way == {}, 30)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_child_has_own_lookups() -> None:
    """A forked child has its own lookups.

    It runs in a separate process, whose only other threads are the test's.
    """
    program = """
import os, sys, threading
sys.path.insert(0, sys.argv[1])
from plugwasm._http import lookups, connection as wire
from plugwasm._http.request_owner import RequestOwner
owner = RequestOwner("mine")
taken = [lookups.Lookup(owner) for _ in range(lookups.OWN)]
assert all(lookups.try_start(lookup, 128) for lookup in taken) and not lookups.try_start(lookups.Lookup(owner), 128)
held = threading.Event()
def hold():
    with lookups._state.lock:
        held.set()
        threading.Event().wait(20)
threading.Thread(target=hold, daemon=True).start()
held.wait()
child = os.fork()
if not child:
    os._exit(0 if lookups.try_start(lookups.Lookup(owner), 128) else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    command = [
        sys.executable,
        "-W",
        "ignore::DeprecationWarning",
        "-c",
        program,
        str(Path(plugwasm.__file__).parents[1]),
    ]
    subprocess.run(command, check=True, timeout=60)


def test_module_downloads_leave_few_threads(
    server: Server, names: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Downloads from names that never resolve leave few threads and do not stop other plugins."""
    monkeypatch.setattr("plugwasm._manifest.download.DOWNLOAD_SECONDS", 0.05)
    for _ in range(40):
        with pytest.raises(SourceError, match="longer than"):
            plugwasm.CompiledPlugin({"wasm": [{"url": "http://modules.hang/m.wasm"}]})
    assert names.hanging <= connection._MAX_LOOKUPS // 2
    with client("*", "127.0.0.1", timeout_ms=20_000) as plugin:
        assert send(plugin, by_name(server, "plugin.test")) == b"served"


def test_failed_connections_leave_nothing(names: Resolver) -> None:
    """Failed connection attempts leave nothing behind.

    A listener whose queue is full accepts no connection and refuses none.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
        with client("127.0.0.1", timeout_ms=50) as plugin:
            for _ in range(20):
                with pytest.raises(TimeoutError):
                    send(plugin, url)
        if before:
            assert len(os.listdir("/proc/self/fd")) <= before + 2
        assert no_lookup_lives()
        for filler in fillers:
            filler.close()


# ---- places


class Held:
    """A transport whose requests to `/slow` wait until their deadline."""

    def __init__(self) -> None:
        self.slow = 0
        self.most = 0
        self.served: list[str] = []
        self._lock = threading.Lock()

    def send(self, request: EgressRequest) -> EgressResponse:
        with self._lock:
            self.slow += request.path == "/slow"
            self.most = max(self.most, self.slow)
            self.served.append(request.path)
        try:
            while request.path == "/slow":
                request.remaining()
                time.sleep(0.005)
        finally:
            with self._lock:
                self.slow -= request.path == "/slow"
        return EgressResponse(200, body=b"served")


def hog(stop: threading.Event, plugin_of: Any) -> None:
    with plugin_of() as plugin:
        while not stop.is_set():
            try:
                send(plugin, "http://plugin.test/slow")
            except (TimeoutError, EgressError):
                pass


@pytest.mark.parametrize("module", [CLIENT, OTHER_CLIENT], ids=["the same code", "other code"])
@pytest.mark.parametrize("places", [1, 2, 4])
def test_slow_requests_do_not_block_others(places: int, module: str) -> None:
    """A plugin with any number of slow requests does not block another's turn."""
    held = Held()
    shared = Egress(
        allowed_hosts=["plugin.test"], transport=held, resolve=False, max_concurrent=places
    )
    hostile = plugwasm.CompiledPlugin(
        manifest(CLIENT, allowed_hosts=["*"], timeout_ms=300), egress=shared
    )
    stop = threading.Event()
    hogs = [InThread(hog, stop, lambda: Plugin(hostile)) for _ in range(places + 6)]
    try:
        assert soon(lambda: held.slow == places, 20)
        with client("*", module=module, egress=shared, timeout_ms=20_000) as other:
            for _ in range(3):
                started = time.monotonic()
                assert send(other, "http://plugin.test/") == b"served"
                assert time.monotonic() - started < 5, (
                    "a request of the other plugin takes 0.3 s, and it has ten in the queue"
                )
            if places > 1:
                assert soon(lambda: held.slow == places - 1, 10), (
                    "one place is kept from the other plugin now"
                )
    finally:
        stop.set()
        for thread in hogs:
            thread.result()


def test_single_plugin_has_all_places() -> None:
    """A single plugin can use all places."""
    held = Held()
    shared = Egress(allowed_hosts=["plugin.test"], transport=held, resolve=False, max_concurrent=3)
    compiled = plugwasm.CompiledPlugin(
        manifest(CLIENT, allowed_hosts=["*"], timeout_ms=500), egress=shared
    )
    stop = threading.Event()
    hogs = [InThread(hog, stop, lambda: Plugin(compiled)) for _ in range(5)]
    assert soon(lambda: held.slow == 3, 20)
    stop.set()
    for thread in hogs:
        thread.result()
    assert held.most == 3


@pytest.mark.slow
def test_plugins_take_turns_by_rate() -> None:
    """Plugins take turns also if only the rate is limited."""
    held = Held()
    shared = Egress(allowed_hosts=["plugin.test"], transport=held, resolve=False, max_per_second=5)
    mine, yours = client_for(shared, "*"), client_for(shared, "*")

    def ask(policy: HttpClient, path: str) -> int:
        return send_to(policy, "GET", f"http://plugin.test{path}", {}, None, lambda: 30.0).status

    first = [InThread(ask, mine, "/mine") for _ in range(5)]
    assert all(request.result() == 200 for request in first)
    many = [InThread(ask, mine, "/mine") for _ in range(12)]
    assert soon(lambda: len(shared_limiter(shared)._queue().waiting) == 12)
    assert ask(yours, "/yours") == 200
    assert held.served.index("/yours") <= 6
    assert all(request.result() == 200 for request in many)


def test_who_gave_up_is_in_no_queue() -> None:
    held = Held()
    shared = Egress(allowed_hosts=["plugin.test"], transport=held, resolve=False, max_concurrent=1)
    with (
        client("*", egress=shared, timeout_ms=100) as plugin,
        client("*", egress=shared, timeout_ms=20_000) as other,
    ):
        for _ in range(3):
            with pytest.raises(TimeoutError):
                send(plugin, "http://plugin.test/slow")
        assert send(other, "http://plugin.test/") == b"served"
    queue = shared_limiter(shared)._queue()
    assert (len(queue.waiting), len(queue.under_way), len(queue._queues)) == (0, 0, 0)
