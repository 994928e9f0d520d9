"""The engine of JavaScript: QuickJS as a plugin, with parts of the web's interfaces.

recipe           how it is built
frames           a module rewritten so that QuickJS notices deep recursion
glue.c           the primitives of the kit, and what the engine exports
system.c         what QuickJS needs of a system
urls.c           URLs, by ada
ada_runtime.cpp  ada, with what it needs of the standard library of C++
glue.h           what these files share
kit/             the kit: JavaScript that runs before any script

Decisions: docs/decisions.md, 58 and 61.
"""
