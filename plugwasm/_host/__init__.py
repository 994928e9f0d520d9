"""The host's side of one plugin instance, and all that it can import.

guest             the state of one instance; the environment of its host callbacks
grants            what a plugin was granted, shared by its instances
kernel            the Wasm module that serves memory, input and output, and keeps config and vars
kernel_requests   what the kernel asks the host for
env               `extism:host/env`: config, vars, HTTP, log
vars              a plugin's vars and their limit
http_request      the request document of `http_request`
plugin_log        a plugin's log
deadline          the ticker that ends calls at their deadline
memory_budget     the limit on all memories of a plugin
functions         host functions of the application
annotations       conversions that the annotations of a host function ask for
typed_bodies      what runs a host function, made for its signature
registry          host functions that `host_fn` registered
current_plugin    the plugin that calls a host function, as that sees it
wasm_values       types of Wasm values, and their 64 bits
observed_values   values of calls as observers see them
codecs            values to bytes and back: JSON, MessagePack
conversion        bytes to typed values, by msgspec and pydantic
decode_errors     what was wrong with such bytes, and where
hashing           limits on values from outside that go into sets and dicts
error_location    the key of a value that could not be read
options           checks of options that applications pass
event_loop        coroutines of `async def` host functions, in the task that awaits the call
thread_call       calls that a task awaits while they run in a thread
task              the running task of asyncio or trio
greenlets         only one greenlet of a thread may be in guests at a time
waiting_calls     calls whose host functions are under way
log_handlers      logging functions of the official SDK
"""
