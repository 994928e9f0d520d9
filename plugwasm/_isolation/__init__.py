"""Plugins in a process of their own. The application's side trusts nothing that comes back.

plugin           `IsolatedPlugin`
compiled_plugin  a plugin whose compiled code is in a worker
startup          from a process to a worker that is confined and has loaded a plugin
process          starts, watches, ends and reaps a worker: the application's side
remote_guest     a guest in a worker, as host functions of the application see it
worker_errors    errors that a worker reports
worker_main      the program of a worker: engine, kernel, linking and WASI
confinement      a worker's limits, file access and system calls
protocol         messages between the two
framing          transport of messages

The socket between them is all that a worker has. Host functions, vars, config, HTTP and the log
stay with the application, which the worker asks for them. Messages are msgpack with a fixed schema,
decoded strictly. Exceptions are not sent: those of the application are kept where they were raised,
and of those of the worker only the class's name and plain fields are sent. Nothing is unpickled.
"""
