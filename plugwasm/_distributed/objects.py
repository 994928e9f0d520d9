"""Objects of an application that a ref refers to: by name, or as pickles.

A host function is always named. A policy, a clock or an observer is named or pickled.
"""

from __future__ import annotations

from .._host.options import check_option_types
from ..errors import OptionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .._host.functions import Function

__all__ = [
    "check_object_name",
    "deserialize",
    "function_name",
    "import_function",
    "import_object",
    "serialize",
]


def serialize(value: object, field: str) -> str | bytes:
    """Return the name of an object, or its pickle.

    Objects without an equality of their own are equal when their pickles are.
    """
    if isinstance(value, str):
        return check_object_name(value, field)
    import pickle

    check_option_types(
        value if field == "wasi" else False, None, value if field == "egress" else None
    )
    if field == "observe":
        from .._runtime.observers import resolve_observers

        resolve_observers(value)  # type: ignore[arg-type]
    try:
        return pickle.dumps(value)
    except Exception as error:
        raise OptionError(
            f"{field}: it cannot be pickled ({error}); put it into a module, and name it: "
            f"{field}='package.module:name'",
            field=field,
        ) from None


def deserialize(sent: str | bytes, field: str) -> Any:
    if isinstance(sent, str):
        return import_object(sent, field)
    import pickle

    return pickle.loads(sent)


def check_object_name(text: str, field: str) -> str:
    module, colon, name = text.partition(":")
    if not (colon and all(part.isidentifier() for part in (*module.split("."), *name.split(".")))):
        raise OptionError(
            f"{field}: expected a name such as 'package.module:name', got {text!r}", field=field
        )
    return text


def import_object(text: str, field: str) -> Any:
    from importlib import import_module

    module, _, name = text.partition(":")
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise OptionError(
            f"{field}: cannot import `{text}` in this process: {error}", field=field
        ) from error
    return found


def function_name(function: Any) -> str:
    """Return the name by which the other process finds a host function."""
    if isinstance(function, str):
        return check_object_name(function, "functions")
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not (callable(function) and module and name):
        raise OptionError(
            f"functions: expected host functions or their names, got {type(function).__name__}",
            field="functions",
        )
    hint = (
        "move it to the top of a module that the other side can import, "
        "or name it: 'package.module:name'"
    )
    if module == "__main__":
        raise OptionError(
            f"functions: `{name}` is defined in `__main__`, which is another program in another "
            f"process; {hint}"
        )
    try:
        found = import_object(check_object_name(f"{module}:{name}", "functions"), "functions")
    except OptionError:
        found = None
    if found is not function:
        raise OptionError(
            f"functions: `{module}:{name}` is not what was given; {hint}", field="functions"
        )
    return f"{module}:{name}"


def import_function(name: str) -> Function:
    from .._host.functions import Function, InferredFunction

    found = import_object(name, "functions")
    if isinstance(found, Function):
        return found
    if not callable(found):
        raise OptionError(
            f"functions: `{name}` is no function, but {type(found).__name__}", field="functions"
        )
    return InferredFunction(None, name.rpartition(":")[2].rpartition(".")[2], found, ())
