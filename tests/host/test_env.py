"""The host's side of `extism:host/env`: config, vars, logs, HTTP when it is not allowed, and
freed handles."""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import plugwasm
from plugwasm import BadHandleError, GuestError, OptionError, Plugin
from plugwasm._host.plugin_log import LEVEL_OFF, LEVELS, MAX_MESSAGE, TRACE
from plugwasm._host.vars import Vars
from tests.support.guests import export, guest, manifest, number


@pytest.fixture(autouse=True)
def _own_loggers() -> Iterator[None]:
    """Restore log handlers and levels after each test."""
    logger = logging.getLogger("plugwasm")
    handlers, level = list(logger.handlers), logger.level
    yield
    for handler in logger.handlers:
        if handler not in handlers:
            handler.close()
    logger.handlers[:] = handlers
    logger.setLevel(level)
    logging.disable(logging.NOTSET)


# Config

CONFIG = guest(
    export("get", "(call $give (call $config_get (call $copy)))")
    + export("handle", "(call $answer (call $config_get <<k>>))")
)


def test_config_of_plugin_over_manifest() -> None:
    """Config comes from the plugin and the manifest, and the plugin's wins."""
    with Plugin(
        manifest(CONFIG, config={"a": "manifest", "b": "manifest"}),
        config={"b": "plugin", "c": "plugin"},
    ) as plugin:
        assert [plugin.call("get", key) for key in "abcd"] == [
            b"manifest",
            b"plugin",
            b"plugin",
            b"",
        ]
        assert plugin.config == {"a": "manifest", "b": "plugin", "c": "plugin"}


@pytest.mark.parametrize("value", ["x", "äöü 😀", "a\0b", "x" * 100_000], ids=len)
def test_a_value_arrives_whole(value: str) -> None:
    with Plugin(CONFIG, config={"ключ": value}) as plugin:
        assert plugin.call("get", "ключ") == value.encode()


def test_an_empty_value_reads_as_unset() -> None:
    with Plugin(CONFIG, config={"k": ""}) as plugin:
        assert number(plugin.call("handle")) == 0
        plugin.update_config({"k": "x"})
        assert number(plugin.call("handle")) != 0


def test_config_changed_between_calls() -> None:
    """The config of one plugin can be changed between calls."""
    compiled = plugwasm.CompiledPlugin(manifest(CONFIG, config={"a": "1", "b": "2"}))
    with Plugin(compiled, config={"c": "3"}) as one, Plugin(compiled) as two:
        one.call("get", "a")
        one.update_config({"a": "changed", "b": None, "unknown": None, "d": "new"})
        assert [one.call("get", key) for key in "abcd"] == [b"changed", b"", b"3", b"new"]
        assert [two.call("get", key) for key in "abcd"] == [b"1", b"2", b"", b""]
        one.reset()
        assert one.call("get", "a") == b"changed"
        with Plugin(compiled) as three:
            assert three.config == {"a": "1", "b": "2"}


def test_config_changed_during_call() -> None:
    """The config can be changed during a call."""
    source = guest(
        export(
            "run",
            "(drop (call $config_get <<k>>)) (call $back) (call $give (call $config_get <<k>>))",
        ),
        '(import "extism:host/user" "back" (func $back))',
    )
    back = plugwasm.Function(None, "back", [], [], lambda *_: plugin.update_config({"k": "new"}))
    with Plugin(source, config={"k": "old"}, functions=[back]) as plugin:
        assert plugin.call("run") == b"new"


def test_config_argument_is_copied() -> None:
    """The application's config argument is copied."""
    config = {"a": "1"}
    with Plugin(CONFIG, config=config) as plugin:
        config["a"] = "changed"
        plugin.config["a"] = "changed"
        assert plugin.call("get", "a") == b"1"


@pytest.mark.parametrize("config", [{"a": 1}, {1: "a"}, {"a": ["b"]}, {"a": b"b"}], ids=repr)
def test_config_not_text_is_refused(config: dict[Any, Any]) -> None:
    """A config value that is not text is refused and not shown."""
    with pytest.raises(OptionError, match="config"):
        Plugin(CONFIG, config=config)
    with Plugin(CONFIG, config={"kept": "yes"}) as plugin:
        with pytest.raises(OptionError):
            plugin.update_config(config)
        assert plugin.config == {"kept": "yes"}


