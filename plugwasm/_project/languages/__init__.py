"""The languages that plugins are written in: the tools of each, and how it is compiled.

c               C and C++
zig             Zig
rust            Rust
go              Go
assemblyscript  AssemblyScript
scripts         JavaScript, TypeScript and Python, with their interpreters
npm             packages that a project needs for its build
"""

from __future__ import annotations

from .assemblyscript import ASSEMBLYSCRIPT
from .c import CPP, C
from .go import GO
from .rust import RUST
from .scripts import JAVASCRIPT, PYTHON, TYPESCRIPT
from .zig import ZIG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from ..language import Language

__all__ = ["LANGUAGES"]

LANGUAGES: Final[dict[str, Language]] = {
    language.name: language
    for language in (C, CPP, ZIG, RUST, GO, ASSEMBLYSCRIPT, JAVASCRIPT, TYPESCRIPT, PYTHON)
}
"""The languages by their names in `plugin.toml`."""
