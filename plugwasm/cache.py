"""The cache of compiled code: where it is, how large it may be, and whether it is used.

Compiling a plugin takes milliseconds to seconds; loading compiled code takes a fraction of that. So
compiled code is kept in a directory, by default `plugwasm` in the user's cache directory. The
environment variable `PLUGWASM_CACHE` names another one, or turns the cache off
(`PLUGWASM_CACHE=off`). `configure` does the same from code; its `directory` and `enabled` take
precedence.
"""

from ._runtime.code_cache import clear, configure, directory

__all__ = ["clear", "configure", "directory"]
