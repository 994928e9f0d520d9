"""One module a language: `generate` returns the files of a project.

python                 the host's side: types, the exports as a Protocol, the imports as another
rust go zig            the plugin's side: types, what the plugin implements, what it can call
assemblyscript cpp
c                      the same, with JSON as text
zig_source go_source   parts that are the same for all schemas
cpp_source c_source
assemblyscript_values  types and expressions of AssemblyScript
common                 what several languages have in common
"""
