"""The result or the error of a call, in a form that can be compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def outcome(call: Callable[[], Any]) -> object:
    """Return the result of a call, or the type and fields of its error, in a form that can be
    compared."""
    try:
        return call()
    except BaseException as error:
        fields = {name: value for name, value in vars(error).items() if not name.startswith("__")}
        return type(error), error.args, fields, repr(error.__cause__)
