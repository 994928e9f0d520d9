"""Projects of plugin authors: the folder that `plugwasm new` makes and `plugwasm build` builds.

new            makes a project from `templates/` and a kit
interface      what a project for an interface file has
kits           the kits for plugin authors, which are in the wheel
build          builds a project and checks the module
language       what is known of a language
languages/     the languages: their tools, and how each is compiled
toolchain      tools of other languages: found, checked, run
needs          what a module offers and needs, in words for its author
watching       notices changes in a project
problems       what ends the making or the building of a project
project_file   `plugin.toml`: the tables `[build]` and `[[test]]`
case_model     what `[[test]]` says
case_lines     the line of the file that has a field of a case
cases          runs cases
case_answers   the answers of a case to what its plugin asks
differences    differences between what is expected and what a plugin gave
json_schema    the JSON Schema of `plugin.toml`
paths          paths in the project

Decisions: docs/decisions.md, 54 and 55.
"""
