"""The example service: scripts of its tenants are kept, called, and told what is wrong with them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.support.paths import ROOT
from tests.support.script_service import QUOTA, House, problem, serve
from tests.support.scripts import need_engine

need = pytest.fixture(scope="session", autouse=True)(lambda: need_engine())


@pytest.fixture
def house() -> Iterator[House]:
    with serve() as house:
        yield house


def test_a_script_is_kept_and_called(house: House) -> None:
    """A new script is 201, a new version 200; a call takes JSON and returns JSON."""
    first = house.put("export const total = ({ items }) => items.length;")
    assert (first.status_code, first.json()) == (
        201,
        {"name": "s", "language": "javascript", "functions": ["total"]},
    )
    assert house.call("total", {"items": [1, 2]}).json() == 2
    assert house.put("export const total = () => 'none';").status_code == 200
    answer = house.call("total")
    assert (answer.status_code, answer.json()) == (200, "none")
    assert answer.headers["content-type"] == "application/json"


def test_both_languages(house: House) -> None:
    """The content type says the language, whatever the name says."""
    need_engine("python")
    made = house.put("def twice(text: str):\n    return [text] * 2\n", kind="py", name="js")
    assert made.json()["language"] == "python"
    assert house.call("twice", "ü", name="js").json() == ['"ü"', '"ü"']


@pytest.mark.parametrize(
    "value", ["42", "", "null", "ü😀\u2028", [1], {"a": None}, None, True, 1.5]
)
def test_values_stay_what_they_are(house: House, value: object) -> None:
    """Text that looks like a number stays text on its way in and out."""
    house.put("export const same = (value) => value;")
    assert house.call("same", value).json() == value


def test_a_wrong_script_has_a_place(house: House) -> None:
    """The problem says line and column, and the version before is still there."""
    house.put("export const f = () => 1;")
    told = problem(
        house.put("export const f = () => 2;\nexport const g = (;"), 422, "invalid-script"
    )
    assert (told["line"], told["column"]) == (2, 19)
    assert house.call("f").json() == 1


@pytest.mark.parametrize(
    ("source", "kind", "says"),
    [
        (b"export const f = '\xff';", "js", "UTF-8"),
        (b"", "js", "exports no function"),
        (b"const f = 1;", "js", "exports no function"),
        (b"throw new Error('no');export const f=()=>1", "js", "Error: no"),
        (b"import 'fs'; export const f=()=>1", "js", "fs"),
        (b"def f(:\n  pass", "py", "not valid Python"),
        (b"import os\ndef f(): pass", "py", "os"),
    ],
)
def test_scripts_that_are_refused(house: House, source: bytes, kind: str, says: str) -> None:
    """Each is a problem of the script, and is not kept."""
    need_engine("python")
    assert says in problem(house.put(source, kind=kind), 422, "invalid-script")["detail"]
    assert house.send("GET", "/scripts").json() == []


def test_an_exception_is_told(house: House) -> None:
    """The script's own message and stack, and its code, are the caller's to see."""
    house.put("export const f = () => {\n  throw new TypeError('no such item');\n};")
    told = problem(house.call("f"), 422, "script-failed")
    assert told["detail"].startswith("TypeError: no such item\n")
    assert ":2:" in told["detail"]
    assert told["code"] == 1


def test_scripts_and_functions_not_there(house: House) -> None:
    """What does not exist is 404, and says which is missing."""
    house.put("export const total = () => 1;")
    problem(house.call("total", name="other"), 404, "no-script")
    assert "did you mean `total`" in problem(house.call("totl"), 404, "no-function")["detail"]
    for method in ("GET", "DELETE"):
        problem(house.send(method, "/scripts/other"), 404, "no-script")
    problem(house.send("GET", "/nowhere"), 404, "http")
    assert house.send("POST", "/scripts", json=1).headers["allow"]


def test_scripts_are_listed_and_deleted(house: House) -> None:
    """A tenant sees its scripts, and a deleted one is gone at once."""
    for name in ("b", "a"):
        house.put("export const f = () => 1;", name=name)
    assert house.send("GET", "/scripts").json() == ["a", "b"]
    assert house.send("GET", "/scripts/a").json()["functions"] == ["f"]
    assert house.send("DELETE", "/scripts/a").status_code == 204
    problem(house.call("f", name="a"), 404, "no-script")
    assert house.send("GET", "/scripts").json() == ["b"]


def test_what_the_operator_grants(house: House) -> None:
    """A tenant has the functions and the config that it was given; another tenant has none."""
    source = """
export function price(item) {
  const { price_of } = Host.getFunctions();
  const block = Memory.fromString(item);
  return `${price_of(block.offset)} ${Config.get("currency")}`;
}
export const has = () => [Object.keys(Host.getFunctions()), Config.get("currency")];
"""
    for tenant in ("good", "bad"):
        assert house.put(source, tenant).status_code == 201
    assert house.call("price", "tea").json() == "2.5 EUR"
    assert house.call("has").json() == [["price_of"], "EUR"]
    assert house.call("has", tenant="bad").json() == [[], None]


def test_a_failing_function_of_the_service(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """If a host function raises, that is a fault of the service: its log has it, the tenant not."""
    source = """
