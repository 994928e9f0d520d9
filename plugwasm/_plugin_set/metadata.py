"""`plugin.toml` and `plugin.json`: what the author of a plugin says about it.

    [plugin]                title, version, description, author, homepage, order, enabled; all
                            optional
    [plugin.settings.NAME]  description, default, secret: what the plugin reads with `config_get`
    [manifest]              the manifest; if missing, it is in a file beside this one, or else the
                            module is `plugin.wasm`
    [extra]                 anything, for the application
    [build], [[test]]       how the author builds and tests it; nothing here reads that

The manifest has a table of its own because it is the same for each Extism host, and has no room for
other fields. Nothing here is trusted: texts are bounded and printable, and a homepage is a web
page. Nothing here grants anything.

Decisions: docs/decisions.md, 21.1 and 21.2.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from .._manifest.messages import field_error, from_msgspec, quote
from .._manifest.model import Manifest
from .._manifest.parsing import decode_document
from .._public import set_public_module
from ..errors import ManifestError

__all__ = ["PluginFile", "PluginTable", "Setting", "check_name", "parse_plugin_file"]

MAX_SETTINGS: Final = 100
MAX_NAME: Final = 100
MAX_TESTS: Final = 1000
_MAX_LENGTHS: Final = {
    "title": 100,
    "version": 100,
    "description": 2000,
    "author": 200,
    "homepage": 500,
}
_NOT_IN_URLS: Final = frozenset(" \n\"'<>`")
_MAX_ORDER: Final = 10**6


class Setting(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table `[plugin.settings.NAME]`: a value that the plugin reads with `config_get`.

    Attributes:
        description: What it is for.
        default: The value that the plugin reads where nothing was set.
        secret: Whether the value should not be shown.
    """

    description: str = ""
    default: str | None = None
    secret: bool = False

    def __post_init__(self) -> None:
        _check_text("description", self.description, 2000)
        if self.default is not None:
            _check_text("default", self.default, 10_000)


class PluginTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table `[plugin]`: what an application shows of the plugin. All of it may be left out.

    Attributes:
        title: The name that is shown.
        version: The version that is shown.
        description: What the plugin does.
        author: Who made it.
        homepage: A web page about it.
        order: Plugins with a lower number are called earlier.
        enabled: Whether the plugin is enabled if the application does not say.
        settings: What the plugin reads with `config_get`: a table `[plugin.settings.NAME]` for each
            name.
    """

    title: str = ""
    version: str = ""
    description: str = ""
    author: str = ""
    homepage: str = ""
    order: int = 0
    enabled: bool = True
    settings: dict[str, Setting] = {}

    def __post_init__(self) -> None:
        for field, length in _MAX_LENGTHS.items():
            _check_text(field, getattr(self, field), length)
        if self.homepage and not (
            self.homepage.startswith(("https://", "http://"))
            and _NOT_IN_URLS.isdisjoint(self.homepage)
        ):
            raise field_error(
                "homepage",
                "expected an address that begins with https:// or http://, "
                "and has no spaces or quotes",
            )
        if not -_MAX_ORDER <= self.order <= _MAX_ORDER:
            raise field_error("order", f"expected a number from -{_MAX_ORDER} to {_MAX_ORDER}")
        if len(self.settings) > MAX_SETTINGS:
            raise field_error(
                "settings", f"expected at most {MAX_SETTINGS}, got {len(self.settings)}"
            )
        for name in self.settings:
            if reason := check_name(name):
                raise field_error(
                    "settings", f"expected names that can be shown, but {quote(name)} {reason}"
                )


class PluginFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file. The manifest is validated elsewhere, and so are `build` and `test`, which
    only the author's tools read (`_project.project_file`)."""

    plugin: PluginTable = msgspec.field(default_factory=PluginTable)
    manifest: dict[str, Any] | None = None
    extra: dict[str, Any] = {}
    build: dict[str, Any] = {}
    test: list[dict[str, Any]] = []

    def __post_init__(self) -> None:
        if len(self.test) > MAX_TESTS:
            raise field_error("test", f"expected at most {MAX_TESTS}, got {len(self.test)}")


def check_name(name: str) -> str | None:
    """Return why a plugin cannot have this name; None if it can."""
    if not name:
        return "is empty"
    if len(name) > MAX_NAME:
        return f"is longer than {MAX_NAME} characters"
    if not name.isprintable() or name != name.strip():
        return "has characters that cannot be seen"
    return None


def parse_plugin_file(content: bytes) -> PluginFile:
    """Parse the text of such a file.

    Raises:
        ManifestError: It is not valid; the message says which field.
    """
    document = decode_document(content, what="the text")
    if isinstance(document, dict):
        for field in document:
            for table, struct in ("manifest", Manifest), ("plugin", PluginTable):
                if field in struct.__struct_fields__:
                    raise field_error(field, f"it belongs to the table [{table}]", "")
    try:
        return msgspec.convert(document, PluginFile)
    except msgspec.ValidationError as error:
        raise from_msgspec(error, _known_fields, "") from None
    except RecursionError:
        raise ManifestError("it is nested too deeply") from None
    except UnicodeEncodeError:
        raise ManifestError(
            "it has text that cannot be encoded as UTF-8 (lone surrogates)"
        ) from None


def _known_fields(field: str) -> tuple[str, ...]:
    struct = (
        Setting
        if field.startswith("plugin.settings")
        else PluginTable
        if field.startswith("plugin")
        else PluginFile
    )
    return struct.__struct_fields__


def _check_text(field: str, text: str, length: int) -> None:
    if len(text) > length:
        raise field_error(field, f"expected at most {length} characters, got {len(text)}")
    if not text.replace("\n", "").isprintable():
        raise field_error(field, "expected printable text, got characters that cannot be printed")


# As for manifests: msgspec inspects types once, at import, in one thread.
parse_plugin_file(b'{"plugin": {"settings": {"x": {}}}, "manifest": {}}')


set_public_module("plugwasm.plugin_set", Setting)
