"""What a plugin's author tests with: the harness, its fakes, and the fixtures of pytest."""

from __future__ import annotations

import logging
import os
import pickle
import re
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Annotated, Any

import pytest

import plugwasm
from plugwasm.testing import FakeClock, Harness, UnexpectedHostCallError, UnexpectedRequestError
from tests.support.guests import LOOP, MEMORY, export, guest, manifest, number
from tests.support.paths import EXAMPLES, ROOT

pytest_plugins = "pytester"

URL = "https://api.example.com/user/1"

USER = '(import "extism:host/user" "{name}" (func ${name} {type}))'
ASK = USER.format(name="ask", type="(param i64) (result i64)")

LOGS = guest(
    export(
        "say",
        "".join(
            f"(call $log_{level} <<{level} line>>)"
            for level in ("trace", "debug", "info", "warn", "error")
        )
        + "(call $answer (i64.extend_i32_u (call $get_log_level)))",
    )
)
REMEMBERS = guest(
    export("swap", "(call $give (call $var_get <<k>>)) (call $var_set <<k>> <<new>>)")
    + export("forget", "(call $var_set <<k>> (i64.const 0))")
    + export("die", "(call $var_set <<k>> <<new>>) unreachable")
)
ASKS = guest(
    export("ask", "(call $give (call $ask <<what>>))") + export("echo", "(call $echo)"), ASK
)


def fetcher(*headers: str) -> str:
    """Sends the request document that it gets, with the body `sent`, and gives back what comes."""
    return guest(
        export("fetch", "(call $give (call $http_request (call $copy) <<sent>>))")
        + export(
            "status",
            "(drop (call $http_request (call $copy) (i64.const 0))) (call $answer (i64.extend_i32_u (call $http_status_code)))",
        )
    )


def request(url: str = URL, method: str = "POST", headers: str = "{}") -> str:
    return f'{{"url": "{url}", "method": "{method}", "headers": {headers}}}'


# ---- vars of a plugin, from outside ------------------------------------------------------------------------------------------------------


def test_a_plugin_begins_with_the_vars_it_is_given_and_shows_those_it_has() -> None:
    with plugwasm.Plugin(REMEMBERS, vars={"k": b"old", "other": b""}) as plugin:
        assert plugin.vars == {"k": b"old", "other": b""}
        assert plugin.call("swap") == b"old"
        assert plugin.vars == {"k": b"new", "other": b""}
        plugin.vars["k"] = b"a copy"
        plugin.call("forget")
        assert plugin.vars == {"other": b""}
        plugin.reset()
        assert plugin.call("swap") == b"old"


def test_vars_outlive_an_instance_that_was_lost_and_begin_again_after_a_reset() -> None:
    with plugwasm.Plugin(REMEMBERS, vars={"k": b"old"}) as plugin:
        with pytest.raises(plugwasm.TrapError):
            plugin.call("die")
        assert plugin.vars == {"k": b"new"}
        assert plugin.call("swap") == b"new"
        plugin.reset()
        assert plugin.vars == {"k": b"old"}
        assert plugin.call("swap") == b"old"


def test_an_isolated_plugin_has_vars_in_the_same_way() -> None:
    with plugwasm.IsolatedPlugin(REMEMBERS, vars={"k": b"old"}) as plugin:
        assert plugin.vars == {"k": b"old"}
        assert plugin.call("swap") == b"old"
        assert plugin.vars == {"k": b"new"}


def test_vars_to_begin_with_count_towards_the_limits() -> None:
    limits = plugwasm.Limits(var_bytes=6, vars=2)
    with plugwasm.Plugin(REMEMBERS, vars={"k": b"12345"}, limits=limits) as plugin:
        assert plugin.call("swap") == b"12345"
    for vars in ({"k": b"123456"}, {"a": b"", "b": b"", "c": b""}):
        with pytest.raises(
            plugwasm.OptionError, match="vars: more than the limits allow: 6 bytes, 2 names"
        ):
            plugwasm.Plugin(REMEMBERS, vars=vars, limits=limits)
    for vars in ({"a": b"", "b": b""}, {"a": b"12"}):
        with (
            plugwasm.Plugin(REMEMBERS, vars=vars, limits=limits) as plugin,
            pytest.raises(plugwasm.GuestError, match="limit"),
        ):
            plugin.call("swap")


@pytest.mark.parametrize("vars", [{"k": "text"}, {"k": None}, {1: b""}])
def test_vars_that_are_not_bytes_by_name_are_refused(vars: Any) -> None:
    with pytest.raises(
        plugwasm.OptionError, match="vars: names must be text and values bytes, but `"
    ):
        plugwasm.Plugin(REMEMBERS, vars=vars)


# ---- what happened -----------------------------------------------------------------------------------------------------------------------


def test_a_harness_runs_a_plugin_and_keeps_its_calls() -> None:
    harness = Harness(
        EXAMPLES / "count_vowels.wasm",
        config={"vowels": "a"},
        vars={"total": (5).to_bytes(8, "little")},
    )
    with harness.plugin() as plugin:
        assert plugin.call("count_vowels", "banana", parse=len) == 34
        view = plugin.call("count_vowels", b"", parse=None)
        kept = bytes(view)
        with pytest.raises(plugwasm.FunctionNotFoundError):
            plugin.call("count_vovels")
    first, second, third = harness.calls
    assert (first.function, first.input, first.output, first.error) == (
        "count_vowels",
        "banana",
        34,
        None,
    )
    assert second.output == kept
    assert first.fuel > second.fuel > 0
    assert first.seconds > 0
    assert isinstance(third.error, plugwasm.FunctionNotFoundError)
    assert third.fuel == 0
    assert harness.vars == {"total": (8).to_bytes(8, "little")}


