"""A recording as a file: JSON that can be read in a diff. Parsing is strict, since a file may come
from anywhere.

Reading a file takes a small multiple of its size in memory, whatever it contains: the size of its
objects is estimated from brackets, commas and strings before any is made (`json_size`), and texts
that Python converts are bounded.
"""

from __future__ import annotations

import os
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from .._manifest.files import format_path, read_file
from .._payload_bounds.nesting import MAX_LEVELS
from .._platform.new_files import write_file
from .._public import set_public_module
from ..errors import RecordingError, SourceError, escape_line
from .json_size import JsonSize
from .schema import FORMAT_VERSION, Call, Count, Data, Int32, RecordedModule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .._manifest.limits import Limits
    from .._runtime.argument_types import PluginInput
    from .._runtime.compiled_plugin import CompiledPlugin
    from .replay import Replay

MAX_FILE_BYTES = 2**28
"""The largest recording that is read by default."""
MAX_MEMORY_FACTOR = 6
"""How many times its file size a recording may take as objects. Saved ones take 2 to 5 times."""
MAX_LIMITS_BYTES = 10_000
"""The largest `limits` of a recording."""
MIN_MEMORY_BOUND = 2**24
"""Bytes that a recording may take as objects, however small the file is."""


class Recording(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The life of one instance of a plugin from its start: its calls, and everything that the host
    answered.

    Attributes:
        plugwasm_recording: The version of the format.
        plugin: The name of the plugin.
        modules: Its modules, with the digests of their bytes; `main` is the name of the one that is
            called.
        wasi, fuel_limit, http_response_headers, limits: The options that the plugin was made with.
        config, vars, more_vars, log_level: Their values at the start.
        calls: Its calls, in order.
        incomplete: Why the recording ended before the instance did; empty if it did not.
    """

    plugwasm_recording: Annotated[int, Meta(ge=1)]
    plugin: str
    modules: list[RecordedModule]
    main: str
    wasi: bool = False
    fuel_limit: Count | None = None
    http_response_headers: bool = False
    limits: dict[str, bool | int | float | None] = {}
    config: dict[str, str] = {}
    vars: dict[str, Data] = {}
    more_vars: tuple[tuple[bytes, Data], ...] = ()
    """Vars whose names are not UTF-8, which JSON cannot express: the names are in Base64."""
    log_level: Int32 = 0
    overrides: list[tuple[str, str]] = []
    """Functions of the application that replaced functions of plugwasm's own."""
    calls: list[Call] = []
    incomplete: str = ""

    @property
    def complete(self) -> bool:
        """Whether it has all calls of the instance, so that it can be replayed."""
        return not self.incomplete

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file that only this user can read.

        An existing file is replaced in one step. The file holds all data that passed.

        Raises:
            OSError: The file cannot be written.
        """
        write_file(os.fspath(path), self.to_json())

    def to_json(self) -> bytes:
        """Return the content of the file."""
        return (
            msgspec.json.format(msgspec.json.encode(self, order="deterministic"), indent=1) + b"\n"
        )

    def replay(
        self,
        plugin: PluginInput | CompiledPlugin | None = None,
        *,
        strict: bool = False,
        limits: Limits | None = None,
    ) -> Replay:
        """Make the calls again with this plugin, and check that everything is as recorded: host
        calls, outputs or errors, and vars.

        The replay reaches nothing outside: host functions, HTTP, files, clocks and random bytes are
        answered from the recording.

        Args:
            plugin: A path, bytes, or a manifest, as for `Plugin`, of which only the modules count;
                the path of a script, with the host functions that it declares; or a
                `CompiledPlugin`, such as a script with others. If not given, the files that the
                recorded plugin was made of.
            strict: Whether the modules must be the recorded ones, to the byte.
            limits: What the replay may make this process spend; the defaults of `Limits` if not
                given, since a recording may come from anywhere. The recording's own limits may not
                be larger, except for the timeout: a call that had more time gets `limits.timeout`.
                All calls together get ten times that.

        Raises:
            ReplayError: Something differs, or takes too long; it is an `AssertionError` too.
            RecordingError: The recording is not complete, or has larger limits; or `strict` is set
                and the modules differ; or a file that it names is neither the recorded one nor a
                module in the binary format.
            ManifestError, SourceError, ModuleError: `plugin` cannot be read.
        """
        from .replay import replay

        __tracebackhide__ = True
        return replay(self, plugin, strict=strict, limits=limits)

    def __repr__(self) -> str:
        suffix = "" if self.complete else ", incomplete"
        return f"<Recording of {self.plugin!r}, {len(self.calls)} calls{suffix}>"


def load(path: str | os.PathLike[str], *, max_bytes: int = MAX_FILE_BYTES) -> Recording:
    """Read a recording.

    Args:
        path: The file.
        max_bytes: The largest file to read. Reading takes up to about seven times as much memory as
            the file has bytes.

    Raises:
        RecordingError: There is no such file, or it is not a recording, or it is too large.
    """
    path = os.fspath(path)
    try:
        content = read_file(path, max_bytes)
    except SourceError as error:
        raise RecordingError(f"recording: {error.message}") from error.__cause__
    return loads(content, path)


load.__module__ = "plugwasm.recording"


def loads(content: bytes, origin: str = "the recording") -> Recording:
    """Parse the content of a file; `origin` is for error messages. Raises `RecordingError`."""
    size = JsonSize(content)
    if size.depth > MAX_LEVELS:
        raise RecordingError(f"{format_path(origin)} is no recording: it is nested too deep")
    if size.memory_bytes > max(MAX_MEMORY_FACTOR * len(content), MIN_MEMORY_BOUND):
        raise RecordingError(
            f"{format_path(origin)} has {len(content)} bytes, but would take {size.memory_bytes} "
            "bytes of memory, more than a saved recording ever takes"
        )
    try:
        header = msgspec.json.decode(content, type=_Header)
        if header.plugwasm_recording > FORMAT_VERSION:
            known = f"this plugwasm knows {FORMAT_VERSION}: update it"
            raise RecordingError(
                f"{format_path(origin)} has version {header.plugwasm_recording} of the format, "
                f"and {known}"
            )
        if len(bytes(header.limits)) > MAX_LIMITS_BYTES:
            raise RecordingError(
                f"{format_path(origin)} is no recording: its `limits` are larger than "
                f"{MAX_LIMITS_BYTES} bytes"
            )
        return msgspec.json.decode(content, type=Recording)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RecordingError(
            f"{format_path(origin)} is no recording: {escape_line(str(error))}"
        ) from None


class _Header(Struct):
    plugwasm_recording: int
    limits: msgspec.Raw = msgspec.Raw()


set_public_module("plugwasm.recording", Recording)
