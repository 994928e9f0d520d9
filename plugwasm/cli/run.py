"""`plugwasm call`: from its options to a recipe, an input, and a place for the output.

What was typed is checked here, before anything is read or compiled; each problem names the option and what was expected.
"""

from __future__ import annotations

import os
from contextlib import contextmanager

from plugwasm._source import MAIN, ModuleSource, Recipe, resolve
from plugwasm.errors import HashMismatchError, ManifestError, SourceError

from .terminal import UsageProblem, escaped, stdin_bytes, write_stdout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_MAX_MILLISECONDS = 2**63 // 1_000_000
_MAX_CONFIG_FILE = 64 * 2**20


# ---- what was typed ---------------------------------------------------------------------------------------------------------------------


def pair(option: str, text: str, shape: str) -> tuple[str, str]:
    """The two parts of `NAME=REST`. The rest is not repeated in the error, since it may be a secret."""
    name, separator, rest = text.partition("=")
    if not separator or not name:
        raise UsageProblem(option, f"expected {shape}, got {'nothing before the =' if separator else 'no ='}")
    return name, rest


def milliseconds(text: str) -> int:
    """`2`, `0.5`, `2s` or `500ms`, as milliseconds."""
    number, factor = (text[:-2], 1) if text.endswith("ms") else (text.removesuffix("s"), 1000)
    try:
        if not number.isascii() or "_" in number:
            raise ValueError
        value = float(number) * factor
    except ValueError:
        value = float("nan")
    if not 1 <= value <= _MAX_MILLISECONDS:
        raise UsageProblem("--timeout", f"expected seconds (2, 0.5) or milliseconds (500ms), at least 1ms; got {text!r}")
    return round(value)


def check_range(option: str, number: int | None, least: int, most: int | None = None) -> None:
    """Whether a number that was typed is one that there can be."""
    if number is None or (least <= number and (most is None or number <= most)):
        return
    bounds = f"at least {least}" if most is None else f"from {least} to {most}"
    raise UsageProblem(option, f"expected a number, {bounds}; got {str(number)[:40]}")


def granted_path(text: str) -> tuple[str, str]:
    """`[ro:]HOST[:GUEST]` as an entry of `allowed_paths`. Without a guest path the directory keeps its name."""
    prefix = "ro:" if text.startswith("ro:") else ""
    host, separator, guest = text.removeprefix(prefix).rpartition(":")
    if not separator:
        host = guest
    if not host or not guest:
        raise UsageProblem("--allow-path", f"expected HOST or HOST:GUEST, with ro: before it for read-only; got {text!r}")
    return prefix + host, guest


def sha256(text: str) -> str:
    """64 hexadecimal digits, in lower case."""
    if len(text) != 64 or not frozenset("0123456789abcdef").issuperset(text.lower()):
        raise UsageProblem("--set-hash", f"expected the 64 hexadecimal digits of a sha256, got {text!r}")
    return text.lower()


def config_of(pairs: Sequence[str], file: str | None) -> dict[str, str]:
    """The configuration: that of the file, and over it what was typed."""
    config = {} if file is None else _config_file(file)
    for text in pairs:
        key, value = pair("--config", text, "KEY=VALUE")
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


def _config_file(path: str) -> dict[str, str]:
    import json
    import tomllib

    from plugwasm._source import read_file

    content = read_file(path, _MAX_CONFIG_FILE)
    try:
        text = content.decode("utf-8-sig")
        found = json.loads(text) if text.lstrip().startswith("{") else tomllib.loads(text)
    except (ValueError, RecursionError):
        # What the parsers say may repeat a part of the file, and that may be a secret.
        raise UsageProblem("--config-file", f"{path} is neither a JSON object nor TOML, or is not UTF-8") from None
    for key, value in found.items():
        if not isinstance(value, str):
            raise UsageProblem("--config-file", f"expected text for every key of {path}; {key!r} has {type(value).__name__}")
    return dict(found)


# ---- the recipe -------------------------------------------------------------------------------------------------------------------------


