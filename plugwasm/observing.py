"""Observers: how long a call took and where, what it used, and what the plugin asked the host for.

    plugin = plugwasm.Plugin("count_vowels.wasm", observe=True)
    result = plugin.call("count_vowels", "Hello", returns=plugwasm.Measured[str])
    result.value, result.call.guest_seconds, result.call.memory_bytes

    plugwasm.Plugin("count_vowels.wasm", observe=observing.Trace())        # each call and host call as a line on stderr
    plugwasm.Plugin("count_vowels.wasm", observe=observing.CallLog())      # a record of logging for each call
    plugwasm.Plugin("count_vowels.wasm", observe=[A(), B()])               # observers of your own

A plugin is observed or not from the start, so that all others pay nothing for it. What an observer raises is logged, and changes nothing.
"""

from ._runtime.observers import Call, CallLog, HostCall, HttpExchange, Measured, Observer, Trace

__all__ = ["Call", "CallLog", "HostCall", "HttpExchange", "Measured", "Observer", "Trace"]
