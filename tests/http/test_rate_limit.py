"""How many requests may run at once and start per second, over all plugins that share an
`Egress`."""

from __future__ import annotations

import gc
import pickle
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable

import pytest

from plugwasm._http import rate_limit
from plugwasm._http.client import HttpClient
from plugwasm._http.egress import Egress
from plugwasm._http.rate_limit import shared_limiter
from plugwasm._http.request_owner import RequestOwner
from plugwasm._http.transport import EgressRequest, EgressResponse
from plugwasm.errors import CancelledError, EgressError, OptionError, TimeoutError
from tests.support.egress import client_for, deadline, no_deadline, send
from tests.support.paths import ROOT
from tests.support.threads import InThread
from tests.support.waiting import soon


class Held:
    """A transport whose requests wait until the test releases them."""

    def __init__(self, status: int = 200, location: str = "") -> None:
        self.go = threading.Event()
        self.arrived: list[float] = []
        self.now = self.most = 0
        self._lock = threading.Lock()
        self._status = status
        self._headers = {"location": location} if location else {}

    def send(self, request: EgressRequest) -> EgressResponse:
        with self._lock:
            self.arrived.append(time.monotonic())
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            assert self.go.wait(30)
            if "/fail" in request.path:
                raise OSError("no")
        finally:
            with self._lock:
                self.now -= 1
        return EgressResponse(self._status, self._headers)


def get(
    egress: Egress | HttpClient,
    remaining: Callable[[], float | None] = no_deadline,
    path: str = "/",
) -> int:
    return send(egress, "GET", "http://plugin.test" + path, {}, None, remaining).status


def egress(transport: Held, **settings: int) -> Egress:
    return Egress(allowed_hosts=["plugin.test"], transport=transport, resolve=False, **settings)  # type: ignore[arg-type]


def test_concurrency_limit() -> None:
    """No more requests than the limit run at once, and all get their turn."""
    held = Held()
    shared = egress(held, max_concurrent=3)
    mine, yours = client_for(shared, "plugin.test"), client_for(shared, "*")
    requests = [InThread(get, (mine, yours)[index % 2]) for index in range(10)]
    assert soon(lambda: held.now == 3)
    time.sleep(0.1)
    assert held.now == 3
    held.go.set()
    assert [request.result() for request in requests] == [200] * 10
    assert held.most == 3


def test_wait_ends_at_deadline() -> None:
    """A request waits for its turn no longer than its deadline."""
    held = Held()
    shared = egress(held, max_concurrent=1)
    first = InThread(get, shared)
    assert soon(lambda: held.now == 1)
    with pytest.raises(TimeoutError):
        get(shared, deadline(0.1))

    def cancelled() -> None:
        raise CancelledError("cancelled")

    with pytest.raises(CancelledError):
        get(shared, cancelled)
    held.go.set()
    assert first.result() == 200
    assert get(shared, deadline(30)) == 200, "those who gave up left the queue"


def test_wait_ends_without_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a deadline, the wait has a default timeout."""
    monkeypatch.setattr(rate_limit, "_QUEUE_SECONDS", 0.1)
    held = Held()
    shared = egress(held, max_concurrent=1)
    first = InThread(get, shared)
    assert soon(lambda: held.now == 1)
    with pytest.raises(
        EgressError, match="waited 0 s for its turn: the application allows 1 at once"
    ):
        get(shared)
    held.go.set()
    assert first.result() == 200


def test_failed_request_frees_place() -> None:
    """A request that fails frees its place."""
    held = Held()
    held.go.set()
    shared = egress(held, max_concurrent=1)
    for _ in range(3):
        with pytest.raises(EgressError):
            get(shared, deadline(30), "/fail")
    assert get(shared, deadline(30)) == 200


def test_interrupt_frees_place() -> None:
    """A KeyboardInterrupt frees the request's place."""

    class Interrupted(Held):
        def send(self, request: EgressRequest) -> EgressResponse:
            if "/stop" in request.path:
                raise KeyboardInterrupt
            return EgressResponse(200)

    shared = egress(Interrupted(), max_concurrent=1)
    with pytest.raises(KeyboardInterrupt):
        get(shared, path="/stop")
    assert get(shared, deadline(30)) == 200


