"""What a new project has instead of its template's, if it is made for an interface file."""

from __future__ import annotations

from typing import Final, NamedTuple

from .._bindings.files import LANGUAGES as WITH_BINDINGS
from .._bindings.files import generate_files, read_schema
from .._bindings.samples import sample_input
from .._bindings.schema import read_interface
from .._bindings.text import go_literal
from .._plugin_set.metadata import MAX_TESTS
from .problems import ProjectError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    from .._bindings.model import Interface
    from .language import Language

__all__ = ["InterfaceFiles", "generate_project"]

_NAMED: Final = {
    "Cargo.toml": 'name = "plugin"',
    "package.json": '"name": "plugin"',
    "go.mod": "module example.com/plugin",
}
"""The line of a generated file that names the project."""
_MOST_TESTS: Final = 2**18
"""Characters of the tests of a new project; a project file has a bound."""


class InterfaceFiles(NamedTuple):
    """Generated files by their paths, and what the README says.

    Attributes:
        content: By path in the project. `plugin.toml` has a test for each export.
        export: The first export, or "".
        schema: The name of the copy of the interface file.
    """

    content: dict[str, str]
    export: str
    schema: str


def generate_project(schema: Path, language: Language, name: str) -> InterfaceFiles:
    """Generate what a project for an interface file has.

    Raises:
        ProjectError: There are no bindings for the language.
        SchemaError: The interface file cannot be read, or is invalid.
    """
    if language.name not in WITH_BINDINGS or language.name == "python":
        known = ", ".join(one for one in WITH_BINDINGS if one != "python")
        raise ProjectError(
            f"--schema: there are no bindings for plugins in {language.title}, only for {known}"
        )
    content = read_schema(schema)
    interface = read_interface(content, schema.name)
    is_json = content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")
    copy = "schema.json" if is_json else "schema.yaml"
    files = {
        path: _rename(path, file.content, name)
        for path, file in generate_files(content, copy, language.name).items()
    }
    files[copy] = content.decode("utf-8-sig")
    files["plugin.toml"] = _plugin_toml(interface, language, name, copy)
    export = interface.exports[0].name if interface.exports else ""
    return InterfaceFiles(files, export, copy)


def _rename(path: str, content: str, name: str) -> str:
    line = _NAMED.get(path, "")
    return content.replace(
        line, line.replace("example.com/plugin", "plugin").replace("plugin", name), 1
    )


def _plugin_toml(interface: Interface, language: Language, name: str, schema: str) -> str:
    parts = [
        f'[plugin]\ntitle = "{name}"\nversion = "0.1.0"\ndescription = "Implements {schema}."\n',
        f'[build]\nlanguage = "{language.name}"\n',
    ]
    size = 0
    for function in interface.exports[:MAX_TESTS]:
        text = sample_input(interface, function.input)
        if text is None:
            continue
        if len(parts) == 2:
            parts.append(
                "# `plugwasm test` makes these calls. When a function is written, say here what\n"
                "# it returns: `output`, or `output_json` for a value.\n"
            )
        entry = f"[[test]]\nname = {_quote(function.name)}\nfunction = {_quote(function.name)}\n"
        if function.input is not None:
            entry += f"input = {_quote(text)}\n"
        size += len(entry)
        if size > _MOST_TESTS:
            break
        parts.append(f"{entry}error = {_quote(f'{function.name} is not written yet')}\n")
    return "\n".join(parts).replace("for a value.\n\n[[", "for a value.\n[[")


def _quote(text: str) -> str:
    """Return a string of TOML: as it is in quotes, if it can be."""
    if text.isprintable() and "'" not in text and '"' in text:
        return f"'{text}'"
    return go_literal(text)  # whose escapes are those of TOML