def test_config_secrets_are_not_shown() -> None:
    """No `repr` and no error shows a config value."""
    with Plugin(
        manifest(CONFIG, config={"token": "s3cret-1"}), config={"other": "s3cret-2"}
    ) as plugin:
        shown = [
            repr(plugin),
            repr(plugin.compiled_plugin),
            repr(plugin.compiled_plugin._spec),
            repr(plugin.cancel_handle()),
        ]
        with pytest.raises(plugwasm.Error) as caught:
            plugin.call("nothing")
        shown += [str(caught.value), repr(caught.value)]
    with pytest.raises(OptionError) as refused:
        Plugin(CONFIG, config={"token": ["s3cret-3"]})  # type: ignore[dict-item]
    assert "s3cret" not in " ".join([*shown, str(refused.value)])


# Vars

VARS = guest(
    export("set_k", "(call $var_set <<k>> (call $copy))")
    + export("get_k", "(call $give (call $var_get <<k>>))")
    + export("delete_k", "(call $var_set <<k>> (i64.const 0))")
    + export("set_named", "(call $var_set (call $copy) <<v>>)")
    + export("get_named", "(call $give (call $var_get (call $copy)))")
    + export("handle", "(call $answer (call $var_get <<k>>))")
    + export("trap", "unreachable")
)


def test_a_var_is_kept_across_calls() -> None:
    with Plugin(VARS) as plugin:
        assert number(plugin.call("handle")) == 0
        for value in (b"one", bytes(range(256)), b"x" * 100_000):
            plugin.call("set_k", value)
            assert plugin.call("get_k") == value
            assert plugin.call("get_k") == value
        plugin.call("delete_k")
        assert plugin.call("get_k") == b""
        plugin.call("delete_k")


def test_var_set_to_nothing_is_deleted() -> None:
    """Setting a var to the null handle deletes it."""
    with Plugin(VARS) as plugin:
        plugin.call("set_k", b"value")
        plugin.call("set_k", b"")
        assert number(plugin.call("handle")) == 0


def test_vars_belong_to_one_plugin() -> None:
    compiled = plugwasm.CompiledPlugin(VARS)
    with Plugin(compiled) as a, Plugin(compiled) as b:
        a.call("set_k", b"of a")
        assert b.call("get_k") == b""
        b.call("set_k", b"of b")
        assert a.call("get_k") == b"of a"


def test_vars_outlive_instance() -> None:
    """Vars outlive an instance and are removed by a reset."""
    with Plugin(VARS) as plugin:
        plugin.call("set_k", b"value")
        with pytest.raises(plugwasm.TrapError):
            plugin.call("trap")
        assert plugin.call("get_k") == b"value"
        plugin.reset()
        assert plugin.call("get_k") == b""


LIMIT = 100


@pytest.mark.parametrize(
    ("size", "fits"), [(LIMIT - 2, True), (LIMIT - 1, True), (LIMIT, False), (LIMIT + 1, False)]
)
def test_var_limit_counts_key_and_value(size: int, fits: bool) -> None:
    """The limit counts keys and values to the byte."""
    with Plugin(manifest(VARS, memory={"max_var_bytes": LIMIT})) as plugin:
        if fits:
            plugin.call("set_k", bytes(size))
            assert plugin.call("get_k") == bytes(size)
        else:
            with pytest.raises(GuestError, match=r"100 bytes.*max_var_bytes"):
                plugin.call("set_k", bytes(size))


def test_var_overwrite_replaces_size() -> None:
    """Overwriting a var replaces its size in the count."""
    with Plugin(manifest(VARS, memory={"max_var_bytes": LIMIT})) as plugin:
        for size in (LIMIT - 1, LIMIT - 1, 1, LIMIT - 1, 50, LIMIT - 1):
            plugin.call("set_k", bytes(size))
        plugin.call("delete_k")
        plugin.call("set_named", b"x" * (LIMIT - 1))
        assert plugin.call("get_named", b"x" * (LIMIT - 1)) == b"v"
        with pytest.raises(GuestError):
            plugin.call("set_named", b"y")


def test_var_default_limit() -> None:
    """The default limit is one megabyte."""
    with Plugin(VARS) as plugin:
        plugin.call("set_k", bytes(2**20 - 1))
        with pytest.raises(GuestError, match="1048576"):
            plugin.call("set_k", bytes(2**20))


