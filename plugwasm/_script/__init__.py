"""Plugins in languages that are interpreted: an engine in Wasm, shared by all scripts of a process.

script         `script`: a script to a `CompiledPlugin`
spec           scripts as the specs of plugins
loading        a script, read and run once
bundling       TypeScript, and scripts of several files, by esbuild
standalone     a script and its engine as a plugin of one module
host_imports   host functions of an application, or declared in TypeScript
front          the module that stands for a script: its exports, and what it changes of the engine
snapshots      memories of instances, written back into modules
engine         an engine, ready to load scripts
boot           from what a compiler made to an engine
__main__       `python -m plugwasm._script` builds the engines
engine_build   an engine built from its sources, once
engine_store   the folder in which engines are kept
progress       what is shown while an engine is built
names          names of files that are scripts
languages      the languages, and what differs between them
pins           versions and digests of what engines are built from
rewriting/     functions of a module that a compiler made, read and analysed
slots.h        imports that built plugins get, in each engine
javascript/    the engine of JavaScript: QuickJS, with code of plugwasm in C and JavaScript
python/        the engine of Python: MicroPython

Decisions: docs/decisions.md, 58 and 59.
"""
