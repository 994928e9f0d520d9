"""`Recorder`, the observer that makes recordings; see `plugwasm.recording`."""

from __future__ import annotations

import os
from collections import deque
from contextlib import contextmanager

from .._platform.new_files import write_file
from .._runtime.observers import Observer
from ..errors import OptionError, RecordingError
from .buffer import RecordingBuffer
from .capture import Capture
from .recording import Recording

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from .._host.guest import Guest
    from .._runtime import observers

_MAX_RECORDINGS = 8


class Recorder(Observer):
    """Records the instances of the plugins that it observes, each from its start.

    One recorder can serve any number of plugins and threads.

    A plugin has one recorder; of several, the first counts. An `IsolatedPlugin` cannot be recorded.

    Args:
        directory: Where recordings are written: a file for each instance, rewritten after each of
            its calls. The files, and the directory if it is created, are readable by this user
            only.
        when: Returns whether to write after this call (`observing.Call`); if not given, each call
            is followed by a write.
        max_bytes: About how many bytes may pass in the calls of an instance; beyond them, its
            recording ends and is incomplete.

    Raises:
        OptionError: `max_bytes` is not a number, or `when` is given without a `directory`.
    """

    __module__ = "plugwasm.recording"

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        *,
        when: Callable[[observers.Call], object] | None = None,
        max_bytes: int = 64 * 2**20,
    ) -> None:
        if not isinstance(max_bytes, int) or isinstance(max_bytes, bool) or max_bytes < 0:
            raise OptionError(
                f"Recorder: max_bytes must be a number of bytes, got {max_bytes!r}",
                field="max_bytes",
            )
        if when is not None and directory is None:
            raise OptionError(
                "Recorder: `when` says when to write a file, so it needs a `directory`",
                field="when",
            )
        if not (directory is None or isinstance(directory, (str, os.PathLike))):
            raise OptionError(
                f"Recorder: directory: expected a path, got {type(directory).__name__}",
                field="directory",
            )
        if not (when is None or callable(when)):
            raise OptionError(
                f"Recorder: when: expected a function that takes a call, got {type(when).__name__}",
                field="when",
            )
        self.directory: str | None = None if directory is None else os.fspath(directory)
        self._when = when
        self._max_bytes = max_bytes
        self._buffers: deque[RecordingBuffer] = deque(maxlen=_MAX_RECORDINGS)
        self._ended_calls: dict[int, RecordingBuffer] = {}
        if self.directory is not None:
            os.makedirs(self.directory, mode=0o700, exist_ok=True)

    @property
    def recording(self) -> Recording:
        """The recording of the instance that was started last, as far as it has come.

        Raises:
            RecordingError: There is none yet.
        """
        recordings = self.recordings
        if not recordings:
            raise RecordingError(
                "nothing was recorded yet: no plugin that this recorder observes was called"
            )
        return recordings[-1]

    @property
    def recordings(self) -> tuple[Recording, ...]:
        """The recordings of the last eight instances, in the order of their starts.

        Instances without a call are left out, except the last.
        """
        buffers = self._snapshot_buffers()
        return tuple(
            Recording(**buffer.fields())
            for buffer in buffers
            if buffer.calls or buffer is buffers[-1]
        )

    def _snapshot_buffers(self) -> tuple[RecordingBuffer, ...]:
        # No lock: a finalizer or a signal handler may start a recorded plugin at any moment.
        while True:
            try:
                return tuple(self._buffers)
            except RuntimeError:  # another one was appended meanwhile
                pass

    def on_call(self, call: observers.Call) -> AbstractContextManager[object] | None:
        return None if self.directory is None else self._write_after(call)

    @contextmanager
    def _write_after(self, call: observers.Call) -> Iterator[None]:
        try:
            yield
        finally:
            buffer = self._ended_calls.pop(id(call), None)
            if buffer is not None and (self._when is None or self._when(call)):
                write_file(
                    os.path.join(self.directory or "", _file_name(buffer)),
                    Recording(**buffer.fields()).to_json(),
                )

    def _make_interceptor(self, guest: Guest) -> Capture:
        buffer = RecordingBuffer(guest, self._max_bytes)
        self._buffers.append(buffer)
        return Capture(guest, buffer, self._on_call_end)

    def _on_call_end(self, call: observers.Call, buffer: RecordingBuffer) -> None:
        if self.directory is not None:
            self._ended_calls[id(call)] = buffer


def _file_name(buffer: RecordingBuffer) -> str:
    """Return a file name that is unique among instances and, after a fork, among processes."""
    plugin = "".join(c if c.isalnum() or c in "-_" else "_" for c in buffer.plugin)[:48]
    return f"{plugin}-{buffer.id}-{os.getpid()}.json"
