"""What came of a call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def outcome(call: Callable[[], Any]) -> object:
    """What a call gave or raised, as something that can be compared."""
    try:
        return call()
    except BaseException as error:
        fields = {name: value for name, value in vars(error).items() if not name.startswith("__")}
        return type(error), error.args, fields, repr(error.__cause__)
