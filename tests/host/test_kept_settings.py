"""Settings that the kernel keeps: asked for once, and again when the config has changed."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from plugwasm import BadHandleError, IsolatedPlugin, Limits, OutOfMemoryError, Plugin, PluginPool
from plugwasm._host.functions import infer_function
from tests.support.guests import export, guest, number

KINDS = pytest.mark.parametrize("kind", [Plugin, IsolatedPlugin])
ASKS = guest(
    export("get", "(call $give (call $config_get (call $copy)))")
    + export("twice", "(drop (call $config_get (call $copy))) (call $give (call $config_get (call $copy)))")
    + export("around", "(drop (call $config_get <<k>>)) (call $change) (call $give (call $config_get <<k>>))")
    + export("bad", "(drop (call $config_get (i64.const 77)))")
    + export("null", "(drop (call $config_get (i64.const 0))) (call $give (call $config_get (i64.const 0)))")
    + export("freed", "(local.set $k <<k>>) (local.set $v (call $config_get (local.get $k))) (call $answer (call $length (local.get $k)))", "(local $k i64) (local $v i64)")
    + export("written", "(local.set $v (call $config_get <<k>>)) (call $store_u8 (local.get $v) (i32.const 88)) (call $give (call $config_get <<k>>))", "(local $v i64)")
    + export("full", "(loop $again (br_if $again (i64.ne (call $config_get <<k>>) (i64.const 0))))")
    + export("until", "(loop $again (local.set $v (call $config_get <<k>>)) (local.set $n (call $length (local.get $v))) (call $free (local.get $v)) (br_if $again (i64.ne (local.get $n) (i64.const 3))))", "(local $v i64) (local $n i64)"),
    '(import "extism:host/user" "change" (func $change))',
)  # fmt: skip


def made(kind: Any = Plugin, change: Any = lambda: None, **options: Any) -> Any:
    def called() -> None:
        change()

    return kind(ASKS, functions=[infer_function(None, "change", called)], **options)


class Counted(dict[str, str]):
    """Counts how often it is asked."""

    asked = 0

    def get(self, key: str, default: Any = None) -> Any:
        self.asked += 1
        return super().get(key, default)


def test_setting_is_asked_for_once() -> None:
    """A setting, and one that is not there, are fetched once in the life of an instance."""
    config = Counted(k="value")
    with made() as plugin:
        plugin._config = config
        for _ in range(5):
            assert plugin.call("twice", "k") == b"value"
            assert plugin.call("twice", "missing") == b""
        assert config.asked == 2


@KINDS
def test_changed_config_is_seen(kind: Any) -> None:
    """The next `config_get` sees a changed config: other values, keys that came and keys that went."""
    with made(kind, config={"k": "one"}) as plugin:
        assert plugin.call("twice", "k") == b"one"
        assert plugin.call("twice", "new") == b""
        plugin.update_config({"k": "two", "new": "there"})
        assert plugin.call("twice", "k") == b"two"
        assert plugin.call("twice", "new") == b"there"
        plugin.update_config({"k": None})
        assert plugin.call("twice", "k") == b""
        assert plugin.call("twice", "new") == b"there"


@KINDS
def test_host_function_changes_config(kind: Any) -> None:
    """A host function that changes the config is seen by the rest of the call."""
    plugins: list[Any] = []
    with made(kind, lambda: plugins[0].update_config({"k": "two"}), config={"k": "one"}) as plugin:
        plugins.append(plugin)
        assert plugin.call("around") == b"two"


def test_thread_changes_config() -> None:
    """A guest that asks in a loop sees what another thread sets."""
    with made(config={"k": "x"}, limits=Limits(timeout=30)) as plugin:
        thread = threading.Thread(target=plugin.call, args=("until",))
        thread.start()
        for i in range(200):
            plugin.update_config({"k": "xx" if i % 2 else "x"})
        plugin.update_config({"k": "end"})
        thread.join()
        assert plugin.call("get", "k") == b"end"


def test_pool_restores_config() -> None:
    """The config of a lease ends with the lease, also in the kernel."""
    with PluginPool(
        guest(export("get", "(call $give (call $config_get (call $copy)))")), size=1
    ) as pool:
        with pool.plugin() as plugin:
            plugin.update_config({"k": "mine"})
            assert plugin.call("get", "k") == b"mine"
        with pool.plugin() as plugin:
            assert plugin.call("get", "k") == b""


@pytest.mark.parametrize(
    "key", ["", "a", "12345678", "123456789", "ä", "k" * 512, "k" * 513, "k" * 5000]
)
@pytest.mark.parametrize("size", [0, 1, 8, 1023, 1024, 1025, 2048, 5000, 100_000])
def test_keys_and_values_of_all_sizes(key: str, size: int) -> None:
    """Keys and values of all sizes are found, the first time and again."""
    value = "v" * size
    with made(config={key: value, key + "x": "other"}) as plugin:
        for _ in range(3):
            assert plugin.call("get", key, returns=str) == value
            assert plugin.call("get", key + "x") == b"other"


def test_keys_that_are_not_utf8() -> None:
    """A key that is not UTF-8 names nothing, and does not pass for another."""
    with made(config={"\ufffd": "replaced", "a": "a"}) as plugin:
        for _ in range(3):
            for key in (b"\xff", b"a\x00", b"\x00a", b"\xed\xa0\x80"):
                assert plugin.call("get", key) == b""
            assert plugin.call("get", "\ufffd") == b"replaced"


def test_more_settings_than_are_kept() -> None:
    """A plugin may have more settings than the kernel keeps."""
    config = {f"key {i}": f"{i}" * 20 for i in range(500)}
    with made(config=config) as plugin:
        for _ in range(2):
            for key, value in config.items():
                assert plugin.call("get", key, returns=str) == value


@KINDS
def test_bad_and_null_keys(kind: Any) -> None:
    """A handle that is no block is an error; the null handle is the key of no characters."""
    with made(kind, config={"": "empty"}) as plugin:
        with pytest.raises(BadHandleError, match="config_get"):
            plugin.call("bad")
        assert plugin.call("null") == b"empty"


@KINDS
def test_key_is_freed_and_value_is_a_copy(kind: Any) -> None:
    """The key is the host's and freed; the value is the guest's, which cannot change the setting."""
    with made(kind, config={"k": "value"}) as plugin:
        for _ in range(3):
            assert number(plugin.call("freed")) == 0
            assert plugin.call("written") == b"value"


def test_no_room_for_a_kept_setting() -> None:
    """A kept setting for which there is no room in memory is an error that says so."""
    limits = Limits(memory_bytes=10 * 65536)
    with (
        made(config={"k": "v" * 2000}, limits=limits) as plugin,
        pytest.raises(OutOfMemoryError, match="no room for 2000 bytes"),
    ):
        plugin.call("full")
