"""Tests of plugwasm: a folder for each room of the package, and `security/` for attacks.

`support/` has what several of them use: guests, servers, threads, processes. `package/` is about
the package as a whole: its public names, errors, types, documents and examples, and programs
written for the official SDK. `platform/` is about threads, forks, signals, interpreters and
greenlets. `hammer/` and `test_fuzz.py` look for faults at random.
"""
