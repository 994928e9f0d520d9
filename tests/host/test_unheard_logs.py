"""Messages that nobody would hear are dropped in the kernel, until somebody listens."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from plugwasm import BadHandleError, CancelledError, Limits, Plugin
from plugwasm._host.functions import infer_function
from plugwasm._host.kernel.table import HEARD, NOBODY
from plugwasm._host.plugin_log import LEVEL_OFF
from tests.support.guests import LOOP, export, guest, number
from tests.support.observers import CollectingObserver

SAYS = guest(
    export("say", "(call $log_error (call $copy))")
    + export("info", "(call $log_info <<info>>)")
    + export("level", "(call $answer (i64.extend_i32_s (call $get_log_level)))")
    + export("bad", "(call $log_error <<good>>) (call $log_error (i64.const 77))")
    + export("null", "(call $log_error <<good>>) (call $log_error (i64.const 0))")
    + export("often", "(loop $again (call $log_error <<again>>) (br $again))")
    + export("around", "(call $log_error <<before>>) (call $change) (call $log_error <<after>>)")
    + export(
        "freed",
        """(local.set $k <<twice>>) (call $log_error <<first>>) (call $log_error (local.get $k))
        (local.set $n (call $length (local.get $k))) (call $free (local.get $k))
        (local.set $v <<stays>>) (call $free (local.get $k))
        (call $answer (i64.add (i64.mul (local.get $n) (i64.const 100)) (call $length (local.get $v))))""",
        "(local $k i64) (local $v i64) (local $n i64)",
    )
    + export(
        "many",
        """(loop $again (call $log_error <<many>>)
        (br_if $again (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 5000))))""",
        "(local $i i32)",
    ),
    '(import "extism:host/user" "change" (func $change))',
)


class Kept(logging.Handler):
    """Keeps messages."""

    def __init__(self, level: int = 0) -> None:
        super().__init__(level)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


@contextmanager
def silence() -> Iterator[None]:
    """A time in which there is no handler but those that the test adds. No fixture: pytest adds its own handlers after those."""
    loggers = [
        logging.getLogger(name)
        for name in ("", "plugwasm", "plugwasm.plugin", "plugwasm.plugin.plugin")
    ]
    before = [
        (logger, logger.handlers, logger.level, [*logger.filters], logger.propagate)
        for logger in loggers
    ]
    for logger in loggers:
        logger.handlers = [h for h in logger.handlers if type(h) is logging.NullHandler]
    try:
        yield
    finally:
        for logger, handlers, level, filters, propagate in before:
            logger.handlers, logger.filters, logger.propagate = handlers, filters, propagate
            logger.setLevel(level)


def made(change: Callable[[], None] = lambda: None, **options: Any) -> Plugin:
    def called() -> None:
        change()

    return Plugin(SAYS, functions=[infer_function(None, "change", called)], **options)


def heard_word(plugin: Plugin) -> int:
    assert plugin._guest is not None
    table = plugin._guest.kernel.table
    assert table is not None
    return int(table.words[HEARD])


def test_silence_stays_in_the_kernel() -> None:
    """The kernel asks once, in all calls, while nobody listens."""
    with silence(), made() as plugin:
        plugin.call("say", "x")
        assert heard_word(plugin) == NOBODY
        written: list[str] = []

        class Log:
            is_still_unheard = plugin.compiled_plugin._grants.log.is_still_unheard

            def write(self, level: str, *rest: object) -> None:
                written.append(level)

        guest_ = plugin._guest
        assert guest_ is not None
        guest_.log = Log()  # type: ignore[assignment]
        for _ in range(3):
            plugin.call("say", "x")
            plugin.call("info")
            assert number(plugin.call("level")) == LEVEL_OFF
        assert written == []
        assert heard_word(plugin) == NOBODY


def _add_to(name: str) -> Callable[[logging.Handler], None]:
    return lambda handler: logging.getLogger(name).addHandler(handler)


def _replace_list(handler: logging.Handler) -> None:
    logging.getLogger("plugwasm").handlers = [handler]


def _replace_in_place(handler: logging.Handler) -> None:
    logging.getLogger("plugwasm").handlers[:] = [handler]


def _filter(handler: logging.Handler) -> None:
    logging.getLogger("plugwasm.plugin.plugin").addFilter(
        lambda record: handler.handle(record) is None
    )


LISTENERS = {
    "root": _add_to(""),
    "package": _add_to("plugwasm"),
    "plugins": _add_to("plugwasm.plugin"),
    "plugin": _add_to("plugwasm.plugin.plugin"),
    "another list": _replace_list,
    "the same list": _replace_in_place,
    "a filter": _filter,
}


@pytest.mark.parametrize("listener", LISTENERS)
def test_listener_between_calls(listener: str) -> None:
    """A handler, wherever it is added, hears the next message."""
    kept = Kept()
    with silence(), made() as plugin:
        plugin.call("say", "unheard")
        plugin.call("say", "unheard")
        LISTENERS[listener](kept)
        plugin.call("say", "heard")
        assert kept.said == ["heard"]


@pytest.mark.parametrize("listener", LISTENERS)
def test_listener_from_host_function(listener: str) -> None:
    """A handler that a host function adds hears the rest of the same call."""
    kept = Kept()
    with silence(), made(lambda: LISTENERS[listener](kept)) as plugin:
        plugin.call("around")
        assert kept.said == ["after"]


def test_listener_from_another_thread() -> None:
    """A handler that another thread adds while a call runs hears the rest of the call."""
    kept = Kept()
    begun = threading.Event()
    with silence(), made(begun.set, limits=Limits(timeout=20, log_lines_per_second=None)) as plugin:
        plugin.call("around")

        def run() -> None:
            with pytest.raises((TimeoutError, CancelledError)):
                plugin.call("often")

        thread = threading.Thread(target=run)
        thread.start()
        handle = plugin.cancel_handle()
        logging.getLogger("plugwasm").addHandler(kept)
        while not kept.said and thread.is_alive():
            thread.join(0.01)
        handle.cancel()
        thread.join()
        assert kept.said


def test_replaced_call_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tools that put a function of their own in place of `Logger.callHandlers` get the messages,
    whether they did so before or after the plugin began to log.
    """
    said: list[str] = []

    def call_handlers(self: logging.Logger, record: logging.LogRecord) -> None:
        said.append(record.getMessage())

    with silence(), made() as plugin:
        plugin.call("say", "unheard")
        monkeypatch.setattr(logging.Logger, "callHandlers", call_handlers)
        plugin.call("say", "one")
        plugin.call("say", "two")
    assert said == ["one", "two"]


