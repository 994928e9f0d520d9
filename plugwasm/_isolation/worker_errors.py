"""Errors that a worker reports: rebuilt from the name of a class and from plain fields.

Nothing is unpickled. The class is one of `plugwasm.errors`, and a field counts only if its type is
right.
"""

from __future__ import annotations

from .. import errors
from ..errors import Error, escape_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from . import protocol
    from .process import Worker

__all__ = ["error_fields", "rebuild_error"]

_APPLICATIONS_OWN = frozenset(
    (
        "BusyError",
        "ClosedError",
        "EgressDeniedError",
        "EgressError",
        "HostFunctionError",
        "InterfaceError",
        "OutputError",
        "WorkerError",
    )
)
"""Errors that are raised in the application only."""
_ERRORS: dict[str, type[Error]] = {
    name: getattr(errors, name) for name in errors.__all__ if name not in _APPLICATIONS_OWN
}


def rebuild_error(failed: protocol.Failed, worker: Worker) -> Error:
    """Return the error that a worker reports.

    It is of a class of `plugwasm.errors`, with those fields of the class that have the right types.
    """
    kind = _ERRORS.get(failed.error or "")
    if kind is None:
        raise worker.protocol_violation(f"an error of the class {failed.error!r:.100}")
    message = failed.fields.get("message")
    error = kind(message if isinstance(message, str) else "")
    error.__dict__.update(error_fields(kind, failed.fields))
    notes = failed.fields.get("__notes__")
    for note in notes if isinstance(notes, list) else ():
        error.add_note(escape_line(note))
    return error


def error_fields(kind: type[Error], said: Mapping[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name in vars(kind()):
        if name == "message":
            continue
        value = said.get(name)
        if name == "backtrace":
            fields[name] = tuple(value) if isinstance(value, list) else ()
        elif name == "code":
            fields[name] = value if type(value) is int else None
        else:
            fields[name] = value if isinstance(value, str) else None
    return fields
