"""The operating system and the Python process. Nothing here knows WebAssembly.

native_threads     threads and locks of the system, also where gevent or eventlet replaced Python's
daemon_threads     threads that work for a `map` or for an awaited call
finalizer          release of a C resource when its owner is freed
fork               what a fork waits for
new_files          files that are written in one step
descriptors        file descriptors that someone else may have closed and reused
child_processes    processes that were started, and have to be ended
python_executable  the interpreter that child processes run, and the paths they need
"""
