"""`python -m plugwasm._script`: build the engines, or show where they are kept."""

from __future__ import annotations

import hashlib
import sys

from ..errors import Error
from .engine import get_engine
from .engine_build import engine_folder
from .languages import LANGUAGES


def main() -> int:
    """Build the engines."""
    for language in LANGUAGES:
        try:
            engine = get_engine(language)
        except Error as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        digest = hashlib.sha256(engine.wasm).hexdigest()
        print(f"{language}: {len(engine.wasm):,} bytes, sha256 {digest}, in {engine_folder()}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
