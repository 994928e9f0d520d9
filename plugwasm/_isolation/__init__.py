"""Plugins in a process of their own. The application's side of it trusts nothing that comes back.

plugin        `IsolatedPlugin`
process       starts, watches, ends and reaps a worker: the application's side
remote_guest  what host functions of the application see of a guest that runs in a worker
worker_main   the program of a worker: engine, kernel, linking and WASI
confinement   how a worker gives up what it does not need, before it has seen any of the guest
protocol      messages between the two
framing       how a message travels

The socket that they share is all that a worker has. Host functions, vars, config, HTTP and the log stay with the application, and what a
guest asks of them is asked across. Messages are msgpack with a fixed schema, decoded strictly. Exceptions do not cross: those of the
application are kept where they were raised, and of those of the worker only the class's name and plain fields travel. Nothing is unpickled.
"""