@pytest.mark.parametrize("export", ["set_k", "set_named", "delete_k"])
def test_a_limit_of_zero_turns_vars_off(export: str) -> None:
    with Plugin(manifest(VARS, memory={"max_var_bytes": 0})) as plugin:
        assert plugin.call("get_k") == b""
        with pytest.raises(GuestError, match="disabled"):
            plugin.call(export, b"x")


def test_a_key_is_counted_in_bytes() -> None:
    with Plugin(manifest(VARS, memory={"max_var_bytes": 5})) as plugin:
        plugin.call("set_named", "ää")
        with pytest.raises(GuestError):
            plugin.call("set_named", "äää")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "a", "ä", "bb", "long key"]), st.none() | st.binary(max_size=12)
        ),
        max_size=30,
    ),
    st.integers(0, 40),
)
@settings(max_examples=200, deadline=None)
def test_vars_count_as_a_model_does(steps: list[tuple[str, bytes | None]], limit: int) -> None:
    model: dict[bytes, bytes] = {}
    vars = Vars(limit, 100)
    for text, value in steps:
        name = text.encode()
        if value is None:
            model.pop(name, None)
            vars.delete(name)
        else:
            changed = model | {name: value}
            fits = sum(len(k) + len(v) for k, v in changed.items()) <= limit
            assert vars.set(name, value) is fits
            model = changed if fits else model
        assert vars.snapshot() == model
        assert vars.used == sum(len(k) + len(v) for k, v in model.items()) <= limit
        assert vars.get(name) == model.get(name)


# Handles that are given away

OWNED = {
    "config_get": "(drop (call $config_get (global.get $h)))",
    "var_get": "(drop (call $var_get (global.get $h)))",
    "var_set": "(call $var_set <<k>> (global.get $h))",
    "log_trace": "(call $log_trace (global.get $h))",
    "log_error": "(call $log_error (global.get $h))",
    "http_request": "(drop (call $http_request (global.get $h) (i64.const 0)))",
}
BAD = "".join(
    export(f"{name}_bad", code.replace("(global.get $h)", "(i64.const 77777)"))
    for name, code in OWNED.items()
)
INNER = "".join(
    export(f"{name}_inner", "(global.set $h (i64.add (i64.const 8) <<0123456789abcdef>>))" + code)
    for name, code in OWNED.items()
)
OWNERSHIP = guest(
    "(global $h (mut i64) (i64.const 0))"
    + "".join(
        export(
            name,
            f"(global.set $h <<something>>) {code} (call $answer (call $length (global.get $h)))",
        )
        for name, code in OWNED.items()
    )
    + export(
        "var_key",
        "(global.set $h <<key>>) (call $var_set (global.get $h) <<v>>) (call $answer (call $length (global.get $h)))",
    )
    + export(
        "null",
        "(drop (call $config_get (i64.const 0))) (drop (call $var_get (i64.const 0))) (call $log_info (i64.const 0))",
    )
    + BAD
    + INNER
)


@pytest.mark.parametrize("name", [*(name for name in OWNED if name != "http_request"), "var_key"])
def test_host_frees_arguments(name: str) -> None:
    """The host frees the handles that it is passed."""
    with Plugin(OWNERSHIP) as plugin:
        assert number(plugin.call(name)) == 0


@pytest.mark.parametrize("name", OWNED)
@pytest.mark.parametrize("kind", ["bad", "inner"])
def test_bad_handle_is_error(name: str, kind: str) -> None:
    """The error for a bad handle names it and the function."""
    with Plugin(OWNERSHIP) as plugin:
        with pytest.raises(BadHandleError) as caught:
            plugin.call(f"{name}_{kind}")
        assert f"`{name}`" in str(caught.value)
        if kind == "bad":
            assert "77777" in str(caught.value)
        assert caught.value.function == f"{name}_{kind}"
        assert number(plugin.call("config_get")) == 0


def test_the_null_handle_is_empty_text() -> None:
    with Plugin(OWNERSHIP, config={"": "never"}) as plugin:
        plugin.call("null")


# Logs

LOGS = guest(
    "".join(export(level, f"(call $log_{level} (call $copy))") for level in LEVELS)
    + export("level", "(call $answer (i64.extend_i32_s (call $get_log_level)))")
)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(1, "plugwasm")
    return caplog