def test_vars_are_seen_before_during_and_after_a_plugin() -> None:
    with Harness(REMEMBERS, vars={"k": b"old"}) as harness:
        assert harness.vars == {"k": b"old"}
        plugin = harness.plugin()
        plugin.call("swap")
        assert harness.vars == {"k": b"new"}
        assert harness.plugin().call("swap") == b"old"
    assert harness.vars == {"k": b"new"}
    with pytest.raises(plugwasm.ClosedError):
        plugin.call("swap")


def test_logs_are_kept_by_level_and_still_reach_the_application(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logger = logging.getLogger("plugwasm.plugin.talker")
    before = logger.level, list(logger.handlers)
    with Harness(LOGS, name="talker") as harness:
        assert number(harness.plugin().call("say")) == 0
    assert harness.logs.messages("warn") == ["warn line"]
    assert [(line.level, line.message) for line in harness.logs] == [
        (level, f"{level} line") for level in ("trace", "debug", "info", "warn", "error")
    ]
    assert len(harness.logs) == 5
    assert [
        record.message for record in caplog.records if record.name == "plugwasm.plugin.talker"
    ] == harness.logs.messages()
    assert (logger.level, logger.handlers) == before
    harness.logs.clear()
    assert not harness.logs.messages()
    with pytest.raises(
        ValueError, match="expected one of trace, debug, info, warn, error, got 'warning'"
    ):
        harness.logs.messages("warning")


def test_the_log_level_is_what_the_plugin_sees() -> None:
    with Harness(LOGS, log_level="warn") as harness:
        assert number(harness.plugin().call("say")) == 3
    assert harness.logs.messages() == ["warn line", "error line"]
    with pytest.raises(ValueError, match="log_level: expected one of"):
        Harness(LOGS, log_level="loud")


def test_two_harnesses_of_one_name_do_not_mix_their_logs() -> None:
    with Harness(LOGS) as one, Harness(LOGS) as other:
        one.plugin().call("say")
        assert (len(one.logs), len(other.logs)) == (5, 0)


def test_the_transcript_tells_what_happened_in_order() -> None:
    with Harness(EXAMPLES / "host_functions.wasm", config={"times": "2"}) as harness:
        harness.host("greet", str, returns=lambda who: f"Hi {who[:3]}")
        harness.host("add", raises=ValueError("too much"))
        plugin = harness.plugin()
        plugin.call("repeat_greet", "Ada")
        with pytest.raises(plugwasm.HostFunctionError):
            plugin.call("sum", b"1 2")
        with pytest.raises(plugwasm.HostFunctionError):
            plugin.call("scale", "3")
        plugin.call("greet", "x" * 500)
    unexpected = (
        "the test does not expect the host function `scale` to be called, but it was, with (3.0)"
    )
    assert re.sub(r"\d+ fuel", "N fuel", harness.transcript()).splitlines() == [
        "repeat_greet('Ada') -> b'Hi Ada' (N fuel)",
        "    host greet('Ada') -> 'Hi Ada'",
        "    host greet('Ada') -> 'Hi Ada'",
        "sum(b'1 2') raised HostFunctionError: `sum` of plugin `host_functions`: the host function `add` raised ValueError: too much (N fuel)",
        "    host add(1, 2) raised ValueError: too much",
        f"scale('3') raised UnexpectedHostCallError: `scale` of plugin `host_functions`: {unexpected} (N fuel)",
        "    host scale(3.0) raised UnexpectedHostCallError",
        f"greet('{'x' * 79} … {'x' * 39}') -> b'Hi xxx' (N fuel)",
        f"    host greet('{'x' * 79} … {'x' * 39}') -> 'Hi xxx'",
    ]


def test_of_a_long_transcript_the_end_is_shown() -> None:
    with Harness(ASKS) as harness:
        plugin = harness.plugin()
        for number in range(203):
            plugin.call("echo", str(number))
    lines = harness.transcript().splitlines()
    assert lines[0] == "… 3 lines before"
    assert [line.partition(" ")[0] for line in lines[1:]] == [
        f"echo('{number}')" for number in range(3, 203)
    ]


# ---- limits ------------------------------------------------------------------------------------------------------------------------------


def test_what_a_block_of_calls_takes_can_be_bounded() -> None:
    grows = guest(
        export("grow", "(drop (memory.grow (i32.const 4)))") + export("idle", ""), memory=MEMORY
    )
    with Harness(grows) as harness:
        plugin = harness.plugin()
        plugin.call("idle")
        with harness.at_most(fuel=1000, seconds=60, memory_bytes=7 * 65536) as usage:
            plugin.call("grow")
            plugin.call("idle")
        assert 0 < usage.fuel == sum(call.fuel for call in usage.calls)
        assert len(usage.calls) == 2
        assert usage.memory_bytes == 7 * 65536  # two of the kernel's
        assert 0 < usage.seconds < 60
        exact = usage.calls[1].fuel
        with harness.at_most(fuel=exact):
            plugin.call("idle")
        with (
            pytest.raises(
                AssertionError,
                match=rf"^plugin `plugin` took {exact} fuel, but at most {exact - 1} was expected:\n  idle\(\) -> b'' \({exact} fuel\)$",
            ),
            harness.at_most(fuel=exact - 1),
        ):
            plugin.call("idle")
        with (
            pytest.raises(
                AssertionError, match="458,752 bytes of memory, but at most 458,751 was expected"
            ),
            harness.at_most(memory_bytes=7 * 65536 - 1),
        ):
            plugin.call("idle")
        with (
            pytest.raises(AssertionError, match="seconds, but at most 1e-09 was expected"),
            harness.at_most(seconds=1e-9),
        ):
            plugin.call("idle")


def test_a_bound_on_nothing_is_an_error() -> None:
    with Harness(ASKS) as harness:
        with (
            pytest.raises(AssertionError, match="no export of plugin `plugin` was called"),
            harness.at_most(fuel=1),
        ):
            pass
        with pytest.raises(TypeError, match="say how much"), harness.at_most():
            pass


def test_an_error_in_a_bounded_block_is_that_error() -> None:
    with (
        Harness(guest(export("trap", "unreachable"))) as harness,
        pytest.raises(plugwasm.TrapError),
        harness.at_most(fuel=0),
    ):
        harness.plugin().call("trap")


def test_memory_that_cannot_be_seen_cannot_be_bounded() -> None:
    hidden = guest(export("idle", ""), memory="(memory 1)")
    with (
        Harness(hidden) as harness,
        pytest.raises(AssertionError, match="cannot be measured"),
        harness.at_most(memory_bytes=10**9),
    ):
        harness.plugin().call("idle")


def test_limits_hold_as_they_would_in_an_application() -> None:
    spins = guest(export("spin", LOOP))
    with Harness(spins, limits=plugwasm.Limits(timeout=0.05)) as harness:
        with pytest.raises(plugwasm.TimeoutError):
            harness.plugin().call("spin")
        assert harness.limits.timeout == 0.05
        assert harness.calls[0].fuel > 0
    with Harness(spins, fuel_limit=10_000) as harness, pytest.raises(plugwasm.OutOfFuelError):
        harness.plugin().call("spin")


# ---- HTTP --------------------------------------------------------------------------------------------------------------------------------


def test_requests_are_answered_as_the_test_says() -> None:
    with Harness(fetcher(), http_response_headers=True) as harness:
        route = (
            harness.http.post("https://API.example.com:443/user/1")
            .respond(json={"name": "Ada"})
            .respond(404, text="gone")
        )
        plugin = harness.plugin()
        assert plugin.call("fetch", request(headers='{"X-Key": "1"}')) == b'{"name": "Ada"}'
        assert plugin.call("fetch", request()) == b"gone"
        assert plugin.call("fetch", request()) == b"gone"
        assert route.called
        first = route.requests[0]
        assert harness.http.requests == route.requests
        assert (first.method, first.url, first.body, first.text, first.status) == (
            "POST",
            URL,
            b"sent",
            "sent",
            200,
        )
        assert first.headers["x-key"] == first.headers["X-Key"] == "1"
        assert route.requests[1].status == 404


def test_of_several_routes_the_last_that_fits_counts() -> None:
    with Harness(fetcher()) as harness:
        harness.http.route(None, re.compile(r"https://.*\.example\.com/.*")).respond(body=b"any")
        harness.http.post(URL).respond(body=b"one")
        plugin = harness.plugin()
        assert plugin.call("fetch", request()) == b"one"
        assert plugin.call("fetch", request(method="PUT")) == b"any"
        assert plugin.call("fetch", request(URL + "?page=2")) == b"any"
        harness.http.post(re.compile("https://api"))
        assert (
            plugin.call("fetch", request(URL + "?page=3")) == b"any"
        )  # a pattern has to fit the whole


@pytest.mark.parametrize("method", ["get", "head", "post", "put", "patch", "delete"])
def test_each_method_has_its_route(method: str) -> None:
    with Harness(fetcher()) as harness:
        getattr(harness.http, method)(URL)
        assert number(harness.plugin().call("status", request(method=method.upper()))) == 200
        assert harness.http.requests[0].method == method.upper()


def test_an_answer_can_be_made_of_the_request_and_be_a_redirect() -> None:
    with Harness(fetcher()) as harness:
        harness.http.post(URL).respond(307, headers={"Location": "/there"})
        harness.http.post("https://api.example.com/there").respond_with(
            lambda it: plugwasm.EgressResponse(200, (), it.body * 2)
        )
        assert harness.plugin().call("fetch", request()) == b"sentsent"
    assert [it.url for it in harness.http.requests] == [URL, "https://api.example.com/there"]


def test_a_failure_can_stand_for_an_answer() -> None:
    with Harness(fetcher()) as harness:
        harness.http.post(URL).fail(ConnectionRefusedError(111, "Connection refused"))
        with pytest.raises(plugwasm.EgressError, match="Connection refused"):
            harness.plugin().call("fetch", request())
    assert isinstance(harness.http.requests[0].error, ConnectionRefusedError)


def test_a_request_that_nobody_expects_fails_the_test_and_says_what_was_expected() -> None:
    with Harness(fetcher(), name="my") as harness:
        with pytest.raises(UnexpectedRequestError) as raised:
            harness.plugin().call("fetch", request())
        assert raised.value.message == (
            f"`fetch` of plugin `my`: the test expects no request, but there was POST {URL} with b'sent'\n"
            f'to answer it: harness.http.post("{URL}").respond(…)'
        )
        harness.http.get(URL)
        harness.http.post(re.compile("https://x/.*"))
        with pytest.raises(AssertionError) as failed:
            harness.plugin().call("fetch", request())
        assert isinstance(failed.value, plugwasm.EgressError)
        assert failed.value.message == (
            f"`fetch` of plugin `my`: the test does not expect POST {URL} with b'sent'\nit expects:\n"
            f"  GET {URL}, requested never\n  POST a URL that fits 'https://x/.*', requested never"
        )
    assert pickle.loads(pickle.dumps(raised.value)).message == raised.value.message


def test_the_manifest_and_the_policy_judge_before_the_test_answers() -> None:
    granted = manifest(fetcher(), allowed_hosts=["api.example.com"])
    with Harness(granted) as harness:
        harness.http.post("https://elsewhere.example.com/")
        with pytest.raises(
            plugwasm.EgressDeniedError, match=r"elsewhere\.example\.com is not granted"
        ):
            harness.plugin().call("fetch", request("https://elsewhere.example.com/"))
        assert not harness.http.requests
    with (
        Harness(granted, allowed_hosts=[]) as harness,
        pytest.raises(plugwasm.EgressDeniedError, match="no host is granted"),
    ):
        harness.plugin().call("fetch", request())
    policy = plugwasm.Egress(
        methods=["GET"],
        added_headers={"https://api.example.com": {"Authorization": "Bearer x"}},
        proxy="http://p:1",
    )
    with Harness(granted, egress=policy) as harness:
        harness.http.get(URL)
        with pytest.raises(plugwasm.EgressError, match="expected one of GET"):
            harness.plugin().call("fetch", request())
        harness.plugin().call("fetch", request(method="GET"))
        assert harness.http.requests[0].headers["authorization"] == "Bearer x"


def test_addresses_of_ones_own_machine_can_be_faked_too() -> None:
    with Harness(fetcher()) as harness:
        for url in (
            "http://localhost:8080/",
            "http://127.0.0.1/",
            "http://10.1.2.3/",
            "http://[::1]/",
        ):
            harness.http.post(url).respond(text=url)
            assert harness.plugin().call("fetch", request(url)) == url.encode()


def test_a_route_that_no_plugin_could_take_is_refused_at_once() -> None:
    with Harness(fetcher()) as harness:
        with pytest.raises(plugwasm.EgressDeniedError, match="does not begin with http"):
            harness.http.get("ftp://example.com/")
        with pytest.raises(TypeError, match="one of json, text and body"):
            harness.http.get(URL).respond(json={}, text="")


# ---- time and chance -----------------------------------------------------------------------------------------------------------------------


def wasi_guest() -> str:
    return guest(
        export(
            "now",
            "(drop (call $clock (i32.const 0) (i64.const 0) (i32.const 0))) (call $answer (i64.load (i32.const 0)))",
        )
        + export(
            "chance",
            "(drop (call $random (i32.const 0) (i32.const 8))) (call $answer (i64.load (i32.const 0)))",
        )
        + export(
            "sleep",  # one subscription: to the monotonic clock, 5 seconds from now
            "(i64.store (i32.const 64) (i64.const 0)) (i64.store8 (i32.const 72) (i64.const 0)) (i32.store (i32.const 80) (i32.const 1))"
            "(i64.store (i32.const 88) (i64.const 5000000000)) (drop (call $poll (i32.const 64) (i32.const 200) (i32.const 1) (i32.const 0)))",
        ),
        '(import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))',
        '(import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))',
        '(import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))',
        memory=MEMORY,
    )


def test_time_stands_until_the_test_moves_it() -> None:
    with Harness(wasi_guest(), wasi=True) as harness:
        plugin, other = harness.plugin(), harness.plugin()

        def now() -> datetime:
            return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(
                microseconds=number(plugin.call("now")) // 1000
            )

        assert now() == now() == datetime(2000, 1, 1, tzinfo=UTC)
        harness.clock.set(datetime(2024, 2, 29, 13, 0, 0, 5, tzinfo=timezone(timedelta(hours=1))))
        assert now() == datetime(2024, 2, 29, 12, 0, 0, 5, tzinfo=UTC)
        harness.clock.advance(timedelta(days=1))
        harness.clock.advance(0.5)
        assert now() == datetime(2024, 3, 1, 12, 0, 0, 500_005, tzinfo=UTC)
        harness.clock.set(1_000_000_000)
        assert number(other.call("now")) == 10**18
        with harness.at_most(seconds=4):
            plugin.call("sleep")
        assert harness.clock.sleeps == [5.0]
        assert number(other.call("now")) == 10**18 + 5 * 10**9
        harness.clock.tick = 0.25
        assert number(plugin.call("now")) + 250_000_000 == number(plugin.call("now"))


def test_time_is_told_without_doubt() -> None:
    clock = FakeClock()
    with pytest.raises(ValueError, match="has no time zone"):
        clock.set(datetime(2024, 1, 1))
    with pytest.raises(ValueError, match="does not run backwards"):
        clock.advance(-1)
    clock.set(0)
    clock.advance(1e-9)
    assert (clock.realtime(), clock.monotonic()) == (1, 1)


def test_random_bytes_follow_from_the_seed() -> None:
    def chance(**settings: Any) -> int:
        with Harness(wasi_guest(), **settings) as harness:
            return number(harness.plugin().call("chance"))

    assert (
        chance(wasi=True)
        == chance(wasi=True)
        == chance(wasi=True, seed=0)
        != chance(wasi=True, seed=1)
    )
    assert chance(wasi=plugwasm.WasiOptions(random=lambda n: b"\1" + bytes(n - 1))) == 1
    with pytest.raises(plugwasm.MissingImportError, match="WASI was not granted"):
        chance()


def test_directories_can_be_granted(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("a note")
    with Harness(
        EXAMPLES / "wasi_files.wasm", wasi=True, allowed_paths={tmp_path: "/data"}
    ) as harness:
        assert harness.plugin().call("cat", "/data/note.txt") == b"a note"


# ---- host functions ----------------------------------------------------------------------------------------------------------------------


def test_a_fake_returns_what_it_is_told_and_keeps_what_it_was_given() -> None:
    with Harness(EXAMPLES / "host_functions.wasm") as harness:
        fake = harness.host("greet", str, returns="Welcome")
        harness.host("add", int, int, returns=lambda a, b: a - b)
        harness.host("scale", returns=0.5)
        plugin = harness.plugin()
        assert plugin.call("greet", "Ada") == b"Welcome"
        assert plugin.call("sum", "64 -2") == b"66"
        assert plugin.call("scale", "2.5") == b"0.5"
        assert [(call.name, call.args, call.result) for call in harness.host_calls] == [
            ("greet", ("Ada",), "Welcome"),
            ("add", (64, -2), 66),
            ("scale", (2.5,), 0.5),
        ]
        assert fake.called
        assert fake.calls == harness.host_calls[:1]
        fake.returns = "Again"
        assert plugin.call("greet", "Ada") == b"Again"
        harness.host("greet", returns="Another")
        assert plugin.call("greet", "Eve") == b"Another"
        assert harness.host_calls[-1].args == (b"Eve",)


@pytest.mark.parametrize(
    ("returns", "output"),
    [
        ("text", b"text"),
        (b"\0", b"\0"),
        (bytearray(b"ab"), b"ab"),
        ({"a": [1]}, b'{"a":[1]}'),
        ([1], b"[1]"),
        (None, b""),
        ("", b""),
    ],
)
def test_what_a_fake_returns_becomes_memory_of_the_plugin(returns: Any, output: bytes) -> None:
    with Harness(ASKS) as harness:
        harness.host("ask", returns=returns)
        assert harness.plugin().call("ask") == output


@pytest.mark.parametrize(
    ("kind", "arg"),
    [
        (str, "[1]"),
        (bytes, b"[1]"),
        (list, [1]),
        (list[int], [1]),
        (list[str], b"[1]"),
        (None, b"[1]"),
    ],
)
def test_what_a_fake_is_given_is_of_the_type_that_was_named(kind: Any, arg: object) -> None:
    asks = guest(
        export("ask", "(drop (call $ask <<[1]>>))")
        + export("null", "(drop (call $ask (i64.const 0)))"),
        ASK,
    )
    with Harness(asks) as harness:
        harness.host("ask", *([kind] if kind else []))
        harness.plugin().call("ask")
        assert harness.host_calls[0].args == (arg,)
        harness.plugin().call("null")
        assert harness.host_calls[1].args == (kind() if kind else 0,)
        harness.host("ask", int)
        harness.plugin().call("ask")
        (handle,) = harness.host_calls[2].args
        assert type(handle) is int
        assert handle > 0


def test_numbers_of_every_type_cross_in_both_directions() -> None:
    kinds = {"i32": -(2**31), "i64": -(2**63), "f32": 0.5, "f64": -1e300}
    imports = [USER.format(name=f"f_{t}", type=f"(param {t}) (result {t})") for t in kinds]
    constant = {
        "i32": "i32.const -2147483648",
        "i64": "i64.const -9223372036854775808",
        "f32": "f32.const 0.5",
        "f64": "f64.const -1e300",
    }
    body = "".join(
        export(
            t,
            f"(if (i32.eqz ({t}.eq (call $f_{t} ({constant[t]})) ({constant[t]}))) (then unreachable))",
        )
        for t in kinds
    )
    with Harness(guest(body, *imports)) as harness:
        for t, value in kinds.items():
            fake = harness.host(f"f_{t}", returns=value)
            harness.plugin().call(t)
            assert fake.calls[0].args == (value,)
            assert type(fake.calls[0].args[0]) is type(value)


def test_a_fake_has_several_results_where_the_function_does() -> None:
    pair = USER.format(name="pair", type="(result i64 i32)")
    adds = guest(
        export(
            "add",
            "(local $b i32) (call $pair) (local.set $b) (i64.extend_i32_s (local.get $b)) i64.add (call $answer)",
        ),
        pair,
    )
    with Harness(adds) as harness:
        harness.host("pair", returns=(40, 2))
        assert number(harness.plugin().call("add")) == 42
        harness.host("pair", returns=(40, 2, 0))
        with pytest.raises(plugwasm.HostFunctionError, match="`pair` raised ValueError"):
            harness.plugin().call("add")


@pytest.mark.parametrize(
    ("returns", "error"),
    [
        (2**64, OverflowError),
        (-(2**63) - 1, OverflowError),
        (object(), TypeError),
        (1.5j, TypeError),
        (lambda: 1, TypeError),
    ],
)
def test_a_fake_that_returns_what_cannot_cross_fails_the_call(
    returns: Any, error: type[Exception]
) -> None:
    with Harness(ASKS) as harness:
        harness.host("ask", returns=returns)
        with pytest.raises(
            plugwasm.HostFunctionError, match=f"host function `ask` raised {error.__name__}"
        ) as raised:
            harness.plugin().call("ask")
        assert isinstance(raised.value.__cause__, error)


def test_a_fake_raises_what_it_is_told() -> None:
    with Harness(ASKS) as harness:
        harness.host("ask", str, raises=PermissionError("not you"))
        with pytest.raises(plugwasm.HostFunctionError, match="PermissionError: not you") as raised:
            harness.plugin().call("ask")
        assert isinstance(raised.value.__cause__, PermissionError)
        assert harness.host_calls[0].error is raised.value.__cause__


def test_a_fake_that_outlives_the_deadline_ends_the_call() -> None:
    asks = guest(export("ask", "(drop (call $ask (i64.const 0)))"), ASK)
    with Harness(asks, limits=plugwasm.Limits(timeout=0.05)) as harness:
        harness.host("ask", returns=lambda _: time.sleep(0.2))
        with pytest.raises(plugwasm.TimeoutError):
            harness.plugin().call("ask")


def test_a_host_function_that_nobody_expects_fails_the_test_when_it_is_called() -> None:
    with Harness(ASKS, name="my") as harness:
        assert harness.plugin().call("echo", "fine") == b"fine"
        with pytest.raises(UnexpectedHostCallError) as raised:
            harness.plugin().call("ask")
        assert raised.value.message == (
            "`ask` of plugin `my`: the test does not expect the host function `ask` to be called, but it was, with (b'what')\n"
            "to answer it: harness.host('ask', returns=…)"
        )
        assert isinstance(raised.value, AssertionError)
        assert isinstance(raised.value, plugwasm.HostFunctionError)


def test_missing_host_functions_can_all_be_faked() -> None:
    with Harness(ASKS, fake_missing=True) as harness:
        assert harness.plugin().call("ask") == b""
        assert harness.host_calls[0].args == (b"what",)


def test_functions_of_the_application_are_called_and_watched() -> None:
    @plugwasm.host_fn(name="greet")
    def greet(plugin: plugwasm.CurrentPlugin, who: str) -> str:
        return f"{plugin.config['greeting']} {who}"

    @plugwasm.host_fn(name="add", signature=([plugwasm.ValType.I64] * 2, [plugwasm.ValType.I64]))
    def add(
        plugin: plugwasm.CurrentPlugin, params: list[plugwasm.Val], results: list[plugwasm.Val]
    ) -> None:
        results[0].value = params[0].value + params[1].value

    with Harness(
        EXAMPLES / "host_functions.wasm", functions=[greet, add], config={"greeting": "Hi"}
    ) as harness:
        plugin = harness.plugin()
        assert plugin.call("greet", "Ada") == b"Hi Ada"
        assert plugin.call("sum", "40 2") == b"42"
        assert [(call.name, call.args, call.result) for call in harness.host_calls] == [
            ("greet", ("Ada",), "Hi Ada"),
            ("add", (40, 2), 42),
        ]
        with pytest.raises(UnexpectedHostCallError):
            plugin.call("scale", "1")
        harness.host("add", returns=7)
        assert plugin.call("sum", "40 2") == b"7"
    assert (
        plugwasm.Plugin(
            EXAMPLES / "host_functions.wasm",
            functions=[greet, add, scale()],
            config={"greeting": "Yo"},
        ).call("sum", "1 2")
        == b"3"
    )


def scale() -> plugwasm.Function:
    return plugwasm.Function(
        None,
        "scale",
        [plugwasm.ValType.F64],
        [plugwasm.ValType.F64],
        lambda plugin, params, results: None,
    )


def test_what_a_function_of_the_application_raises_is_kept() -> None:
    def ask(what: Annotated[list[int], plugwasm.Json]) -> bytes:
        raise KeyError(what)

    with Harness(ASKS, functions=[plugwasm.host_fn(name="ask")(ask)]) as harness:
        with pytest.raises(plugwasm.HostFunctionError):
            harness.plugin().call("ask")
        (call,) = harness.host_calls
        assert call.args == (b"what",)  # which is no JSON
        assert isinstance(call.error, ValueError)


def test_a_function_of_the_application_with_another_type_is_a_link_error() -> None:
    with (
        Harness(ASKS, functions=[plugwasm.host_fn(name="ask")(lambda: None)]) as harness,
        pytest.raises(plugwasm.LinkError, match="what is offered"),
    ):
        harness.plugin()


def test_only_what_the_plugin_imports_can_be_faked() -> None:
    with Harness(EXAMPLES / "host_functions.wasm") as harness:
        with pytest.raises(
            plugwasm.LinkError, match="imports no host function `great`: did you mean `greet`"
        ):
            harness.host("great")
        with pytest.raises(
            plugwasm.LinkError,
            match="imports no host function `config_get`: it imports `add`, `greet`, `scale`",
        ):
            harness.host("config_get")
        with pytest.raises(plugwasm.LinkError, match="`greet` from `elsewhere`"):
            harness.host("greet", namespace="elsewhere")
        with pytest.raises(
            plugwasm.LinkError, match="`add` of plugin `host_functions` has 2 parameters, not 1"
        ):
            harness.host("add", int)


def test_of_two_functions_of_one_name_the_namespace_tells_which() -> None:
    asks = guest(
        export("ask", "(call $give (call $ask (call $other (i64.const 0))))"),
        ASK,
        ASK.replace("extism:host/user", "app").replace("$ask", "$other"),
    )
    with Harness(asks) as harness:
        with pytest.raises(plugwasm.LinkError, match="say which, with `namespace`"):
            harness.host("ask")
        harness.host("ask", namespace="app", returns="from app")
        harness.host(
            "ask", str, namespace="extism:host/user", returns=lambda what: f"{what} to user"
        )
        assert harness.plugin().call("ask") == b"from app to user"


def test_what_modules_import_from_each_other_is_not_faked() -> None:
    provider = '(module (func (export "seven") (result i64) (i64.const 7)))'
    user = guest(
        export("get", "(call $answer (call $seven))"),
        '(import "provider" "seven" (func $seven (result i64)))',
    )
    with Harness(manifest(("provider", provider), ("main", user))) as harness:
        assert number(harness.plugin().call("get")) == 7
        assert not harness.host_calls


def test_an_import_that_is_no_function_is_still_missing() -> None:
    with (
        Harness('(module (import "app" "memory" (memory 1)))', fake_missing=True) as harness,
        pytest.raises(plugwasm.MissingImportError),
    ):
        harness.plugin()


def test_everything_expected_must_have_been_used() -> None:
    with Harness(ASKS) as harness:
        harness.assert_all_called()
        harness.host("ask")
        harness.http.get(URL)
        with pytest.raises(
            AssertionError,
            match=rf"^plugin `plugin` was expected to use, and did not:\n  GET {URL}\n  host function `ask`$",
        ):
            harness.assert_all_called()
        harness.plugin().call("ask")
        with pytest.raises(AssertionError, match=f"did not:\n  GET {URL}$"):
            harness.assert_all_called()


def test_a_harness_wants_what_it_can_link_itself() -> None:
    with pytest.raises(TypeError, match="it links the plugin itself"):
        Harness(plugwasm.CompiledPlugin(REMEMBERS))  # type: ignore[arg-type]


# ---- pytest ------------------------------------------------------------------------------------------------------------------------------


class Project:
    """The tests of somebody who writes a plugin, in a directory of their own."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.root = pytester.path

    def build(self, path: str, wat: str = REMEMBERS) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(wat)

    def test(self, code: str, path: str = "tests/test_it.py", *options: str) -> pytest.RunResult:
        (self.root / path).parent.mkdir(exist_ok=True)
        (self.root / path).write_text(f"import pytest, plugwasm\n{code}")
        return self.pytester.runpytest_inprocess(
            "-p",
            "plugwasm._pytest_plugin",
            "-p",
            "no:cacheprovider",
            "--import-mode=importlib",
            *options,
        )


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    return Project(pytester)


def says(text: str) -> str:
    """A plugin whose export `say` gives that text."""
    return guest(export("say", f"(call $give <<{text}>>)"))


def test_a_marker_says_which_plugin_is_under_test_and_what_is_around_it(project: Project) -> None:
    project.build("build/my.wat")
    result = project.test(
        """
pytestmark = pytest.mark.plugwasm("build/my.wat", vars={"k": b"module"})

def test_one(wasm_plugin, wasm_harness):
    assert wasm_plugin.call("swap") == b"module"
    assert wasm_harness.vars == {"k": b"new"}

@pytest.mark.plugwasm(vars={"k": b"function"}, name="other")
def test_other(wasm_plugin):
    assert wasm_plugin.call("swap") == b"function"
    assert wasm_plugin.name == "other"

class TestClosed:
    kept = []
    def test_first(self, wasm_plugin, make_wasm_harness):
        self.kept += [wasm_plugin, make_wasm_harness(b'(module (func (export "f")))').plugin()]
        self.kept[1].call("f")
    def test_then(self):
        for plugin in self.kept:
            with pytest.raises(plugwasm.ClosedError):
                plugin.call("swap")
"""
    )
    result.assert_outcomes(passed=4)


def test_settings_and_the_command_line_say_it_too(project: Project) -> None:
    project.build("build/my.wat", says("settings"))
    project.build("other/your.wat", says("option"))
    project.pytester.makeini("[pytest]\nplugwasm_plugin = build/*.wat\nplugwasm_wasi = true\n")
    code = """
import os
def test_it(wasm_plugin):
    assert wasm_plugin.call("say").decode() == os.environ["EXPECTED"]
    assert wasm_plugin.compiled_plugin.wasi
"""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXPECTED", "settings")
        project.test(code).assert_outcomes(passed=1)
        patch.setenv("EXPECTED", "option")
        patch.chdir(project.root / "tests")
        project.test(
            code, "tests/test_it.py", "--plugwasm-plugin", "../other/your.wat"
        ).assert_outcomes(passed=1)
        patch.chdir(project.root)
        project.test(
            code, "tests/test_it.py", "--plugwasm-plugin", "other/your.wat"
        ).assert_outcomes(passed=1)
        project.test(
            code.replace("def", "@pytest.mark.plugwasm('build/my.wat')\ndef"),
            "tests/test_it.py",
            "--plugwasm-plugin=other/*.wat",
        ).assert_outcomes(passed=1)


def test_a_file_beside_the_test_comes_before_one_in_the_root(project: Project) -> None:
    project.build("my.wat", says("root"))
    project.build("tests/my.wat", says("beside"))
    project.test(
        '@pytest.mark.plugwasm("my.wat")\ndef test(wasm_plugin): assert wasm_plugin.call("say") == b"beside"'
    ).assert_outcomes(passed=1)


def test_a_harness_that_a_test_makes_finds_files_in_the_same_way(project: Project) -> None:
    project.build("build/my.wat", says("build"))
    project.build("tests/data/my.wat", says("data"))
    project.build("data/my.wat", says("not this one"))
    result = project.test(
        """
def test(make_wasm_harness):
    assert make_wasm_harness("build/my.wat").plugin().call("say") == b"build"
    assert make_wasm_harness("data/my.wat").plugin().call("say") == b"data"
    with pytest.raises(plugwasm.SourceError, match="none.wat"):
        make_wasm_harness("none.wat")
"""
    )
    result.assert_outcomes(passed=1)


def test_a_module_or_a_manifest_can_be_given_itself(project: Project) -> None:
    result = project.test(f"""
WAT = {says("here")!r}.encode()
@pytest.mark.plugwasm(WAT)
def test_module(wasm_plugin): assert wasm_plugin.call("say") == b"here"
@pytest.mark.plugwasm({{"wasm": [{{"data": WAT}}]}})
def test_manifest(wasm_plugin): assert wasm_plugin.call("say") == b"here"
""")
    result.assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("builds", "marker", "ids"),
    [
        (["build/debug/my.wat", "build/release/my.wat"], '"build/*/my.wat"', ["debug", "release"]),
        (["build/a.wat", "build/b.wat"], '"build/*.wat"', ["a", "b"]),
        (["build/a.wat", "b.wat"], '"build/a.wat", "b.wat"', ["build/a", "b"]),
    ],
)
def test_a_test_runs_once_for_each_build(
    project: Project, builds: list[str], marker: str, ids: list[str]
) -> None:
    for build in builds:
        project.build(build, says("x"))
    code = f'@pytest.mark.plugwasm({marker})\ndef test(wasm_plugin): assert wasm_plugin.call("say") == b"x"'
    result = project.test(code, "tests/test_it.py", "-v")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines([f"*test_it.py::test[[]{name}[]] PASSED*" for name in ids])


def test_a_plugin_that_is_not_there_fails_the_test_and_says_where_it_was_looked_for(
    project: Project,
) -> None:
    result = project.test(
        '@pytest.mark.plugwasm("build/*.wasm")\ndef test_marked(wasm_plugin): pass\ndef test_unsaid(wasm_plugin): pass\n'
        "def test_unrelated(): pass"
    )
    result.assert_outcomes(errors=2, passed=1)
    result.stdout.fnmatch_lines(
        [
            f"*there is no plugin to test: nothing fits 'build/[*].wasm' in `{project.root}/tests` and `{project.root}`; has it been built?",
            "*which plugin is under test? Say so with `@pytest.mark.plugwasm(*",
        ]
    )


def test_a_failing_test_shows_what_the_plugin_did(project: Project) -> None:
    project.build("my.wat", LOGS)
    result = project.test(
        """
@pytest.mark.plugwasm("my.wat")
def test_fails(wasm_plugin, make_wasm_harness):
    make_wasm_harness(b"(module)")
    wasm_plugin.call("say", "something")
    assert False

@pytest.mark.plugwasm("my.wat")
def test_passes(wasm_plugin):
    wasm_plugin.call("say", "quiet")
""",
        "tests/test_it.py",
        "-rP",
    )
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(
        [
            "*- What plugin my did -*",
            "say('something') -> b'*' (* fuel)",
            "    trace: trace line",
            "    debug: debug line",
            "*warn: warn line",
        ]
    )
    result.stdout.no_fnmatch_line("*quiet*")


def test_what_is_not_expected_is_told_in_one_failure(project: Project) -> None:
    project.build("my.wat", ASKS)
    result = project.test(
        "@pytest.mark.plugwasm('my.wat')\ndef test(wasm_plugin):\n    wasm_plugin.call('ask')"
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "E   *UnexpectedHostCallError: `ask` of plugin `my`: the test does not expect the host function `ask` to be called*(b'what')",
            "E   *to answer it: harness.host('ask', returns=…)",
            "*What plugin my did*",
        ]
    )
    result.stdout.no_fnmatch_line("*plugwasm/*.py:*")


def test_the_marker_is_known_and_the_fixtures_are_listed(project: Project) -> None:
    project.test(
        "@pytest.mark.plugwasm\ndef test(): pass", "tests/test_it.py", "--strict-markers"
    ).assert_outcomes(passed=1)
    result = project.pytester.runpytest_inprocess("-p", "plugwasm._pytest_plugin", "--fixtures")
    for name in ("wasm_plugin", "wasm_harness", "make_wasm_harness"):
        result.stdout.fnmatch_lines([f"{name} -- *"])


def test_a_run_without_plugins_imports_nothing_of_plugwasm_but_the_fixtures(
    project: Project,
) -> None:
    (project.root / "test_it.py").write_text(
        "import sys\ndef test():\n    assert {m for m in sys.modules if m.startswith('plugwasm')} == {'plugwasm', 'plugwasm._pytest_plugin'}\n"
        "    assert not {'wasmtime', 'msgspec', 'urllib3'} & set(sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "plugwasm._pytest_plugin",
        "-p",
        "no:cacheprovider",
        "-W",
        "error",
    ]
    run = subprocess.run(
        command, cwd=project.root, env=environment, capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_importing_the_harness_does_not_import_pytest() -> None:
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import plugwasm.testing; assert 'pytest' not in sys.modules"
    subprocess.run([sys.executable, "-I", "-c", program], check=True, timeout=60)


def test_it_is_found_by_its_entry_point(project: Project) -> None:
    info = project.root / "site" / "plugwasm-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugwasm\nVersion: 0\n")
    (info / "entry_points.txt").write_text("[pytest11]\nplugwasm = plugwasm._pytest_plugin\n")
    (info / "RECORD").write_text(
        "".join(f"{path.relative_to(ROOT)},,\n" for path in (ROOT / "plugwasm").rglob("*.py"))
    )
    project.build("my.wat", says("x"))
    (project.root / "test_it.py").write_text(
        "import pytest\n@pytest.mark.plugwasm('my.wat')\ndef test(wasm_plugin): assert wasm_plugin.call('say') == b'x'"
    )
    environment = os.environ | {"PYTHONPATH": f"{info.parent}{os.pathsep}{ROOT}"}
    del environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"]
    run = subprocess.run(
        command, cwd=project.root, env=environment, capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_example_of_an_authors_tests_passes(project: Project) -> None:
    for name in (
        "test_count_vowels.py",
        "count_vowels.wasm",
        "http_get.wasm",
        "host_functions.wasm",
    ):
        (project.root / "examples").mkdir(exist_ok=True)
        (project.root / "examples" / name).write_bytes((EXAMPLES / name).read_bytes())
    # In a process of its own, since what other tests in this one have left behind would be warned of here.
    result = project.pytester.runpytest_subprocess(
        "-p", "plugwasm._pytest_plugin", "-p", "no:cacheprovider", "-W", "error"
    )
    assert result.parseoutcomes().keys() == {"passed"}
