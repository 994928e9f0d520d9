"""The example service, with two tenants that want to harm it, beside one that does not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import httpx
import pytest
from script_service import QuotaExceeded
from script_service.quotas import Meter
from script_service.service import TenantLog

from tests.support.script_service import QUOTA, TYPES, House, problem, serve
from tests.support.scripts import need_engine

need = pytest.fixture(scope="session", autouse=True)(lambda: need_engine())
LOOP = "export const f = () => { for (;;); };"
SAME = "export const f = (value) => value;"


@pytest.fixture
def house() -> Iterator[House]:
    with serve() as house:
        yield house


# ---- who it is


@pytest.mark.parametrize(
    "value",
    ["", "Bearer", "Bearer ", "Bearer wrong", "Basic key of good", "Bearer key of good ", "key of good",
     b"Bearer \xff\xfe", "Bearer " + "x" * 5000],
)  # fmt: skip
def test_without_a_key_there_is_nothing(house: House, value: str | bytes) -> None:
    """Without the exact key, no route says anything, also not whether a script exists."""
    house.put(SAME)
    for method, path in (("GET", "/scripts/s"), ("GET", "/scripts/t"), ("POST", "/scripts/s/f"),
                         ("PUT", "/scripts/s"), ("GET", "/log"), ("GET", "/usage")):  # fmt: skip
        answer = house.send(method, path, headers={"Authorization": value})
        assert problem(answer, 401, "key")["detail"].startswith("send")
        assert answer.headers["www-authenticate"] == "Bearer"


def test_tenants_do_not_see_each_other(house: House) -> None:
    """A name belongs to the tenant of the key: the same name is another script."""
    house.put("export const f = () => 'secret';")
    problem(house.call("f", tenant="bad"), 404, "no-script")
    assert house.send("GET", "/scripts", "bad").json() == []
    problem(house.send("DELETE", "/scripts/s", "bad"), 404, "no-script")
    house.put("export const f = () => 'mine';", "bad")
    assert house.call("f").json() == "secret"


def test_the_same_source_is_not_shared(house: House) -> None:
    """A script with the same text as another tenant's has its own grants only."""
    source = "export const f = () => Config.get('currency');"
    house.put(source)
    house.put(source, "bad")
    assert [house.call("f", tenant=name).json() for name in ("good", "bad")] == ["EUR", None]


# ---- names and bodies


@pytest.mark.parametrize(
    "name",
    ["..", ".", "%2e%2e", "%00", "a%00b", "%C3%BC", "%E2%80%AE", "a.js", "~", "-", "a b", "%0A", "a%0d%0aX: y",
     "x" * 65, "%ff", "a;b", "*"],
)  # fmt: skip
def test_names_that_are_refused(house: House, name: str) -> None:
    """Names are plain ASCII, so none can look like another, leave a folder, or split a line."""
    answer = house.put(SAME, name=name)
    assert answer.status_code in (400, 404, 405), (
        answer.text
    )  # 404, 405: the client has shortened `..`
    assert house.send("GET", "/scripts").json() == []


@pytest.mark.parametrize("path", ["/scripts/..%2f..%2fetc", "/scripts//s", "/scripts/s/", "//scripts", "/scripts/s/f/g",
                                  "/Scripts", "/scripts/../../log", "/%2e%2e/scripts/s"])  # fmt: skip
def test_paths_that_lead_nowhere(house: House, path: str) -> None:
    """A path that is none of the routes is 404 or 405, whatever is encoded in it."""
    answer = house.send("PUT", path, content=SAME, headers={"Content-Type": "text/javascript"})
    assert answer.status_code in (404, 405, 400, 307)
    assert house.send("GET", "/scripts").json() == []


@pytest.mark.parametrize("function", ["größe", "%F0%9F%98%80", "__proto__", "constructor", "memory", "_start",
                                      "_initialize", "x" * 5000, "%00", "call", "load"])  # fmt: skip
