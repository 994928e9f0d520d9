"""The places of plugins: directories, what the application names, entry points of packages.

Each place gives sources. A `PluginSource` has a name that the author of the plugin has no say in,
can be read again, and can tell cheaply whether reading again would give something new. Nothing is
compiled here.

What lies in a directory is not trusted: no link is followed, no folder refers to anything outside
of itself, nothing is fetched, and no more is read than a plugin may have; see `directory`. What the
application names itself is read as `CompiledPlugin` reads it.

Decisions: docs/decisions.md, 21.5.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from .._manifest.download import redact_url
from .._manifest.files import format_path, is_file, is_url, looks_like_text, make_absolute
from .._manifest.messages import field_error
from .._manifest.model import Manifest, parse
from .._manifest.module_files import check_hash
from .._manifest.resolve import PluginSpec, name_modules, resolve, resolve_manifest
from .._runtime.compiled_plugin import CompiledPlugin
from .._script.names import SUFFIXES, language_of
from ..errors import Error, ManifestError, OptionError, SourceError, truncate
from .directory import FileStamp, OpenDirectory
from .files import SCRIPT_FILES, is_module, is_script_file, place_in_order, read_module
from .metadata import PluginFile, check_name, parse_plugin_file

if TYPE_CHECKING:
    from .._http.egress import Egress

__all__ = [
    "ApplicationSource",
    "EntryPointSource",
    "FileSource",
    "FolderSource",
    "PluginSource",
    "application_sources",
    "directory_sources",
    "entry_point_sources",
]

MAX_TEXT_BYTES: Final = 2**20
"""The largest number of bytes of a description or a manifest in a folder."""
MAX_MODULES: Final = 64
MODULE_FILE: Final = "plugin.wasm"
"""The module of a folder that has no manifest."""
_METADATA_FILES: Final = ("plugin.toml", "plugin.json")
_MANIFEST_FILES: Final = ("manifest.toml", "manifest.json")

T = TypeVar("T")
Stamp = tuple[FileStamp, ...]


class PluginSource:
    """A place that a plugin can be read from, as often as it changes.

    Attributes:
        name: The name of the plugin in the application.
        location: The place, for messages.
    """

    def __init__(self, name: str, location: str) -> None:
        self.name = name
        self.location = location
        self._files: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[object, ...]:
        """A value that differs from the keys of all other sources."""
        return type(self), self.name, self.location

    @contextmanager
    def open(self) -> Iterator[None]:
        """Hold the files open for a `with` block.

        `stamp`, `read_metadata` and `load` are called in the block, so that all read the same
        files.
        """
        yield

    def stamp(self) -> Stamp:
        """Return a value that changes when the files do that the plugin was last read from."""
        return tuple(_file_stamp(path) for path in self._files)

    def read_metadata(self) -> PluginFile:
        """Read what the author says of the plugin. Raise `Error` if that cannot be read."""
        return PluginFile()

    def load(self, metadata: PluginFile, module_bytes: int) -> PluginSpec | CompiledPlugin:
        """Read the plugin itself, without compiling it. Raise `Error` if that cannot be read."""
        raise NotImplementedError


class RejectedSource(PluginSource):
    """Something in a directory that looks like a plugin and is none; loading it says why."""

    def __init__(self, name: str, location: str, reason: str) -> None:
        super().__init__(name, location)
        self._reason = reason

    def read_metadata(self) -> PluginFile:
        raise SourceError(f"{format_path(self.location)} {self._reason}")


class UntrustedSource(PluginSource):
    """Files in a directory that other users may write to. `_files` are relative to it.

    Args:
        name, where: As for `PluginSource`.
        directory: A directory that the application named.
        folder: The folder in it that the files are in; None if they are in the directory itself.
    """

    def __init__(self, name: str, location: str, directory: str, folder: str | None) -> None:
        super().__init__(name, location)
        self._place = directory, folder
        self._folder = OpenDirectory(*self._place)

    @contextmanager
    def open(self) -> Iterator[None]:
        with OpenDirectory(*self._place) as self._folder:
            yield

    def stamp(self) -> Stamp:
        return tuple(map(self._folder.stamp, self._files))


class FileSource(UntrustedSource):
    """A `.wasm` file or a script in a directory."""

    def __init__(self, name: str, directory: str, file: str) -> None:
        super().__init__(name, os.path.join(directory, file), directory, None)
        self._files = (file,)

    def load(self, metadata: PluginFile, module_bytes: int) -> PluginSpec:
        file = self._files[0]
        return read_module(self._folder.read(file, module_bytes), file, self.location)


class FolderSource(UntrustedSource):
    """A folder with a `plugin.toml`, a `manifest.toml`, or one of these in JSON.

    The folder is `directory`, which the application named, or `folder` in it.
    """

    def __init__(
        self, name: str, directory: str, folder: str | None = None, *, scripts: bool = True
    ) -> None:
        super().__init__(
            name,
            directory if folder is None else os.path.join(directory, folder),
            directory,
            folder,
        )
        self._has_scripts = scripts
        self._files = self._texts = (*_METADATA_FILES, *_MANIFEST_FILES)

    def read_metadata(self) -> PluginFile:
        file = self._find_one(_METADATA_FILES)
        if file is None:
            return PluginFile()
        return self._parse(file, parse_plugin_file)

    def load(self, metadata: PluginFile, module_bytes: int) -> PluginSpec:
        file = self._find_one(_MANIFEST_FILES)
        if file is None and metadata.manifest is None:
            module = self._find_module()
            return self._read(module, self._folder.read(module, module_bytes))
        if file is None:
            file = self._find_one(_METADATA_FILES) or _METADATA_FILES[0]
            asked = metadata.manifest or {}
            default = {} if "wasm" in asked else {"wasm": [{"path": self._find_module()}]}
            manifest = self._with_location(file, lambda: parse(default | asked))
        elif metadata.manifest is not None:
            raise ManifestError(
                f"{format_path(self.location)} has two manifests: `[manifest]` and {file}"
            )
        else:
            manifest = self._parse(file, parse)
        return self._with_location(file, lambda: self._spec(manifest, module_bytes))

    def _spec(self, manifest: Manifest, module_bytes: int) -> PluginSpec:
        """Return the spec of a manifest whose modules all lie in this folder.

        Together they may be no larger than one module may.
        """
        if len(manifest.wasm) > MAX_MODULES:
            raise field_error(
                "wasm", f"expected at most {MAX_MODULES} modules, got {len(manifest.wasm)}"
            )
        paths = [source.path for source in manifest.wasm if source.path is not None]
        self._files = tuple(dict.fromkeys((*self._files, *self._texts, *paths)))
        scripts = [path for path in paths if language_of(path)]
        if scripts and self._has_scripts:
            return self._script_spec(manifest, scripts[0], module_bytes)
        modules, left = [], module_bytes
        for index, (source, name) in enumerate(
            zip(manifest.wasm, name_modules(manifest.wasm), strict=True)
        ):
            if source.url is not None:
                raise field_error(
                    f"wasm[{index}].url",
                    "the modules of a plugin in a folder must be files of that folder",
                )
            content = source.data if source.path is None else self._folder.read(source.path, left)
            left -= len(content or b"")
            modules.append(msgspec.structs.replace(source, name=name, path=None, data=content))
        directories = make_absolute(manifest.allowed_paths or {}, self.location)
        return resolve_manifest(
            msgspec.structs.replace(manifest, wasm=modules, allowed_paths=directories), module_bytes
        )

    def _script_spec(self, manifest: Manifest, path: str, module_bytes: int) -> PluginSpec:
        """Return the spec of a manifest whose module is a script."""
        if len(manifest.wasm) > 1:
            raise field_error(
                "wasm", f"{format_path(path)} is a script, which has no other modules beside it"
            )
        content = self._folder.read(path, module_bytes)
        check_hash(manifest.wasm[0], "wasm[0]", os.path.join(self.location, path), content)
        spec = self._read(path, content)
        directories = make_absolute(manifest.allowed_paths or {}, self.location)
        spec._take_grants(msgspec.structs.replace(manifest, allowed_paths=directories))
        return spec

    def _read(self, path: str, content: bytes) -> PluginSpec:
        file = os.path.join(os.path.basename(self.location.rstrip(os.sep)), path)
        return read_module(content, file, os.path.join(self.location, path))

    def _find_module(self) -> str:
        """Return the module of a folder whose manifest, if it has one, names none."""
        self._files = (*self._texts, MODULE_FILE)
        if not self._has_scripts or self._folder.has(MODULE_FILE):
            return MODULE_FILE
        self._files = (*self._texts, MODULE_FILE, *SCRIPT_FILES)
        return self._find_one(SCRIPT_FILES) or MODULE_FILE

    def _find_one(self, files: tuple[str, ...]) -> str | None:
        self._folder.check()
        there = [file for file in files if self._folder.has(file)]
        if len(there) > 1:
            raise ManifestError(
                f"{format_path(self.location)} has both {there[0]} and {there[1]}; "
                "one of them would not count"
            )
        return there[0] if there else None

    def _parse(self, file: str, parser: Callable[[bytes], T]) -> T:
        content = self._folder.read(file, MAX_TEXT_BYTES)
        return self._with_location(file, lambda: parser(content))

    def _with_location(self, file: str, action: Callable[[], T]) -> T:
        """Return the result of `action`. The message of an error begins with the path of `file`."""
        try:
            return action()
        except Error as error:
            error.message = f"{format_path(os.path.join(self.location, file))}: {error.message}"
            error.args = (error.message,)
            raise


class ApplicationSource(PluginSource):
    """A value that the application itself passed: what `CompiledPlugin` takes, or one.

    `egress` decides which downloads are allowed.
    """

    def __init__(
        self, name: str, value: object, location: str | None = None, *, egress: Egress | None = None
    ) -> None:
        super().__init__(name, location or _location_of(value))
        self._egress = egress
        self._value = value
        self._files = (path,) if (path := _path_of(value)) is not None else ()

    def load(self, metadata: PluginFile, module_bytes: int) -> PluginSpec | CompiledPlugin:
        return self._resolve(self._value, module_bytes)

    def _resolve(self, value: Any, module_bytes: int) -> PluginSpec | CompiledPlugin:
        if isinstance(value, CompiledPlugin):
            return value
        path = _path_of(value)
        if path is not None and language_of(path):
            from .._script.spec import read_script_spec

            self._files = (path,)
            return read_script_spec(path, module_bytes)
        spec = resolve(value, module_bytes=module_bytes, egress=self._egress)
        self._files = tuple(
            {
                path: None
                for path in (path, *(module.origin for module in spec.modules))
                if path and is_file(path)
            }
        )
        return spec


class EntryPointSource(ApplicationSource):
    """An entry point of a Python package: an object, or a function without parameters.

    The function returns the object.
    """

    def __init__(self, entry_point: Any, group: str, *, egress: Egress | None = None) -> None:
        super().__init__(
            entry_point.name,
            None,
            f"entry point {entry_point.name!r} of {group}: {entry_point.value}",
            egress=egress,
        )
        self._entry_point = entry_point

    def load(self, metadata: PluginFile, module_bytes: int) -> PluginSpec | CompiledPlugin:
        try:
            value = self._entry_point.load()
            if callable(value):
                value = value()
        except Exception as error:
            if isinstance(error, Error):
                raise
            raise SourceError(
                f"{format_path(self.location)}: it raised {type(error).__name__}: "
                f"{truncate(str(error))}"
            ) from error
        return self._resolve(value, module_bytes)


# ---- the places ----------------------------------------------------------------------------------


def directory_sources(directory: str, scripts: bool = True) -> Iterator[PluginSource]:
    """Yield the plugins of a directory, by name; hidden ones are left out.

    They are each `.wasm` file, each script, and each folder with a description or a manifest. A
    module comes before a script of the same name, which so cannot take its name.

    Args:
        directory: The directory.
        scripts: Whether scripts are plugins.

    Raises:
        SourceError: The directory cannot be read.
    """
    with OpenDirectory(directory) as folder:
        found = [
            (file, is_link, is_directory)
            for file, is_link, is_directory in folder.entries()
            if not file.startswith((".", "__"))
            and (
                is_module(file, is_directory)
                or (scripts and is_script_file(file, is_directory))
                or (
                    (is_directory or is_link)
                    and any(
                        folder.seems_to_have(file, text)
                        for text in (*_METADATA_FILES, *_MANIFEST_FILES)
                    )
                )
            )
        ]
    for file, is_link, is_directory in sorted(found, key=place_in_order):
        location = os.path.join(directory, file)
        is_file = is_module(file, is_directory) or (scripts and is_script_file(file, is_directory))
        name = os.path.splitext(file)[0] if is_file else file
        if wrong := check_name(name):
            yield RejectedSource(
                truncate(name, 80), location, f"cannot be the name of a plugin: it {wrong}"
            )
        elif is_link:
            yield RejectedSource(
                name, location, "is a symbolic link, which is not followed; move the plugin here"
            )
        elif is_directory:
            yield FolderSource(name, directory, file, scripts=scripts)
        else:
            yield FileSource(name, directory, file)


def application_sources(
    plugins: Iterable[object] | Mapping[str, object], egress: Egress | None = None
) -> Iterator[PluginSource]:
    """Yield what the application passed, by its names or in its order.

    Raises:
        OptionError: A name is not valid.
    """
    if isinstance(plugins, Mapping) and isinstance(plugins.get("wasm"), list):
        raise OptionError(
            "plugins: expected a list, or plugins by their names, got one manifest; "
            "put it in a list"
        )
    pairs = (
        plugins.items() if isinstance(plugins, Mapping) else ((None, value) for value in plugins)
    )
    for index, (name, value) in enumerate(pairs, 1):
        if name is None:
            name = _default_name(value) or f"plugin-{index}"
        if not isinstance(name, str) or (reason := check_name(name)):
            raise OptionError(
                f"{name!r} cannot be the name of a plugin"
                f"{'' if not isinstance(name, str) else f': it {reason}'}"
            )
        path = _path_of(value)
        yield (
            FolderSource(name, path)
            if path is not None and os.path.isdir(path)
            else ApplicationSource(name, value, egress=egress)
        )


def entry_point_sources(group: str, egress: Egress | None = None) -> Iterator[PluginSource]:
    """Yield the entry points of a group, by name. Their packages are not imported yet."""
    from importlib import metadata

    for entry_point in sorted(
        metadata.entry_points(group=group), key=lambda entry_point: entry_point.name
    ):
        if wrong := check_name(entry_point.name):
            yield RejectedSource(
                truncate(entry_point.name),
                f"entry point of {group}",
                f"cannot be the name of a plugin: it {wrong}",
            )
        else:
            yield EntryPointSource(entry_point, group, egress=egress)


def _path_of(value: object) -> str | None:
    """Return the path that a value is, or None."""
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if (
        isinstance(value, str)
        and not is_url(value)
        and (is_file(value) or not looks_like_text(value))
    ):
        return value
    return None


def _default_name(value: object) -> str | None:
    if isinstance(value, CompiledPlugin):
        return value.name
    path = (
        redact_url(value).removesuffix("?…")
        if isinstance(value, str) and is_url(value)
        else _path_of(value)
    )
    if path is None:
        return None
    head, file = os.path.split(path.rstrip("/" + os.sep))
    if file in (*_METADATA_FILES, *_MANIFEST_FILES, MODULE_FILE, *SCRIPT_FILES):
        file = os.path.basename(head) or file
    known = (".wasm", ".wat", ".toml", ".json", *SUFFIXES)
    return file.rpartition(".")[0] if file.endswith(known) else file


def _location_of(value: object) -> str:
    if isinstance(value, CompiledPlugin):
        return repr(value)
    if isinstance(value, str) and is_url(value):
        return redact_url(value)
    path = _path_of(value)
    return format_path(path) if path is not None else "given by the application"


# ---- files of the application --------------------------------------------------------------------


def _file_stamp(path: str) -> FileStamp:
    try:
        status = os.lstat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
