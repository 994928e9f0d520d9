"""Set the public `__module__` for classes whose annotations are read at run time."""

from __future__ import annotations

from typing import get_type_hints


def set_public_module(module: str, *classes: type) -> None:
    """Set the `__module__` of classes to the public module that exports them.

    msgspec, dataclasses and `get_type_hints` look up names in annotations in the module that
    `__module__` names, so the annotations
    are resolved first.
    """
    for published in classes:
        published.__annotations__ = {
            name: hint
            for name, hint in get_type_hints(published, include_extras=True).items()
            if name in published.__annotations__
        }
    for published in classes:
        published.__module__ = module