def test_functions_that_are_not_there(house: House, function: str) -> None:
    """Only what the script exports can be called, and nothing that its engine has."""
    house.put(SAME)
    told = problem(house.call(function), 404, "no-function")
    assert len(told["detail"]) < 1000


def test_a_function_with_a_unicode_name(house: House) -> None:
    """An export may have any name that the language allows."""
    house.put("export const größe = () => 3;")
    assert house.call("größe").json() == 3


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "application/json", "text/javascript; charset=utf-16", "javascript", "text/javascript,text/x-python",
     "a" * 5000, b"\xff/\xfe", "multipart/form-data; boundary=x"],
)  # fmt: skip
def test_content_types_of_scripts(house: House, content_type: str | bytes) -> None:
    """What is not one of the types is 415, and is not guessed."""
    answer = house.send("PUT", "/scripts/s", content=SAME, headers={"Content-Type": content_type})
    problem(answer, 415, "media-type")


def test_content_types_with_parameters(house: House) -> None:
    """Case, space and `charset=utf-8` do not matter."""
    answer = house.send(
        "PUT",
        "/scripts/s",
        content=SAME,
        headers={"Content-Type": "Text/JavaScript ; charset=UTF-8"},
    )
    assert answer.status_code == 201


def test_arguments_are_json(house: House) -> None:
    """Another type is refused; a body that is no JSON is the script's to refuse, in the sandbox."""
    house.put(SAME)
    form = house.send("POST", "/scripts/s/f", data={"a": "b"})
    problem(form, 415, "media-type")
    for body in (b"", b"{", b"\xff", b"[" * 1999, b"1 2"):
        answer = house.send(
            "POST", "/scripts/s/f", content=body, headers={"Content-Type": "application/json"}
        )
        problem(
            answer,
            422,
            "script-failed" if body != b"[" * 1999 else answer.json()["type"].rpartition(":")[2],
        )


@pytest.mark.parametrize("declared", [True, False])
def test_huge_bodies_are_not_read(house: House, declared: bool) -> None:
    """The service stops reading one chunk after the limit, whatever length the client declares."""
    house.put(SAME)
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 1
            yield b" " * 1000

    for method, path, kind, most in (
        ("POST", "/scripts/s/f", "application/json", QUOTA.input_bytes),
        ("PUT", "/scripts/s", "text/javascript", QUOTA.script_bytes),
    ):
        sent = 0
        headers = {"Content-Type": kind} | ({"Content-Length": "10"} if declared else {})
        answer = house.send(method, path, content=body(), headers=headers)
        assert str(most) in problem(answer, 413, "too-long")["detail"]
        assert sent <= most // 1000 + 1


def test_a_body_that_ends_early(house: House) -> None:
    """A client that goes away in the middle of a body leaves nothing behind."""
    messages = iter(
        [
            {"type": "http.request", "body": b"export", "more_body": True},
            {"type": "http.disconnect"},
        ]
    )
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return next(messages)

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    headers = [(b"authorization", b"Bearer key of good"), (b"content-type", b"text/javascript")]
    scope = {"type": "http", "method": "PUT", "path": "/scripts/s", "raw_path": b"/scripts/s", "headers": headers,
             "query_string": b"", "root_path": "", "scheme": "http", "server": ("service", 80)}  # fmt: skip
    asyncio.run(house.app(scope, receive, send))  # type: ignore[arg-type]
    assert sent[0]["status"] == 400
    assert house.send("GET", "/scripts").json() == []


