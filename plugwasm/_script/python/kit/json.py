"""JSON, as MicroPython writes it; what is read has to be JSON."""

from _host import parse_json as _parse
from ujson import dump, dumps


def loads(text):
    """Return the value that text or bytes say."""
    return _parse(text, "the text")


def load(stream):
    """Return the value that the rest of a stream says."""
    return loads(stream.read())
