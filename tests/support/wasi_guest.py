"""A guest without Wasm: its memory is a bytearray, and each WASI function is a method that takes
and returns Python values."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from plugwasm._wasi import abi
from plugwasm._wasi.preview1 import MemoryFault, Preopen, Wasi

SIZE = 1 << 20
PATH, PATH2, IOV, RESULT, DATA = 0, 8192, 16384, 20480, 65536
READ, WRITE, BOTH = abi.FD_READ, abi.FD_WRITE, abi.FD_READ | abi.FD_WRITE
OUT_OF_RANGE = 0xFFFF_FFF0


class BytesMemory:
    def __init__(self, size: int = SIZE) -> None:
        self.bytes = bytearray(size)

    def view(self, offset: int, length: int) -> memoryview:
        if offset + length > len(self.bytes):
            raise MemoryFault
        return memoryview(self.bytes)[offset : offset + length]

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self.view(offset, length))

    def write(self, offset: int, data: bytes) -> None:
        self.view(offset, len(data))[:] = data

    def u32(self, offset: int) -> int:
        return int.from_bytes(self.read(offset, 4), "little")

    def u64(self, offset: int) -> int:
        return int.from_bytes(self.read(offset, 8), "little")


class Guest:
    """The methods return the error number, or the error number and a result."""

    def __init__(self, *preopens: Preopen, **options: object) -> None:
        self.output: list[tuple[int, bytes]] = []
        self.slept: list[float] = []
        self.memory = BytesMemory()
        arguments: dict[str, object] = {
            "preopens": preopens,
            "on_output": lambda fd, data: self.output.append((fd, data)),
            "sleep": self.slept.append,
        }
        self.wasi = Wasi(**{**arguments, **options})  # type: ignore[arg-type]

    def call(self, name: str, *args: int) -> int:
        return getattr(self.wasi, name)(self.memory, *args)  # type: ignore[no-any-return]

    def path(self, path: bytes | str, at: int = PATH) -> tuple[int, int]:
        data = path.encode() if isinstance(path, str) else path
        self.memory.write(at, data)
        return at, len(data)

    def iovec(self, length: int) -> tuple[int, int]:
        self.memory.write(IOV, abi.IOVEC.pack(DATA, length))
        return IOV, 1

    def open(
        self,
        path: bytes | str,
        rights: int = READ,
        oflags: int = 0,
        fdflags: int = 0,
        fd: int = 3,
        follow: int = 1,
    ) -> tuple[int, int]:
        errno = self.call(
            "path_open", fd, follow, *self.path(path), oflags, rights, 0, fdflags, RESULT
        )
        return errno, self.memory.u32(RESULT)

    def opened(
        self, path: bytes | str, rights: int = READ, oflags: int = 0, fdflags: int = 0, fd: int = 3
    ) -> int:
        errno, result = self.open(path, rights, oflags, fdflags, fd)
        assert errno == 0, abi.ERRNO_NAMES[errno]
        return result

    def read(self, fd: int, length: int = 1000) -> tuple[int, bytes]:
        errno = self.call("fd_read", fd, *self.iovec(length), RESULT)
        return errno, b"" if errno else self.memory.read(DATA, self.memory.u32(RESULT))

    def write(self, fd: int, data: bytes) -> tuple[int, int]:
        self.memory.write(DATA, data)
        errno = self.call("fd_write", fd, *self.iovec(len(data)), RESULT)
        return errno, self.memory.u32(RESULT)

    def pread(self, fd: int, length: int, offset: int) -> tuple[int, bytes]:
        errno = self.call("fd_pread", fd, *self.iovec(length), offset, RESULT)
        return errno, b"" if errno else self.memory.read(DATA, self.memory.u32(RESULT))

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        self.memory.write(DATA, data)
        return self.call("fd_pwrite", fd, *self.iovec(len(data)), offset, RESULT)

    def seek(self, fd: int, offset: int, whence: int) -> tuple[int, int]:
        errno = self.call("fd_seek", fd, offset & (1 << 64) - 1, whence, RESULT)
        return errno, self.memory.u64(RESULT)

    def stat(self, path: bytes | str, follow: int = 1, fd: int = 3) -> tuple[int, tuple[int, ...]]:
        errno = self.call("path_filestat_get", fd, follow, *self.path(path), RESULT)
        return errno, abi.FILESTAT.unpack(self.memory.read(RESULT, 64))

    def fdstat(self, fd: int) -> tuple[int, ...]:
        assert self.call("fd_fdstat_get", fd, RESULT) == 0
        return abi.FDSTAT.unpack(self.memory.read(RESULT, 24))

    def on_path(self, name: str, path: bytes | str, fd: int = 3) -> int:
        return self.call(name, fd, *self.path(path))

    def rename(self, old: bytes | str, new: bytes | str, fd: int = 3, new_fd: int = 3) -> int:
        return self.call("path_rename", fd, *self.path(old), new_fd, *self.path(new, PATH2))

    def link(
        self, old: bytes | str, new: bytes | str, fd: int = 3, new_fd: int = 3, flags: int = 0
    ) -> int:
        return self.call("path_link", fd, flags, *self.path(old), new_fd, *self.path(new, PATH2))

    def symlink(self, target: bytes | str, path: bytes | str, fd: int = 3) -> int:
        return self.call("path_symlink", *self.path(target), fd, *self.path(path, PATH2))

    def readlink(self, path: bytes | str, length: int = 1000, fd: int = 3) -> tuple[int, bytes]:
        errno = self.call("path_readlink", fd, *self.path(path), DATA, length, RESULT)
        return errno, b"" if errno else self.memory.read(DATA, self.memory.u32(RESULT))

    def readdir(self, fd: int, cookie: int, length: int) -> tuple[int, bytes]:
        errno = self.call("fd_readdir", fd, DATA, length, cookie, RESULT)
        return errno, b"" if errno else self.memory.read(DATA, self.memory.u32(RESULT))

    def names(self, fd: int, length: int = 4096) -> list[bytes]:
        """Return all names in a directory, read as a libc does: whole entries, continuing from
        the last one's cookie."""
        names: list[bytes] = []
        cookie = 0
        while True:
            errno, data = self.readdir(fd, cookie, length)
            assert errno == 0
            at = 0
            while at + 24 <= len(data):
                following, _, size, _ = abi.DIRENT.unpack_from(data, at)
                if at + 24 + size > len(data):
                    break
                names.append(data[at + 24 : at + 24 + size])
                cookie = following
                at += 24 + size
            if len(data) < length:
                return names


def snapshot(root: Path) -> dict[str, object]:
    """Return the kind, links, size, times and content of every name at and below a directory."""
    seen: dict[str, object] = {}
    for directory, folders, files in os.walk(root):
        for name in [*folders, *files, "."]:
            path = os.path.join(directory, name)
            status = os.lstat(path)
            content: object = None
            if stat.S_ISREG(status.st_mode):
                content = Path(path).read_bytes()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            seen[path] = (
                status.st_mode,
                status.st_ino,
                status.st_nlink,
                status.st_size,
                status.st_mtime_ns,
                content,
            )
    return seen
