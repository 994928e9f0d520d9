"""Projects of plugin authors: the folder that `plugwasm new` makes and `plugwasm build` builds.

project_file   `plugin.toml`: the tables `[build]` and `[[test]]`
"""
