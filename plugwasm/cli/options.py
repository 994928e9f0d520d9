"""Values of options of `call` and `bench`, checked before anything is read or compiled.

Each error names the option and what was expected.
"""

from __future__ import annotations

from .terminal import UsageProblem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

LOG_LEVELS = ("trace", "debug", "info", "warn", "error", "off")
MAX_NUMBER = 2**63 - 1
_MAX_MILLISECONDS = 2**63 // 1_000_000
_MAX_CONFIG_FILE = 64 * 2**20


def parse_pair(option: str, text: str, shape: str) -> tuple[str, str]:
    """Split `NAME=REST`. The rest is not repeated in an error, since it may be a secret."""
    name, separator, rest = text.partition("=")
    if not separator or not name:
        raise UsageProblem(
            option, f"expected {shape}, got {'nothing before the =' if separator else 'no ='}"
        )
    return name, rest


def parse_milliseconds(text: str) -> int:
    """Parse `500`, `500ms`, `2s` or `0.5s` as milliseconds."""
    number, factor = (
        (text.removesuffix("s"), 1000)
        if text.endswith("s") and not text.endswith("ms")
        else (text.removesuffix("ms"), 1)
    )
    try:
        if not number.isascii() or "_" in number:
            raise ValueError
        value = float(number) * factor
    except ValueError:
        value = float("nan")
    if not 1 <= value <= _MAX_MILLISECONDS:
        raise UsageProblem(
            "--timeout",
            f"expected milliseconds (500) or seconds (2s, 0.5s), at least 1; got {text!r}",
        )
    return round(value)


def parse_number(option: str, text: str, least: int, most: int) -> int:
    """Parse a whole number in decimal digits."""
    if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
        raise UsageProblem(option, f"expected a whole number from {least} to {most}, got {text!r}")
    return int(text)


def parse_seconds(option: str, text: str) -> float:
    """Parse a number of seconds, from a tenth of one to an hour."""
    try:
        if not text.isascii() or "_" in text:
            raise ValueError
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0.1 <= value <= 3600:
        raise UsageProblem(option, f"expected seconds from 0.1 to 3600, got {text!r}")
    return value


def parse_log_level(text: str) -> str:
    """Check the lowest level of the log to show, or "off"."""
    if text not in LOG_LEVELS:
        raise UsageProblem(
            "--log-level",
            f"expected {', '.join(LOG_LEVELS[:-1])} or {LOG_LEVELS[-1]}, got {text!r}",
        )
    return text


def parse_allowed_path(text: str) -> tuple[str, str]:
    """Parse `[ro:]HOST[:GUEST]` as an entry of `allowed_paths`. GUEST is HOST if it is missing."""
    prefix = "ro:" if text.startswith("ro:") else ""
    host, separator, guest = text.removeprefix(prefix).rpartition(":")
    if not separator:
        host = guest
    if not host or not guest:
        raise UsageProblem(
            "--allow-path",
            f"expected HOST or HOST:GUEST, with ro: before it for read-only; got {text!r}",
        )
    return prefix + host, guest


def parse_sha256(text: str) -> str:
    """Check 64 hexadecimal digits, and return them in lower case."""
    if len(text) != 64 or not frozenset("0123456789abcdef").issuperset(text.lower()):
        raise UsageProblem(
            "--set-hash", f"expected the 64 hexadecimal digits of a sha256, got {text!r}"
        )
    return text.lower()


def read_config(
    pairs: Sequence[str], file: str | None, document: str | None = None
) -> dict[str, str]:
    """Return the configuration.

    Entries of the JSON document override those of the file; single entries override both.
    """
    config = {} if file is None else _config_file(file)
    if document is not None:
        config |= _config_document(document)
    for text in pairs:
        key, value = parse_pair("--config", text, "KEY=VALUE")
        config[key] = value
    for key, value in config.items():
        if not (_is_text(key) and _is_text(value)):
            raise UsageProblem("--config", f"expected UTF-8, got other bytes in the entry {key!r}")
    return config


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _config_document(document: str) -> dict[str, str]:
    import json

    try:
        found = json.loads(document)
    except (ValueError, RecursionError):
        found = None  # the parser's message may repeat a part, which may be a secret
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise UsageProblem(
            "--set-config",
            'expected a JSON object with text for every key, as in \'{"key": "value"}\'',
        )
    return found


def _config_file(path: str) -> dict[str, str]:
    import json
    import tomllib

    from .._manifest.files import read_file

    content = read_file(path, _MAX_CONFIG_FILE)
    try:
        text = content.decode("utf-8-sig")
        found = json.loads(text) if text.lstrip().startswith("{") else tomllib.loads(text)
    except (ValueError, RecursionError):
        # The parsers' messages may repeat a part of the file, which may be a secret.
        raise UsageProblem(
            "--config-file", f"{path} is neither a JSON object nor TOML, or is not UTF-8"
        ) from None
    for key, value in found.items():
        if not isinstance(value, str):
            raise UsageProblem(
                "--config-file",
                f"expected text for every key of {path}; {key!r} has {type(value).__name__}",
            )
    return dict(found)