def test_first_come_first_served() -> None:
    held = Held()
    shared = egress(held, max_concurrent=1)
    order: list[int] = []

    def ask(number: int) -> None:
        get(shared)
        order.append(number)

    requests = []
    for number in range(5):
        requests.append(InThread(ask, number))
        assert soon(
            lambda: len(shared_limiter(shared)._queue().waiting) + held.now == len(requests)
        )
    held.go.set()
    for request in requests:
        request.result()
    assert order == [0, 1, 2, 3, 4]


def test_requests_per_second_limit() -> None:
    """No more requests than the limit start in any second, and redirects count."""
    held = Held(302, "http://plugin.test/again")
    held.go.set()
    shared = egress(held, max_per_second=4, max_redirects=5)
    started = time.monotonic()
    with pytest.raises(EgressError, match="more than 5 redirects"):
        get(shared)
    waited = [arrival - started for arrival in held.arrived]
    assert len(waited) == 6
    assert waited[3] < 0.9, "the first four need not wait"
    assert waited[4] >= 1


def test_wait_for_turn_ends_at_deadline() -> None:
    """A request that would wait too long for its turn ends at its deadline."""
    held = Held()
    held.go.set()
    shared = egress(held, max_per_second=1)
    gave_up = 0
    for _ in range(20):
        try:
            get(shared, deadline(0.01))
        except TimeoutError:
            gave_up += 1
    assert gave_up > 10
    assert len(held.arrived) == 20 - gave_up


def test_pickled_policies_share_limits() -> None:
    """Policies that were pickled together share their limits again."""
    shared = Egress(allowed_hosts=["*"], max_concurrent=1)
    one, two = pickle.loads(pickle.dumps([shared, shared]))
    assert shared_limiter(one) is shared_limiter(two)
    assert shared_limiter(one) is not shared_limiter(shared)
    assert shared_limiter(one).max_concurrent == 1
    mine = HttpClient.for_plugin(one, ["a.test"], 5, RequestOwner).policy
    assert mine.max_response_bytes == 5
    assert mine.check_url("http://a.test/").host == "a.test"
    with pytest.raises(EgressError):
        mine.check_url("http://b.test/")


def test_limiter_lives_with_egress() -> None:
    """A limiter lives as long as its egress.

    Plugins created one after the other share it. Another `Egress` with equal settings has its own.
    """
    shared = Egress(allowed_hosts=["*"], max_concurrent=1)
    first = shared_limiter(shared)
    assert shared_limiter(shared) is first
    assert shared_limiter(shared.replace()) is not first
    seen = weakref.ref(shared)
    del shared
    gc.collect()
    assert seen() is None


@pytest.mark.parametrize("limit", [0, -1, 1.5, "1", True])
@pytest.mark.parametrize("name", ["max_concurrent", "max_per_second"])
def test_invalid_limit_is_refused(name: str, limit: object) -> None:
    """An invalid limit is refused."""
    with pytest.raises(OptionError, match=f"{name}: expected a number of at least 1"):
        Egress(**{name: limit})  # type: ignore[arg-type]


FORK = """
import os, threading, warnings
warnings.simplefilter("ignore")  # newer Pythons warn of forks with threads, which is the point here
from tests.http.test_rate_limit import Held, deadline, egress, get, shared_limiter
held = Held()
shared = egress(held, max_concurrent=1)
thread = threading.Thread(target=get, args=(shared,))
thread.start()
while not held.now: pass
with shared_limiter(shared)._queue().changed:  # at its worst: another thread holds the place, and this one the lock
    child = os.fork()
if child == 0:
    held.go.set()
    os._exit(0 if get(shared, deadline(30)) == 200 and get(shared, deadline(30)) == 200 else 1)
_, status = os.waitpid(child, 0)
held.go.set()
thread.join()
assert status == 0, status
assert get(shared, deadline(30)) == 200
"""


def test_forked_child_has_own_places() -> None:
    """A forked child has its own places."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{FORK}"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
