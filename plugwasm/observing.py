"""Observers: how long a call took and where, what it used, and what the plugin asked the host for.

    plugin = plugwasm.Plugin("count_vowels.wasm", observe=True)
    result = plugin.call("count_vowels", "Hello", returns=plugwasm.Measured[str])
    result.value, result.call.guest_seconds, result.call.memory_bytes

    # A line on stderr for each call and host call; a log record for each call; your own observers.
    plugwasm.Plugin("count_vowels.wasm", observe=observing.Trace())
    plugwasm.Plugin("count_vowels.wasm", observe=observing.CallLog())
    plugwasm.Plugin("count_vowels.wasm", observe=[A(), B()])

A plugin is observed from its start or not at all, so that others pay nothing. An exception of an
observer is logged, and changes nothing else.
"""

from ._runtime.observers import Call, CallLog, HostCall, HttpExchange, Measured, Observer, Trace

__all__ = ["Call", "CallLog", "HostCall", "HttpExchange", "Measured", "Observer", "Trace"]
