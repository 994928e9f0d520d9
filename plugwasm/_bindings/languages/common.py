"""What several languages have in common."""

from __future__ import annotations

from ...errors import SchemaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..model import Function, Interface

__all__ = ["PLUGIN_TOML", "function_text", "refuse_export"]

PLUGIN_TOML = """\
[build]
language = "{}"
"""


def function_text(function: Function) -> str:
    """Return what a schema says of a function, its input and its output."""
    parts = [function.description.strip()]
    for what, parameter in (("Input", function.input), ("Output", function.output)):
        if parameter is not None and parameter.description.strip():
            parts.append(f"{what}: {parameter.description.strip()}")
    return "\n\n".join(part for part in parts if part)


def refuse_export(interface: Interface, name: str, language: str) -> None:
    """Raise `SchemaError` if an export has this name, which the language cannot export."""
    if any(function.name == name for function in interface.exports):
        problem = f"exports.{name}: a plugin in {language} cannot export `{name}`; rename it"
        raise SchemaError(problem, problems=(problem,))
