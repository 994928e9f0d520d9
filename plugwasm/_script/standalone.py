"""A script as a plugin of one module, for any host of the contract.

The engine and the script become one module: the memory that loading the script has left is what
its memory starts with, its exports are those of the script, and its host functions take imports
that the engine has for that (slots). No code of the engine changes.
"""

from __future__ import annotations

import re

from .._engine import wasm_encoding as wasm
from ..errors import ScriptError, truncate
from . import snapshots
from .boot import GAP, count_functions, take_slots, write_memory
from .engine import get_engine
from .front import export_body, host_type, import_function, thunk_body
from .host_imports import read_declarations
from .loading import bound_changes, load, read_script
from .names import language_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from pathlib import Path

    from .._manifest.limits import Limits

MOST_FUNCTIONS = 32
"""How many slots an engine has."""
MOST_BYTES = 64 * 2**20


def declarations_of(source: Path) -> str:
    """Return what the file beside a script declares: `plugin.d.ts` for `plugin.js`.

    Raises:
        ScriptError: It is not UTF-8.
    """
    file = source.with_suffix(".d.ts")
    if not file.is_file():
        return ""
    return read_script(file, MOST_BYTES, None, file.name)[0]


def build_script_file(source: Path) -> bytes:
    """Return the module of a script in a file, with what the file beside it declares.

    The developer has named the file: what it imports is bundled with it, if esbuild is there.
    """
    from . import bundling

    declarations = declarations_of(source)
    if language_of(source.name) == "python":
        return build_script("python", source, declarations=declarations)
    text, file = read_script(source, MOST_BYTES, None, source.name)
    if source.name.endswith(bundling.TYPESCRIPT) or bundling.has_imports(text):
        text = bundling.bundle(str(source), file, text)
    try:
        return build_script("javascript", text, name=file, declarations=declarations)
    except ScriptError as error:
        bundling.explain(error)
        raise


def build_script(
    language: str,
    source: str | bytes | os.PathLike[str],
    *,
    name: str | None = None,
    input: str = "json",
    declarations: str = "",
    limits: Limits | None = None,
) -> bytes:
    """Return the module of a script.

    Args:
        language, source, name, input, limits: As for `plugwasm.script`.
        declarations: The host functions that it imports, in TypeScript (`host_imports`).

    Raises:
        ScriptError: The script or the declarations are not valid.
        SourceError: The file cannot be read, or the engine cannot be built.
        CallError: A limit ended the script while it was loaded.
    """
    engine = get_engine(language)
    text, file = read_script(source, MOST_BYTES, name, engine.language.file)
    functions = read_declarations(declarations, file.rpartition(".")[0] + ".d.ts")
    loaded = load(engine, text, file, input=input, functions=functions, limits=limits, builds=True)
    functions += loaded.imports
    if len(functions) > MOST_FUNCTIONS:
        raise ScriptError(
            f"{truncate(file)}: the script imports {len(functions)} host functions, and can have "
            f"{MOST_FUNCTIONS}",
            file=file,
        )
    if "memory" in loaded.exports:
        raise ScriptError(
            f"{truncate(file)}: the script exports `memory`, which is an export of every plugin: "
            "give the function another name",
            file=file,
        )
    sections = wasm.split(engine.wasm)
    call = engine.find_export("call")
    first_type = wasm.count(sections[wasm.TYPE])
    sections[wasm.TYPE] = wasm.append(
        sections[wasm.TYPE],
        [
            wasm.function_type((), (wasm.I32,)),
            wasm.function_type((wasm.I32,), ()),
            *map(host_type, functions),
        ],
    )
    exported, thunk, first_host = range(first_type, first_type + 3)
    slot = take_slots(
        sections,
        [
            import_function(one.namespace, one.name, first_host + i)
            for i, one in enumerate(functions)
        ],
        [
            one
            for one, words in engine.language.optional_imports.items()
            if not re.search(words, text)
        ],
    )
    first = count_functions(sections)
    sections[wasm.FUNCTION] = wasm.append(
        sections[wasm.FUNCTION],
        [wasm.unsigned(thunk)] * len(functions) + [wasm.unsigned(exported)] * len(loaded.exports),
    )
    sections[wasm.CODE] = wasm.append(
        sections[wasm.CODE],
        [thunk_body(one, slot + i) for i, one in enumerate(functions)]
        + [export_body(i, call) for i in range(len(loaded.exports))],
    )
    sections[wasm.EXPORT] = wasm.vector(
        [
            wasm.name("memory") + b"\x02\x00",
            *(
                wasm.name(one) + b"\x00" + wasm.unsigned(first + len(functions) + i)
                for i, one in enumerate(loaded.exports)
            ),
        ]
    )
    if functions:
        numbers = wasm.vector([wasm.unsigned(first + i) for i in range(len(functions))])
        place = b"\x00\x41" + wasm.signed(engine.elements) + b"\x0b"
        sections[wasm.ELEMENT] = wasm.append(sections[wasm.ELEMENT], [place + numbers])
        sections[wasm.TABLE] = b"\x01\x70\x00" + wasm.unsigned(engine.elements + len(functions))
    content = snapshots.find_changes(b"", loaded.heap, GAP)
    write_memory(
        sections,
        len(loaded.heap),
        bound_changes(content, MOST_BYTES, file, "what most hosts take"),
    )
    return wasm.join(sections)
