"""plugwasm against the official `extism` package: one table from one run (`python -m benchmarks`).

    __main__    the command line, and the environment of both sides
    cases       measurements inside this process
    processes   measurements that need a new process each time: start-up, loading, memory
    child       the program of those processes
    plugins     the modules, the same bytes for both sides
    measure     rounds, samples and statistics
    table       the table
    against     another revision of plugwasm instead of the peer
    machine     the machine that figures were measured on
    growth      docs/performance.md: how cost grows, and where the time goes

Both sides run the same code: plugwasm has the official names, so a side is the module that they are
imported from.
"""
