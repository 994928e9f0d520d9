"""The manifest as typed objects: the modules to run and what they may do.

``parse`` takes a mapping, JSON or TOML; ``load`` takes a file of either. Both return a
``Manifest``, or raise a ``ManifestError`` that names the field, its place, what was expected and
what was found. Unknown fields are refused at every level. The fields and their meaning are those of
the Extism manifest. Values of ``config`` and of headers are secrets: no error and no ``repr`` shows
them. The ranges and rules of a ``Manifest`` built in code are checked at once, its types when it is
used.

All relative paths in a manifest, of modules and of ``allowed_paths``, have one base: the directory
of the file that the manifest came from. Without a file it is the current directory, or the ``base``
that was passed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from .._public import set_public_module
from ..errors import ManifestError
from .download import redact_url
from .files import format_path, is_url, make_absolute, read_file
from .messages import field_error, from_msgspec, quote
from .parsing import MAX_TEXT_BYTES, decode_document
from .plain import plain_manifest
from .validation import (
    MAX_CONFIG,
    MAX_HEADERS,
    MAX_HOSTS,
    MAX_LENGTHS,
    MAX_MODULES,
    MAX_PATHS,
    check_count,
    check_headers,
    check_host,
    check_length,
    check_paths,
    check_range,
    check_total,
    normalize_hash,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, Self

    from .policy import ManifestPolicy
    from .resolve import Admitted

    Format = Literal["json", "toml"] | None

__all__ = ["Manifest", "MemoryOptions", "WasmSource", "load", "parse"]

_HASH_PATTERN: Final = "^[0-9a-fA-F]{64}$"
_U64: Final = 2**64 - 1


_METHODS: Final = frozenset({"GET", "POST"})
_METHOD_PATTERN: Final = "^([Gg][Ee][Tt]|[Pp][Oo][Ss][Tt])$"


def _number(description: str, maximum: int) -> Meta:
    return Meta(description=description, extra_json_schema={"minimum": 0, "maximum": maximum})


class WasmSource(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """One module. Exactly one of ``path``, ``data`` and ``url`` says where its bytes are."""

    path: Annotated[
        str | None, Meta(description="A file that holds the module, binary or text.")
    ] = None
    data: Annotated[
        bytes | None,
        Meta(description="The module itself, binary or text; base64 in JSON and TOML."),
    ] = None
    url: Annotated[
        str | None, Meta(description="An http or https URL that the module is fetched from.")
    ] = None
    headers: Annotated[
        dict[str, str],
        Meta(
            description="Headers of the request for `url`.",
            extra_json_schema={"maxProperties": MAX_HEADERS},
        ),
    ] = msgspec.field(default_factory=dict)
    method: Annotated[
        str | None,
        Meta(
            description="The method of the request for `url`, GET or POST; GET when absent.",
            extra_json_schema={"pattern": _METHOD_PATTERN},
        ),
    ] = None
    name: Annotated[
        str | None,
        Meta(
            description="What other modules import this one by; `main` is the one that is called."
        ),
    ] = None
    hash: Annotated[
        str | None,
        Meta(
            description="The sha256 of the module's bytes, in hexadecimal.",
            extra_json_schema={"pattern": _HASH_PATTERN},
        ),
    ] = None

    def __post_init__(self) -> None:
        given = [field for field in ("path", "data", "url") if getattr(self, field) is not None]
        if len(given) != 1:
            raise field_error(
                "",
                "expected exactly one of `path`, `data` and `url`, got "
                f"{' and '.join(given) or 'none'}",
            )
        for field in ("headers", "method"):
            if getattr(self, field) and self.url is None:
                raise field_error(
                    field, f"expected only together with `url`, got it with `{given[0]}`"
                )
        if isinstance(self.url, str) and not (
            is_url(self.url) and self.url.partition("://")[2].strip("/")
        ):
            raise field_error(
                "url",
                "expected an http:// or https:// URL, got one that begins with "
                f"{quote(self.url[:8])}",
            )
        # Loading a plugin changes nothing on a server. POST is allowed because some servers want
        # it.
        if isinstance(self.method, str) and self.method.upper() not in _METHODS:
            raise field_error("method", f"expected GET or POST, got {quote(self.method)}")
        for field in ("name", "path", "url"):
            check_length(field, getattr(self, field), MAX_LENGTHS[field])
        if isinstance(self.headers, Mapping):
            check_headers(self.headers)
        for field, what in (("name", "a name"), ("path", "the path of a file")):
            if getattr(self, field) == "":
                raise field_error(field, f"expected {what}, got an empty string")
        if isinstance(self.path, str) and "\0" in self.path:
            raise field_error(
                "path", "expected the path of a file, got one with a zero byte, which none has"
            )
        if isinstance(self.hash, str):
            msgspec.structs.force_setattr(self, "hash", normalize_hash(self.hash))

    def __repr__(self) -> str:
        values = {
            "path": self.path,
            "data": f"<{len(self.data)} bytes>"
            if isinstance(self.data, bytes)
            else self.data and "<not bytes>",
            "url": redact_url(self.url) if isinstance(self.url, str) else self.url,
            "headers": sorted(self.headers) if self.headers else None,
            "method": self.method,
            "name": self.name,
            "hash": self.hash,
        }
        parts = [f"{key}={value!r}" for key, value in values.items() if value is not None]
        return f"WasmSource({', '.join(parts)})"

    def __rich_repr__(self) -> Any:
        yield repr(self)


class MemoryOptions(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """Limits on the memory of a plugin, and on what the host keeps for it.

    `max_pages` counts as on other hosts. The main module may start with so many pages of 64 KiB,
    and so many may be added after the start, to its memory and to the blocks that are passed in and
    out together. The pages at the start do not count towards the added ones. So a plugin that
    starts with 17 pages runs with a limit of 17, and has at most 36: its own, two for blocks, and
    17 more. All of its memory together is bounded by the application (`Limits.memory_bytes`).
    """

    max_pages: Annotated[
        int | None,
        _number(
            "Pages of 64 KiB that the main module may start with, and that all memory may grow by "
            "after the start; null is no limit.",
            65536,
        ),
    ] = None
    max_http_response_bytes: Annotated[
        int | None, _number("The body of one HTTP response; null is 50 MiB.", _U64)
    ] = None
    max_var_bytes: Annotated[
        int | None, _number("All vars, keys and values; null is 1 MiB; 0 turns vars off.", _U64)
    ] = None

    def __post_init__(self) -> None:
        check_range("max_pages", self.max_pages, 65536)
        check_range("max_http_response_bytes", self.max_http_response_bytes, _U64)
        check_range("max_var_bytes", self.max_var_bytes, _U64)


class Manifest(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """The modules to run and what they may do. A plugin can reach only what is granted here."""

    wasm: Annotated[
        list[WasmSource],
        Meta(
            description="The modules; `main`, or else the last, is the one that is called.",
            extra_json_schema={"minItems": 1, "maxItems": MAX_MODULES},
        ),
    ]
    memory: Annotated[MemoryOptions, Meta(description="Limits on memory.")] = msgspec.field(
        default_factory=MemoryOptions
    )
    config: Annotated[
        dict[str, str],
        Meta(
            description="Settings that the plugin can read.",
            extra_json_schema={"maxProperties": MAX_CONFIG},
        ),
    ] = msgspec.field(default_factory=dict)
    allowed_hosts: Annotated[
        list[str] | None,
        Meta(
            description="Globs over the host names that the plugin may send HTTP requests to; "
            "null or [] is none.",
            extra_json_schema={"maxItems": MAX_HOSTS},
        ),
    ] = None
    allowed_paths: Annotated[
        dict[str, str] | None,
        Meta(
            description="Directories of the host, and the path of each in the plugin; "
            "`ro:` in front makes it read-only.",
            extra_json_schema={"maxProperties": MAX_PATHS},
        ),
    ] = None
    timeout_ms: Annotated[
        int | None, _number("The most milliseconds that a call may take; null is no limit.", _U64)
    ] = None

    def __post_init__(self) -> None:
        check_range("timeout_ms", self.timeout_ms, _U64)
        check_count("config", self.config, MAX_CONFIG, "entries")
        if isinstance(self.config, Mapping):
            check_total("config", self.config, MAX_TEXT_BYTES)
        check_count("allowed_hosts", self.allowed_hosts, MAX_HOSTS, "entries")
        for index, host in enumerate(
            self.allowed_hosts if isinstance(self.allowed_hosts, (list, tuple)) else ()
        ):
            check_length(f"allowed_hosts[{index}]", host, MAX_LENGTHS["allowed_hosts"])
            if isinstance(host, str):
                check_host(f"allowed_hosts[{index}]", host)
        check_count("allowed_paths", self.allowed_paths, MAX_PATHS, "directories")
        if isinstance(self.allowed_paths, Mapping):
            check_paths(self.allowed_paths)
        check_count("wasm", self.wasm, MAX_MODULES, "modules")
        if not isinstance(self.wasm, (list, tuple)):
            return
        if not self.wasm:
            raise field_error("wasm", "expected at least one module, got an empty list")
        seen: dict[str, int] = {}
        for index, source in enumerate(self.wasm):
            name = getattr(source, "name", None)
            if isinstance(name, str) and seen.setdefault(name, index) != index:
                raise field_error(
                    f"wasm[{index}].name",
                    f"expected a name of its own, got {quote(name)}, the name of "
                    f"wasm[{seen[name]}]",
                )

    @classmethod
    def parse(
        cls, data: object, *, format: Format = None, base: str | os.PathLike[str] | None = None
    ) -> Self:
        """Return the manifest in ``data``.

        It may ask for anything; use ``ManifestPolicy.admit`` for one from a stranger.

        Args:
            data: JSON or TOML, as text or bytes; a mapping, or a ``Manifest``. In a mapping,
                ``data`` may be bytes or base64 text, and paths may be ``os.PathLike``.
            format: "json" or "toml"; if not given, text that begins with ``{`` is JSON.
            base: The directory that its paths are relative to; the current one if not given.

        Raises:
            ManifestError: It is not valid; the message names the field.
        """
        manifest: Any = parse(data, format=format, base=base)
        return manifest  # type: ignore[no-any-return]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Return the manifest in a JSON or TOML file of any name.

        Its paths are relative to the directory of the file.

        Raises:
            SourceError: The file cannot be read.
            ManifestError: It is not valid; the message names the file and the field.
        """
        manifest: Any = load(path)
        return manifest  # type: ignore[no-any-return]

    def within(self, policy: ManifestPolicy) -> Admitted:
        """Return ``policy.admit(self)``."""
        return policy.admit(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the manifest as JSON types, with ``data`` in base64 and without default values.

        ``parse`` reads it.
        """
        plain: dict[str, Any] = msgspec.to_builtins(parse(self))
        if not plain["memory"]:
            del plain["memory"]
        return plain

    def to_json(self) -> str:
        """Return ``to_dict()`` as JSON text."""
        try:
            return msgspec.json.encode(self.to_dict()).decode()
        except UnicodeEncodeError:
            raise ManifestError(
                "the manifest has a path that cannot be written as UTF-8 (lone surrogates)"
            ) from None

    def __repr__(self) -> str:
        config = (
            sorted(self.config, key=str) if isinstance(self.config, Mapping) else "<not a mapping>"
        )
        return (
            f"Manifest(wasm={self.wasm!r}, memory={self.memory!r}, config keys={config!r}, "
            f"allowed_hosts={self.allowed_hosts!r}, "
            f"allowed_paths={self.allowed_paths!r}, timeout_ms={self.timeout_ms!r})"
        )

    def __rich_repr__(self) -> Any:
        yield repr(self)


def parse(
    value: object, *, format: Format = None, base: str | os.PathLike[str] | None = None
) -> Manifest:
    """Return the manifest in a value; see ``Manifest.parse``."""
    if isinstance(value, (str, bytes, bytearray, memoryview)):
        manifest = _convert(decode_document(value, format))
    elif isinstance(value, (Mapping, Manifest)):
        manifest = _convert(value)
    else:
        from .mistakes import describe_type, suggest_plugin

        raise ManifestError(
            "expected a manifest (a mapping, a Manifest, JSON or TOML), a path, a URL or a Wasm "
            "module; "
            f"got {describe_type(value)}{suggest_plugin(value)}"
        )
    return manifest if base is None else with_base(manifest, os.fsdecode(base))


parse.__module__ = "plugwasm.manifest"


def load(path: str | os.PathLike[str]) -> Manifest:
    """Return the manifest in a file; see ``Manifest.load``."""
    name = os.fsdecode(path)
    content = read_file(name, MAX_TEXT_BYTES)
    try:
        return parse(content, base=os.path.dirname(name) or None)
    except ManifestError as error:
        raise ManifestError(f"{format_path(name)}: {error.message}", field=error.field) from None


load.__module__ = "plugwasm.manifest"


def with_base(manifest: Manifest, base: str) -> Manifest:
    """Return a copy whose relative paths, of modules and of directories, start at ``base``."""
    sources = [
        source
        if source.path is None
        else msgspec.structs.replace(source, path=os.path.join(base, source.path))
        for source in manifest.wasm
    ]
    paths = manifest.allowed_paths
    return msgspec.structs.replace(
        manifest, wasm=sources, allowed_paths=make_absolute(paths, base) if paths else paths
    )


def _convert(value: Mapping[Any, Any] | Manifest | object) -> Manifest:
    plain = plain_manifest(value, (Manifest, WasmSource, MemoryOptions))
    try:
        return msgspec.convert(plain, Manifest, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise from_msgspec(error, _known_fields) from None
    except RecursionError:
        raise ManifestError("the manifest is nested too deeply") from None
    except UnicodeEncodeError:  # msgspec encodes a string where it expects another type
        raise ManifestError(
            "the manifest has text that cannot be encoded as UTF-8 (lone surrogates)"
        ) from None


def _known_fields(where: str) -> tuple[str, ...]:
    """Return the field names that are allowed at a place in a manifest."""
    struct = (
        WasmSource
        if where.startswith("wasm[")
        else MemoryOptions
        if where == "memory"
        else Manifest
    )
    return struct.__struct_fields__


# msgspec inspects a type when it first meets it, and crashes if two threads do that at once. An
# import is done by one thread.
parse({"wasm": [{"path": "x"}]})


set_public_module("plugwasm", Manifest, MemoryOptions, WasmSource)
