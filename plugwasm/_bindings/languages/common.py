"""What several languages have in common."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..model import Function

__all__ = ["PLUGIN_TOML", "function_text"]

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