# ---- scripts that use too much


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("for (;;);", "deadline"),
        ("/(a+)+$/.test('a'.repeat(40) + 'b')", "deadline"),
        ("const list = []; for (;;) list.push(new Uint8Array(1e6))", "script-failed"),
        ("let text = 'x'; for (;;) text += text", "script-failed"),
        ("const f = () => f(); f()", "script-failed"),
        ("return 'x'.repeat(1e6)", "output"),
        ("Host.outputString('no JSON')", "output"),
        ("Host.outputBytes(new Uint8Array([34, 255, 34]).buffer)", "output"),
        ("Host.outputString('['.repeat(2500))", "output"),
    ],
)
def test_calls_that_use_too_much(house: House, code: str, kind: str) -> None:
    """Each is ended by a limit, is a problem of the script, and the next call works."""
    house.put(f"export const f = () => {{ {code} }}; export const ok = () => 1;")
    problem(house.call("f"), 422, kind)
    assert house.call("ok").json() == 1


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("for (;;);", "deadline"),
        ("const list = []; for (;;) list.push(new Uint8Array(1e6));", "invalid-script"),
        ("Http.request({ url: 'http://127.0.0.1/' });", "invalid-script"),
    ],
)
def test_loads_that_use_too_much(house: House, code: str, kind: str) -> None:
    """The same holds while a script is loaded: it is not kept, and the time is charged."""
    problem(house.put(f"{code} export const f = () => 1;", "bad"), 422, kind)
    assert house.send("GET", "/scripts", "bad").json() == []
    if kind == "deadline":
        assert house.send("GET", "/usage", "bad").json()["processor_seconds"] > 0


def test_hosts_that_are_not_granted(house: House) -> None:
    """No request of a hostile tenant leaves, and none of another one to a private address."""
    source = "export const f = (url) => Http.request({ url }).status;"
    for tenant, url in (("bad", "http://127.0.0.1/"), ("good", "http://169.254.169.254/"), ("good", "file:///etc/passwd"),
                        ("good", "http://127.0.0.1:1/")):  # fmt: skip
        house.put(source, tenant)
        problem(house.call("f", url, tenant), 422, "script-ended")


def test_a_script_that_floods_its_log(house: House, capfd: pytest.CaptureFixture[str]) -> None:
    """A tenant's log has a size, is its own, and does not get into the service's."""
    house.put(
        "export const f = () => { for (let i = 0; ; i++) console.error(`${i}\\n`.repeat(2000)); };",
        "bad",
    )
    problem(house.call("f", tenant="bad"), 422, "deadline")
    lines = house.send("GET", "/log", "bad").json()
    assert 0 < len(lines) <= QUOTA.log_lines
    assert max(map(len, lines)) < 1100
    assert house.send("GET", "/log").json() == []
    assert logging.getLogger("plugwasm.plugin.bad").propagate is False
    assert capfd.readouterr().err == ""


def test_names_leave_no_loggers(house: House) -> None:
    """However many names a tenant thinks of, `logging` keeps no more for it."""
    house.put("export const f = () => console.log('x');", "bad", "first")
    house.call("f", None, "bad", "first")
    before = len(logging.Logger.manager.loggerDict)
    for number in range(5):
        house.put("export const f = () => console.log('x');", "bad", f"name{number}")
        house.call("f", None, "bad", f"name{number}")
        house.send("DELETE", f"/scripts/name{number}", "bad")
    assert len(logging.Logger.manager.loggerDict) == before


def test_too_many_scripts(house: House) -> None:
    """A tenant may keep three, also if it sends ten at once; replacing one is always possible."""

    async def main() -> list[httpx.Response]:
        calls = (
            house.request(
                "PUT", f"/scripts/s{n}", "bad", content=SAME, headers={"Content-Type": TYPES["js"]}
            )
            for n in range(10)
        )
        return await asyncio.gather(*calls)

    statuses = {answer.status_code for answer in asyncio.run(main())}
    assert statuses <= {201, 409, 429}
    for n in range(10):
        house.put(SAME, "bad", f"t{n}")
    kept = house.send("GET", "/scripts", "bad").json()
    assert len(kept) == QUOTA.scripts
    problem(house.put(SAME, "bad", "more"), 409, "too-many-scripts")
    assert house.put(SAME, "bad", kept[0]).status_code == 200


# ---- quotas


