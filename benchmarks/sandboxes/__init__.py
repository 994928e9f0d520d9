"""Ways to run a script that somebody else wrote, from Python: `python -m benchmarks.sandboxes`.

ways        what is compared: plugwasm's scripts, and what else is on PyPI or comes with Python
measuring   the rows, in rounds in which all ways take turns
tenants     a process with many scripts, which measures its own memory
__main__    the options, and the tables
"""
