"""The engine of Python: MicroPython, built for plugins.

recipe         the sources, compiled
roots          a module rewritten so that its garbage collector finds all pointers
engine.c       what the engine exports, and the functions that its kit has
heap.c         the heap, which grows, and the search of the stack
signatures.c   annotations, read from the text of a script
random.c       random numbers, with a seed of the system in each instance
system.c       the clock, and what is printed
text.c         characters and UTF-8
kit/           what a script can import, in MicroPython's Python

Decisions: docs/decisions.md, 59.
"""
