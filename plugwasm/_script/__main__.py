"""`python -m plugwasm._script`: build the engines, or a script as a plugin of one module.

python -m plugwasm._script                         build the engines
python -m plugwasm._script plugin.js plugin.wasm   with the host functions of `plugin.d.ts`
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from ..errors import Error
from .engine import get_engine
from .engine_store import engine_folder
from .languages import LANGUAGES
from .standalone import build_script_file


def main(arguments: list[str]) -> int:
    """Do what the arguments say, and return the status of the process."""
    if len(arguments) not in (0, 2):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        if arguments:
            source, target = map(Path, arguments)
            target.write_bytes(build_script_file(source))
            return 0
        for language in LANGUAGES:
            engine = get_engine(language)
            digest = hashlib.sha256(engine.wasm).hexdigest()
            print(f"{language}: {len(engine.wasm):,} bytes, sha256 {digest}, in {engine_folder()}")
    except (Error, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