def extend(
    recipe: Recipe,
    *,
    config: dict[str, str],
    hosts: Sequence[str],
    paths: Sequence[str],
    timeout_ms: int | None,
    max_pages: int | None,
    links: Sequence[str],
    pinned: str | None,
) -> None:
    """Lays what was typed over what the manifest says: config, hosts, paths and modules are added, limits replaced."""
    recipe.config.update(config)
    if hosts:
        _check_hosts(hosts)
        recipe.allowed_hosts = (*recipe.allowed_hosts, *hosts)
    granted: dict[str, str] = {}
    for text in paths:
        host, guest = granted_path(text)
        if host in granted or guest in granted.values():
            raise UsageProblem("--allow-path", f"{host if host in granted else guest} is given twice")
        granted[host] = guest
    kept = {host: guest for host, guest in recipe.allowed_paths.items() if guest not in granted.values()}
    recipe.allowed_paths = kept | granted
    if timeout_ms is not None:
        recipe.timeout_ms = timeout_ms
    if max_pages is not None:
        recipe.max_pages = max_pages
    if pinned is not None:
        _check_hash(recipe, pinned)
    taken = {module.name for module in recipe.modules}
    linked = []
    for text in links:
        name, source = pair("--link", text, "NAME=PATH")
        if name in taken:
            what = "is the plugin itself" if name == MAIN else "is the name of another module"
            raise UsageProblem("--link", f"{name} {what}; choose another name")
        taken.add(name)
        linked.append(_linked(name, source))
    recipe.modules = linked + recipe.modules


def _linked(name: str, source: str) -> ModuleSource:
    if not source:
        raise UsageProblem("--link", "expected NAME=PATH, got nothing after the =")
    modules = resolve(source).modules
    if len(modules) != 1:
        raise UsageProblem("--link", f"expected one module, but {source} has {len(modules)}")
    return ModuleSource(name, modules[0].wasm, modules[0].origin)


def _check_hosts(hosts: Sequence[str]) -> None:
    from plugwasm._sandbox.egress import EgressPolicy

    try:
        EgressPolicy(allowed_hosts=hosts)
    except ManifestError as error:
        raise UsageProblem("--allow-host", error.message.removeprefix("allowed_hosts: ")) from None


def _check_hash(recipe: Recipe, expected: str) -> None:
    import hashlib

    main = next(module for module in recipe.modules if module.name == recipe.main)
    actual = hashlib.sha256(main.wasm).hexdigest()
    if actual != expected:
        raise HashMismatchError(f"the sha256 of {main.origin} is {actual}, not the one given with --set-hash")


# ---- input and output -------------------------------------------------------------------------------------------------------------------


def read_input(text: str | None, path: str | None, stdin: bool) -> bytes:
    """The input: text, the content of a file, all of standard input, or nothing."""
    given = [name for name, is_given in (("--input", text is not None), ("--input-file", path is not None), ("--stdin", stdin)) if is_given]
    if len(given) > 1:
        raise UsageProblem(" and ".join(given), "only one of them can be given")
    if text is not None:
        return os.fsencode(text)
    if path is not None:
        try:
            with open(path, "rb") as file:
                return file.read()
        except ValueError:
            raise UsageProblem("--input-file", f"{path!r} cannot be the name of a file") from None
        except OSError as error:
            hint = "; --stdin reads standard input" if path == "-" else ""
            raise SourceError(f"cannot read the input {path}: {error.strerror or type(error).__name__}{hint}") from error
    return stdin_bytes() if stdin else b""


@contextmanager
def output_to(path: str | None, *, lines: bool) -> Iterator[Callable[[bytes], None]]:
    """Where each output goes: to stdout as it is, or to a file, which is made when the first output is there.

    Args:
        lines: Whether each output ends with a newline, because several of them follow each other. The one output of a call gets one only
            on a terminal.
    """
    if path is None:
        import sys

        ended = lines or (sys.stdout is not None and sys.stdout.isatty())
        yield lambda data: write_stdout(_ended(data, ended))
        return
    folder = os.path.dirname(path) or "."
    if not path or os.path.isdir(path) or not os.path.isdir(folder):
        what = f"{path!r} is a directory" if path and os.path.isdir(path) else f"there is no directory {escaped(folder)}"
        raise UsageProblem("--output-file", what if path else "expected the name of a file")
    file = None

    def write(data: bytes) -> None:
        nonlocal file
        if file is None:
            file = open(path, "wb")  # noqa: SIM115
        file.write(_ended(data, lines))

    try:
        yield write
    finally:
        if file is not None:
            file.close()


def _ended(data: bytes, ended: bool) -> bytes:
    return data + b"\n" if ended and data and not data.endswith(b"\n") else data
