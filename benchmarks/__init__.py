"""plugwasm against the official `extism` package: one table from one run (`python -m benchmarks`).

    __main__    the command line, and what both sides run in
    cases       what is measured inside this process
    processes   what takes a process of its own each time: start-up, loading, memory
    child       the program of those processes
    plugins     the modules, the same bytes for both sides
    measure     rounds, samples and statistics
    table       the table

Both sides run the same code: plugwasm offers the official names, so a side is just the module that they are imported from.
"""
