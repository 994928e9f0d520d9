"""Projects of plugin authors: the folder that `plugwasm new` makes and `plugwasm build` builds.

project_file   `plugin.toml`: the tables `[build]` and `[[test]]`
case_model     what `[[test]]` says
case_lines     the line of the file that has a field of a case
cases          runs cases
case_answers   the answers of a case to what its plugin asks
differences    differences between what is expected and what a plugin gave
json_schema    the JSON Schema of `plugin.toml`
paths          paths in the project
"""
