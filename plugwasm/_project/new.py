"""Makes a new project: the files of `templates/`, and a copy of the language's kit.

In the files, words between two `@` are replaced. Nothing that exists is written to.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import zlib
from pathlib import Path

from .._manifest.files import format_path
from .._manifest.messages import closest_match, quote
from .interface import generate_project
from .kits import copy_kit
from .languages import LANGUAGES
from .problems import ProjectError
from .toolchain import version_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from .interface import InterfaceFiles
    from .language import Language

__all__ = ["check_name", "find_language", "make_project"]

_TEMPLATES: Final = Path(__file__).with_name("templates")
_SHARED: Final = ("plugin.toml", "README.md")
_NAME: Final = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")
_MAX_NAME: Final = 64
_OTHER_NAMES: Final = {
    "c++": "cpp",
    "cxx": "cpp",
    "golang": "go",
    "rs": "rust",
    "as": "assemblyscript",
    "js": "javascript",
    "ts": "typescript",
    "py": "python",
}
_RESERVED: Final = frozenset(
    # Keywords of Rust, Zig and Go, names of their standard packages, and of what builds write.
    """
    abstract addrspace align allowzero alloc and any anyframe anytype asm async await become bool
    box break build c cargo case catch chan comptime const continue core cpp crate default defer
    deps do dyn else enum errdefer error examples export extern fallthrough false final fn for func
    go goto gen if impl import in incremental inline interface internal let linksection loop macro
    main map match mod move mut nil noalias node noinline npm nosuspend null opaque or orelse
    override package packed pdk plugwasm priv proc-macro proc_macro pub range ref resume return
    rust select self static std struct super suspend switch target test threadlocal trait true try
    type typeof undefined union unreachable unsafe unsized use usingnamespace var vendor virtual
    void volatile where while yield zig plugwasm-pdk plugwasm_pdk node_modules
    """.split()  # noqa: SIM905
)


def find_language(name: str) -> Language:
    """Return a language by its name. Raise `ProjectError` if there is none."""
    known = name.lower()
    language = LANGUAGES.get(_OTHER_NAMES.get(known, known))
    if language is None:
        close = closest_match(known[:64], list(LANGUAGES))
        hint = f"; did you mean {close}?" if close else ""
        raise ProjectError(
            f"LANGUAGE: expected one of {', '.join(LANGUAGES)}, got {quote(name)}{hint}"
        )
    return language


def check_name(name: str) -> None:
    """Check that a plugin can have this name in every language. Raise `ProjectError` if not."""
    if not _NAME.fullmatch(name) or len(name) > _MAX_NAME:
        simple = re.sub(r"[^a-z0-9]+", "-", name[:_MAX_NAME].lower()).strip("-0123456789")
        hint = f"; did you mean {simple}?" if _NAME.fullmatch(simple) else ""
        raise ProjectError(
            f"NAME: expected at most {_MAX_NAME} of a-z, 0-9, - and _, beginning with a letter, as "
            f"in my-plugin, got {quote(name)}{hint}"
        )
    if name in _RESERVED:
        raise ProjectError(f"NAME: {name} has a meaning of its own in some language; try my-{name}")


def make_project(
    language: Language, name: str, directory: str | None = None, schema: str | None = None
) -> str:
    """Make a project, and return its folder.

    Args:
        language: What the plugin is written in.
        name: Its name.
        directory: The folder to make; by default, one of the plugin's name.
        schema: An interface file, for which bindings are generated.

    Raises:
        ProjectError: The name cannot be used, the folder exists and is not empty, or there are no
            bindings for the language.
        SchemaError: The interface file cannot be read, or is invalid.
        OSError: A file cannot be written.
    """
    check_name(name)
    generated = generate_project(Path(schema), language, name) if schema is not None else None
    folder = Path(directory or name)
    existed = os.path.lexists(folder)
    if existed and not (folder.is_dir() and not any(folder.iterdir())):
        is_file = not folder.is_dir()
        raise ProjectError(
            f"{format_path(str(folder))} exists{'' if is_file else ' and is not empty'}; nothing "
            "was written. --directory names another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    try:
        words = _words(language, name, generated)
        content = {path: _fill(text, words) for path, text in _read_templates(language).items()}
        if generated is not None:
            content |= generated.content
        for path, text in content.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(target, "x", encoding="utf-8", newline="\n") as file:
                file.write(text)
        copy_kit(language.name, folder / "pdk")
    except BaseException:
        if not existed:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return str(folder)


def _read_templates(language: Language) -> dict[str, str]:
    """Return the files of a language's template by their paths in a project."""
    own = _TEMPLATES / language.name
    found = {file: _TEMPLATES / file for file in _SHARED}
    for template in sorted(own.rglob("*")):
        # Where pip installs a package, it compiles what has the suffix of Python.
        if template.is_file() and template.parent.name != "__pycache__":
            path = template.relative_to(own)
            if path.name == "gitignore":
                path = path.with_name(".gitignore")
            found[path.as_posix()] = template
    return {path: template.read_text("utf-8") for path, template in found.items()}


def _fill(text: str, words: dict[str, str]) -> str:
    return re.sub(r"@([A-Z]+)@", lambda match: words.get(match[1], match[0]), text)


def _words(
    language: Language, name: str, generated: InterfaceFiles | None = None
) -> dict[str, str]:
    """Return what stands in the files for the words between two `@`."""
    identifier = name.replace("-", "_")
    wasi = " --wasi" if language.needs_wasi else ""
    export = "greet" if generated is None else generated.export or "EXPORT"
    # Zig's number of a package: a checksum of its name, and 32 bits that tell it from others.
    fingerprint = zlib.crc32(identifier.encode()) << 32 | (1 + secrets.randbelow(2**32 - 2))
    kit = (
        f"When the kit is in the registry, {language.registry},\nand `pdk/` can go."
        if language.registry
        else "To update the kit, copy the files of a newer plugwasm over those in `pdk/`."
    )
    tools = [f"{tool.name} {version_text(tool.minimum)} or later" for tool in language.tools]
    return {
        "NAME": name,
        "IDENTIFIER": identifier,
        "FINGERPRINT": f"0x{fingerprint:016x}",
        "LANGUAGE": language.name,
        "TITLE": language.title,
        "SOURCE": language.code_file,
        "TOOLS": f"{', '.join(tools[:-1])} and {tools[-1]}" if tools[1:] else tools[0],
        "INSTALL": "\n".join(
            f"- {advice}" for advice in dict.fromkeys(tool.install for tool in language.tools)
        ),
        "CALL": f"{export}{wasi}{' --input Ada' if generated is None else ''}",
        "CHECK": f"{language.check:24}# checks the types, which a build does not\n"
        if language.check
        else "",
        "INTERFACE": _interface_rows(language, generated),
        "KIT": kit,
    }


def _interface_rows(language: Language, generated: InterfaceFiles | None) -> str:
    if generated is None:
        return ""
    command = f"plugwasm generate {generated.schema} --language {language.name}"
    return (
        f"| `{generated.schema}` | the interface; after a change, `{command}` |\n"
        "| `bindings` | generated of the interface: not to be edited |\n"
    )