@pytest.mark.parametrize(
    ("level", "number"),
    [
        ("trace", TRACE),
        ("debug", logging.DEBUG),
        ("info", logging.INFO),
        ("warn", logging.WARNING),
        ("error", logging.ERROR),
    ],
)
def test_log_level_and_logger(logged: pytest.LogCaptureFixture, level: str, number: int) -> None:
    """A message becomes a record of its level and of the plugin's logger."""
    with Plugin(LOGS, name="a.plugin") as plugin:
        plugin.call(level, "a message: äöü %s %d {x}")
    (record,) = logged.records
    assert (record.name, record.levelno, record.getMessage()) == (
        "plugwasm.plugin.a_plugin",
        number,
        "a message: äöü %s %d {x}",
    )


def test_control_characters_are_escaped(logged: pytest.LogCaptureFixture) -> None:
    with Plugin(LOGS) as plugin:
        plugin.call("info", "a\0b\rc\x1b[31md\x7fe\x9bf\bg\x85h")
    assert logged.records[0].getMessage() == "a\\x00b\\x0dc\\x1b[31md\\x7fe\\x9bf\\x08g\\x85h"


def test_log_message_not_text(logged: pytest.LogCaptureFixture) -> None:
    """A message that is not text is logged with replacement characters."""
    with Plugin(LOGS) as plugin:
        plugin.call("info", b"a\xffb")
    assert logged.records[0].getMessage() == "a\ufffdb"


@pytest.mark.parametrize("length", [MAX_MESSAGE, MAX_MESSAGE + 1, 3 * MAX_MESSAGE])
def test_long_log_message_is_cut(logged: pytest.LogCaptureFixture, length: int) -> None:
    """A long message is truncated, and the record says so."""
    with Plugin(LOGS) as plugin:
        plugin.call("info", "x" * length)
    message = logged.records[0].getMessage()
    if length <= MAX_MESSAGE:
        assert message == "x" * length
    else:
        assert message == "x" * MAX_MESSAGE + f"… ({length - MAX_MESSAGE} more characters)"


@pytest.mark.parametrize(
    ("level", "answer"),
    [
        (1, 0),
        (TRACE, 0),
        (TRACE + 1, 1),
        (10, 1),
        (11, 2),
        (20, 2),
        (30, 3),
        (40, 4),
        (41, LEVEL_OFF),
        (logging.CRITICAL, LEVEL_OFF),
    ],
)
def test_log_level_told_to_guest(level: int, answer: int) -> None:
    """The guest can ask for the lowest level that is logged."""
    logger = logging.getLogger("plugwasm.plugin.told")
    logger.setLevel(level)
    with Plugin(LOGS, name="told") as plugin:
        assert number(plugin.call("level")) == answer
        logger.setLevel(logging.DEBUG)
        assert number(plugin.call("level")) == 1
        logging.disable(logging.CRITICAL)
        assert number(plugin.call("level")) == LEVEL_OFF == 2**31 - 1
    logger.setLevel(logging.NOTSET)


def test_the_level_of_a_parent_counts() -> None:
    logging.getLogger("plugwasm").setLevel(logging.ERROR)
    with Plugin(LOGS) as plugin:
        assert number(plugin.call("level")) == 4


def test_log_level_below_makes_no_record(caplog: pytest.LogCaptureFixture) -> None:
    """A level that is not logged makes no record."""
    caplog.set_level(logging.WARNING, "plugwasm")
    with Plugin(LOGS) as plugin:
        for level in LEVELS:
            plugin.call(level, level)
    assert [record.getMessage() for record in caplog.records] == ["warn", "error"]


