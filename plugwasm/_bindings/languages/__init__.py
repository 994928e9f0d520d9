"""One module a language: `generate` returns the files of a project.

python  the host's side: types, the exports as a Protocol, the imports as another
rust    the plugin's side: types, what the plugin implements, what it can call
"""
