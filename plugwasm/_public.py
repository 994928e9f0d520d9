"""Public names for classes that msgspec reads."""

from __future__ import annotations

from typing import get_type_hints


def set_public_module(module: str, *structs: type) -> None:
    """Set the `__module__` of structs to the public module that exports them.

    msgspec looks up names in annotations in the module that `__module__` names, so the annotations
    are resolved first.
    """
    for struct in structs:
        own = {
            name: hint
            for name, hint in get_type_hints(struct, include_extras=True).items()
            if name in struct.__annotations__
        }
        struct.__annotations__ = own
    for struct in structs:
        struct.__module__ = module