const { price_of } = Host.getFunctions();
export const unknown = () => price_of(Memory.fromString("gold").offset);
export const forged = () => price_of(12345n);
"""
    house.put(source)
    told = problem(house.call("unknown"), 500, "host-function")
    assert "gold" not in json.dumps(told)
    assert "KeyError: 'gold'" in caplog.text
    problem(house.call("forged"), 422, "script-ended")


def test_logs_and_usage_of_a_tenant(house: House) -> None:
    """What a script prints is in its tenant's log; calls, errors and time are counted."""
    house.put("export const f = (n) => { console.log(`n is ${n}`); if (n > 1) throw 1; };")
    house.call("f", 1)
    house.call("f", 2)
    assert house.send("GET", "/log").json() == ["INFO n is 1", "INFO n is 2"]
    usage = house.send("GET", "/usage").json()
    assert usage["calls"] == 2
    assert usage["errors"] == {"GuestError": 1}
    assert usage["processor_seconds"] > 0
    assert house.send("GET", "/usage", "bad").json()["calls"] == 0


def test_calls_share_nothing(house: House) -> None:
    """Each call starts from what loading left: neither values nor vars stay."""
    house.put("let n = 0; globalThis.list = [];\nexport const f = () => {\n"
              "  list.push(++n); const seen = Var.getString('v'); Var.set('v', 'seen');\n"
              "  Array.prototype.map = null; return [n, list, seen]; };")  # fmt: skip
    answers = [house.call("f").json() for _ in range(3)]
    assert answers == [[1, [1], None]] * 3


def test_scripts_leave_memory_and_return() -> None:
    """A script that is not among the last used is loaded again, from its source, when it is called."""
    with serve(loaded_scripts=2) as house:
        for name in ("a", "b", "c"):
            house.put(f"export const f = () => '{name}';", name=name)
            assert len(house.service._loaded._loaded) <= 2
        assert [house.call("f", name=name).json() for name in ("a", "b", "c", "a")] == list("abca")


def test_a_tenant_cannot_push_out_others(house: House) -> None:
    """New versions make room by the tenant's own old ones, and not by those of others."""
    house.put("export const f = () => 1;")
    for version in range(6):
        house.put(f"export const f = () => {version};", "bad")
    owners = [account.tenant.name for account, _ in house.service._loaded._loaded.values()]
    assert owners == ["good", *["bad"] * QUOTA.scripts]


def test_a_new_version_counts_at_once(house: House) -> None:
    """A call that began with the old version ends with it; the next one gets the new."""
    house.put(
        "export const f = () => { const end = Date.now() + 100; while (Date.now() < end); return 'old'; };"
    )

    async def main() -> list[object]:
        call = asyncio.create_task(house.request("POST", "/scripts/s/f", json=0))
        while house.service.authenticate("key of good").meter.usage.running == 0:
            await asyncio.sleep(0)
        await house.request(
            "PUT", "/scripts/s", content=b"export const f = () => 'new';",
            headers={"Content-Type": "text/javascript"},
        )  # fmt: skip
        after = await house.request("POST", "/scripts/s/f", json=0)
        return [(await call).json(), after.json()]

    assert asyncio.run(main()) == ["old", "new"]


def test_the_service_in_a_server() -> None:
    """`python -m script_service` serves, and ends cleanly on SIGTERM while a script loops."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "examples")]),
        "ACME_KEY": "a", "GLOBEX_KEY": "g", "PORT": "0",
    }  # fmt: skip
    server = subprocess.Popen(
        [sys.executable, "-m", "script_service"], env=environment, stderr=subprocess.PIPE, text=True
    )
    assert server.stderr is not None
    try:
        for line in server.stderr:
            if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                break
        with httpx.Client(
            base_url=f"http://127.0.0.1:{found[1]}",
            headers={"Authorization": "Bearer a"},
            timeout=100,
        ) as client:
            made = client.put(
                "/scripts/s", content="export const f=()=>1, loop=()=>{for(;;);};",
                headers={"Content-Type": "text/javascript"},
            )  # fmt: skip
            assert made.status_code == 201, made.text
            assert client.post("/scripts/s/f", json=0).json() == 1
            looping = subprocess.Popen([sys.executable, "-c", (
                "import httpx, sys; print(httpx.post(sys.argv[1], json=0, "
                "headers={'Authorization': 'Bearer a'}, timeout=100).status_code)"
            ), f"{client.base_url}/scripts/s/loop"], stdout=subprocess.PIPE, text=True)  # fmt: skip
            while client.get("/usage").json()["running"] == 0:
                time.sleep(0.01)
        server.send_signal(signal.SIGTERM)
        assert looping.communicate(timeout=60)[0].strip() == "422"
        rest = server.stderr.read()
        server.wait(60)
        assert "Traceback" not in rest
        assert "Application shutdown complete" in rest
    finally:
        server.kill()
        server.wait()
        server.stderr.close()
