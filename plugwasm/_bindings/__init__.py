"""Interface files (XTP schemas), and the bindings that are generated from them.

    schema.yaml ─document→ plain data ─schema, checks→ Interface ─languages/…→ files

document     the text of a schema as plain data: YAML or JSON, bounded
model        what a schema says: functions, types
schema       from plain data to the model; all problems at once, each with its path
fields       the fields of its objects, and the paths of problems
checks       references and recursion; how the tag of a union's variants is found
names        names of a schema as names of a language
text         comments and literals: a schema's text never becomes code
keywords     words that names cannot be
files        which files are written, and which only once
samples      a value of each type, for the first tests of a project
languages    one module a language

A schema is a stranger's text. Names have one alphabet, every other text goes through `text`, and
what is generated has no code of the schema (`codeSamples` are left out).

Decisions: docs/decisions.md, 56.
"""