def test_levels_follow_the_application() -> None:
    """Only what is below the level is dropped, and the level may change at any time."""
    kept = Kept(logging.WARNING)
    top = logging.getLogger("plugwasm")
    with silence(), made() as plugin:
        top.addHandler(kept)
        top.setLevel(1)
        for level, expected in ((logging.WARNING, 3), (logging.INFO, 2), (5, 0), (50, LEVEL_OFF)):
            kept.setLevel(level)
            kept.said.clear()
            plugin.call("info")
            plugin.call("say", "error")
            plugin.call("info")
            plugin.call("say", "error")
            heard = [
                name
                for name, value in (("info", logging.INFO), ("error", logging.ERROR))
                if value >= level
            ]
            assert kept.said == heard * 2
            assert number(plugin.call("level")) == expected
        kept.setLevel(0)
        logging.disable(logging.INFO)
        try:
            kept.said.clear()
            plugin.call("info")
            plugin.call("say", "error")
            assert kept.said == ["error"]
        finally:
            logging.disable(logging.NOTSET)
        plugin.call("info")
        assert kept.said == ["error", "info"]


def test_bad_handles_unheard() -> None:
    """A handle that is no block is an error, whether anybody hears the message or not."""
    with silence(), made() as plugin:
        with pytest.raises(BadHandleError, match="log_error"):
            plugin.call("bad")
        plugin.call("null")


def test_unheard_message_is_freed() -> None:
    """The block of a dropped message is freed, and may be freed again."""
    with silence(), made() as plugin:
        assert number(plugin.call("freed")) == len("stays")
    kept = Kept()
    with silence(), made() as plugin:
        logging.getLogger("plugwasm").addHandler(kept)
        assert number(plugin.call("freed")) == len("stays")
        assert kept.said == ["first", "twice"]


def test_unheard_messages_take_no_room() -> None:
    """Thousands of dropped messages in a call leave the memory as small as it was, and count
    towards no limit.
    """
    kept = Kept()
    with silence(), made(limits=Limits(log_lines_per_second=1)) as plugin:
        plugin.call("many")
        assert plugin._guest is not None
        assert plugin._guest.kernel.pages() == 2
        logging.getLogger("plugwasm").addHandler(kept)
        plugin.call("say", "heard")
        assert kept.said == ["heard"]


def test_observed_plugins_log_to_observers() -> None:
    """Observers see the calls of log functions, whether anybody hears the messages or not."""
    observer = CollectingObserver()
    with silence(), made(observe=observer) as plugin:
        plugin.call("say", "seen")
        plugin.call("say", "seen")
    assert [call.name for call in observer.host_calls] == ["log_error"] * 2


def test_unheard_loop_ends_at_deadline() -> None:
    """A guest that logs in a loop, or loops after it has logged, ends at its deadline."""
    source = guest(export("run", f"(call $log_error <<x>>) {LOOP}"))
    with silence():
        for plugin, name in (
            (made(limits=Limits(timeout=0.05)), "often"),
            (Plugin(source, limits=Limits(timeout=0.05)), "run"),
        ):
            with plugin, pytest.raises(TimeoutError):
                plugin.call(name)
