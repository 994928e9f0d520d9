"""Debugging of guests, for `plugwasm.debugging`: backtraces, core dumps and profiles.

code_map     where the functions of a module are in its bytes, and their names
dwarf        addresses to source lines (with pyelftools)
backtrace    frames of an error to functions and source lines
coredump     the state of a guest whose call was ended, as files
profile      a profile, and the files that it is saved as
sampler      stacks of a running guest
flame_graph  a flame graph of them, as SVG or HTML
"""