def test_processor_time_is_limited() -> None:
    """A tenant that has used its share waits, for calls and loads alike; others do not."""
    with serve(bad=replace(QUOTA, seconds_per_minute=0.1)) as house:
        house.put(SAME)
        house.put(LOOP, "bad")
        answer = house.call("f", tenant="bad")
        while answer.status_code != 429:  # its loops get little of a busy processor
            problem(answer, 422, "deadline")
            answer = house.call("f", tenant="bad")
        assert "0.1 s of processor time" in problem(answer, 429, "quota")["detail"]
        assert 1 <= int(answer.headers["retry-after"]) <= 600
        assert problem(house.put(f"{SAME}//", "bad"), 429, "quota")
        assert house.call("f", 1).json() == 1
        assert house.send("GET", "/usage", "bad").json()["refused"] == 2


def test_endless_loops_do_not_delay_others() -> None:
    """While two tenants loop with all calls that they may have, the third loads and calls."""
    slow = replace(QUOTA, deadline=20.0)
    with serve(bad=slow, worse=slow) as house:
        for tenant in ("bad", "worse"):
            house.put(LOOP, tenant)

        async def main() -> None:
            loops = [
                asyncio.create_task(house.request("POST", "/scripts/s/f", tenant, json=0))
                for tenant in ("bad", "worse")
            ]
            loops += [
                asyncio.create_task(
                    house.request(
                        "PUT",
                        "/scripts/t",
                        tenant,
                        content=f"for(;;);{SAME}",
                        headers={"Content-Type": TYPES["js"]},
                    )
                )
                for tenant in ("bad", "worse")
            ]
            while any(
                house.service.authenticate(f"key of {name}").meter.usage.running < 2
                for name in ("bad", "worse")
            ):
                await asyncio.sleep(0.001)
            put = await house.request(
                "PUT", "/scripts/s", content=SAME, headers={"Content-Type": TYPES["js"]}
            )
            assert put.status_code == 201
            answers = [await house.request("POST", "/scripts/s/f", json=n) for n in range(20)]
            assert [answer.json() for answer in answers] == list(range(20))
            refused = await house.request("POST", "/scripts/s/f", "bad", json=0)
            assert "2 calls are under way" in problem(refused, 429, "quota")["detail"]
            assert not any(loop.done() for loop in loops)
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)

        asyncio.run(main())


def test_places_are_given_back(house: House) -> None:
    """However a call ends, its place is free afterwards."""
    house.put("export const f = (n) => { if (n) throw n; for (;;); };", "bad")
    for argument in (0, 1, 1, 0, 1):
        assert house.call("f", argument, "bad").status_code == 422
    for function in ("nothing", "nothing", "nothing"):
        assert house.call(function, tenant="bad").status_code == 404
    problem(house.put("export const f = (;", "bad"), 422, "invalid-script")
    assert house.send("GET", "/usage", "bad").json()["running"] == 0


def test_the_balance_of_a_meter() -> None:
    """Time is charged and comes back at its rate, up to a minute's share, and never beyond."""
    now = 1000.0
    meter = Meter(replace(QUOTA, seconds_per_minute=6.0), clock=lambda: now)
    with meter.admit():
        meter.charge(9.0)
    with pytest.raises(QuotaExceeded) as refused, meter.admit():
        pass
    assert refused.value.retry_after == 31
    now += 30.0
    with pytest.raises(QuotaExceeded) as refused, meter.admit():
        pass
    assert refused.value.retry_after == 1
    now += 1.0
    with meter.admit():
        pass
    now += 100_000.0
    with meter.admit():
        meter.charge(6.0)
    with pytest.raises(QuotaExceeded), meter.admit():
        pass
    assert meter.usage.refused == 3
    assert meter.usage.processor_seconds == 15.0


def test_a_closed_service_hears_no_logs() -> None:
    """Closing takes back the handlers, so that no tenant's log outlives the service."""
    logger = logging.getLogger("plugwasm.plugin.bad")
    with serve():
        assert [type(handler) for handler in logger.handlers].count(TenantLog) == 1
    assert TenantLog not in map(type, logger.handlers)