def test_log_handler_exception_ends_call() -> None:
    """An exception of a log handler ends the call and is not lost."""

    class Fails(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            raise LookupError("a filter failed")

    logger, refuse = logging.getLogger("plugwasm.plugin.filtered"), Fails()
    logger.addFilter(refuse)
    try:
        with (
            Plugin(LOGS, name="filtered") as plugin,
            pytest.raises(LookupError, match="a filter failed"),
        ):
            plugin.call("error", "x")
    finally:
        logger.removeFilter(refuse)


@pytest.mark.parametrize(
    "ending",
    ["(call $error_set <<said>>)", "unreachable", "(call $output_set (i64.const 7) (i64.const 7))"],
)
def test_deadline_in_log_handler(ending: str) -> None:
    """A deadline that passes in a log handler raises one of our errors."""

    class Slow(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            time.sleep(0.12)

    logger, slow = logging.getLogger("plugwasm.plugin.slow"), Slow()
    logger.addHandler(slow)
    try:
        with Plugin(
            manifest(guest(export("run", f"(call $log_error <<x>>) {ending}")), timeout_ms=40),
            name="slow",
        ) as plugin:
            with pytest.raises(plugwasm.CallError) as caught:
                plugin.call("run")
            assert (caught.value.plugin, caught.value.function) == ("slow", "run")
    finally:
        logger.removeHandler(slow)


@pytest.mark.parametrize(
    "ending",
    ["(call $error_set <<said>>)", "unreachable", "(call $output_set (i64.const 7) (i64.const 7))"],
)
def test_fuel_almost_out(ending: str) -> None:
    """Fuel that is almost used up raises one of our errors."""
    compiled = plugwasm.CompiledPlugin(guest(export("run", ending)), fuel_limit=1_000_000)
    with Plugin(compiled) as plugin:
        with pytest.raises(plugwasm.CallError) as whole:
            plugin.call("run")
        used = plugin.fuel_used
    assert used is not None
    kinds = set()
    for limit in range(max(used - 60, 0), used + 60):
        with Plugin(
            plugwasm.CompiledPlugin(guest(export("run", ending)), fuel_limit=limit)
        ) as plugin:
            with pytest.raises(plugwasm.CallError) as caught:
                plugin.call("run")
            kinds.add(type(caught.value))
            assert plugin.fuel_used == min(limit, used)
    assert kinds == {plugwasm.OutOfFuelError, type(whole.value)}


# The official SDK's functions for logs


def test_collected_logs_are_drained() -> None:
    """Logs can be collected and drained."""
    lines: list[str] = []
    logger = plugwasm.set_log_custom(lines.append, "debug")
    with Plugin(LOGS, name="drained") as plugin:
        plugin.call("trace", "too low")
        plugin.call("debug", "one")
        plugin.call("error", "two")
        assert number(plugin.call("level")) == 1
    assert lines == []
    logger.drain()
    assert [line.rstrip("\n").rpartition(": ")[2] for line in lines] == ["one", "two"]
    assert all("drained" in line for line in lines)
    logger.drain()
    assert len(lines) == 2


def test_collected_logs_callback_changes() -> None:
    """The callback for collected logs can be changed."""
    lines: list[str] = []
    logger = plugwasm.set_log_custom(lambda line: None)
    with Plugin(LOGS) as plugin:
        plugin.call("info", "kept")
    logger.set_callback(lines.append)
    logger.drain()
    assert len(lines) == 1


@pytest.mark.parametrize("level", [None, "trace", "debug", "info", "warn", "error"])
def test_logs_can_be_written_to_a_file(tmp_path: Path, level: Any) -> None:
    path = tmp_path / "log.txt"
    plugwasm.set_log_file(str(path), level)
    with Plugin(LOGS) as plugin:
        for name in LEVELS:
            plugin.call(name, f"message of {name}")
    text = path.read_text(encoding="utf-8")
    names = list(LEVELS)
    for name in names:
        assert (f"message of {name}" in text) is (names.index(name) >= names.index(level or "info"))
    assert "TRACE" in text or level != "trace"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_logs_to_standard_streams(stream: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs can be written to the standard streams."""
    target = io.StringIO()
    monkeypatch.setattr(f"sys.{stream}", target)
    plugwasm.set_log_file(stream, "info")
    with Plugin(LOGS) as plugin:
        plugin.call("info", "shown")
    assert "shown" in target.getvalue()


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="trace, debug, info, warn, error"):
        plugwasm.set_log_custom(print, "verbose")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="verbose"):
        plugwasm.set_log_file("stdout", "verbose")  # type: ignore[arg-type]


# HTTP, which is refused

HTTP = guest(
    export("get", "(call $give (call $http_request (call $copy) (i64.const 0)))")
    + export("status", "(call $answer (i64.extend_i32_u (call $http_status_code)))")
    + export("headers", "(call $answer (call $http_headers))")
    + export("header_document", "(call $give (call $http_headers))")
)


@pytest.mark.parametrize("hosts", [None, []], ids=repr)
def test_no_host_by_default(hosts: list[str] | None) -> None:
    """No host is allowed unless it is named."""
    with (
        Plugin(manifest(HTTP, allowed_hosts=hosts)) as plugin,
        pytest.raises(plugwasm.EgressDeniedError, match="allowed_hosts"),
    ):
        plugin.call("get", '{"url": "http://127.0.0.1/"}')


def test_http_before_any_request() -> None:
    """Before any request, there is no status and there are no headers."""
    with Plugin(HTTP, http_response_headers=True) as plugin:
        assert number(plugin.call("status")) == 0
        assert number(plugin.call("headers")) == 0


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    import verify

    with verify.server() as address:
        yield address


@pytest.fixture
def http(address: str) -> Iterator[Plugin]:
    with Plugin(manifest(HTTP, allowed_hosts=["127.0.0.1"]), http_response_headers=True) as plugin:
        yield plugin


def test_http_response(http: Plugin, address: str) -> None:
    """A response has a body, a status and headers with lower-case names."""
    assert http.call("get", json.dumps({"url": f"http://{address}/hello"})) == b"hello"
    assert number(http.call("status")) == 200
    assert number(http.call("headers")) != 0
    headers = json.loads(http.call("header_document"))
    assert headers["content-length"] == "5"
    assert all(name == name.lower() and isinstance(value, str) for name, value in headers.items())


def test_http_headers_hidden_by_default(address: str) -> None:
    """Response headers are hidden unless enabled."""
    with Plugin(manifest(HTTP, allowed_hosts=["127.0.0.1"])) as plugin:
        assert plugin.call("get", json.dumps({"url": f"http://{address}/hello"})) == b"hello"
        assert number(plugin.call("headers")) == 0


@pytest.mark.parametrize(("path", "status"), [("/nowhere", 404), ("/broken", 500), ("/empty", 200)])
def test_http_status_is_no_error(http: Plugin, address: str, path: str, status: int) -> None:
    """A response with any status is no error."""
    body = http.call(
        "get",
        json.dumps({"url": f"http://{address}{path}", "method": "GET", "headers": {"x-a": "b"}}),
    )
    assert number(http.call("status")) == status
    assert (body == b"") is (path == "/empty")


def test_http_failure_clears_status(address: str) -> None:
    """A failed request leaves no status of an earlier one."""
    source = manifest(HTTP, allowed_hosts=["127.0.0.1"])
    with Plugin(source) as plugin:
        plugin.call("get", json.dumps({"url": f"http://{address}/hello"}))
        with pytest.raises(plugwasm.EgressDeniedError) as caught:
            plugin.call("get", json.dumps({"url": "http://localhost.example/"}))
        assert caught.value.function == "get"
        assert number(plugin.call("status")) == 0


@pytest.mark.parametrize(
    ("document", "part"),
    [
        ("{", "JSON"),
        ("[]", "an object"),
        ('{"url": 5}', "url"),
        ('{"method": "GET"}', "url"),
        ('{"url": "http://127.0.0.1/", "timeout": 5}', "timeout"),
        ('{"url": "http://127.0.0.1/", "headers": []}', "headers"),
        ('{"url": "http://127.0.0.1/", "headers": {"a": 5}}', "headers"),
        ('{"url": "http://127.0.0.1/", "method": 5}', "method"),
    ],
)
def test_http_invalid_request_names_field(http: Plugin, document: str, part: str) -> None:
    """The error for an invalid request document names the field."""
    with pytest.raises(plugwasm.EgressError, match=part) as caught:
        http.call("get", document)
    assert (caught.value.plugin, caught.value.function) == ("plugin", "get")


@pytest.mark.parametrize(("limit", "fits"), [(76_799, False), (76_800, True), (76_801, True)])
def test_a_body_is_limited_to_the_byte(address: str, limit: int, fits: bool) -> None:
    with Plugin(
        manifest(HTTP, allowed_hosts=["127.0.0.1"], memory={"max_http_response_bytes": limit})
    ) as plugin:
        document = json.dumps({"url": f"http://{address}/bytes"})
        if fits:
            assert plugin.call("get", document) == bytes(range(256)) * 300
        else:
            with pytest.raises(plugwasm.EgressError, match=str(limit)):
                plugin.call("get", document)
