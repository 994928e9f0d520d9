"""Recordings: what a plugin was asked, what it asked the host for and was answered, and the same once more from the answers.

format      a recording as a file
files       writing them
weighing    what one would take, before it is read
words       a recording's parts as text, and what two of them differ in
journal     takes down the life of an instance
effects     what host functions do to the plugin, by block instead of by offset
wasi        the arguments and results of the functions of WASI, by role
answers     stands for the host
replaying   runs a recording's calls once more, and compares
"""
