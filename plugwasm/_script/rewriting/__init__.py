"""What modules that a compiler made are read with, to rewrite their functions.

instructions   instructions of Wasm, read
analysis       what a function needs behind its calls

Decisions: docs/decisions.md, 59 and 61.
"""
