"""The engine of JavaScript: QuickJS as a plugin, with parts of the web's interfaces.

recipe      how it is built
glue.c      what QuickJS needs of a system, the primitives of the kit, and the engine's exports
url.cpp     URLs, by ada
kit/        the kit: JavaScript that runs before any script
pip/        what pip asks for a package's metadata while it downloads sources

Decisions: docs/decisions.md, 58 and 61.
"""
