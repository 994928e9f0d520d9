"""The ``path_*`` functions of WASI preview 1: operations on names in directories that a guest has
open.

Rights and read-only trees are as in ``descriptors``. Each function resolves a path to a directory
and a name, and then makes one system call on the two, which does not follow a link.
"""

from __future__ import annotations

import os
from stat import S_ISDIR, S_ISLNK

from . import abi
from .abi import U32, WasiError
from .descriptors import ALL_FDFLAGS, DescriptorCalls, pack_filestat
from .path_resolution import MAX_PATH, Walk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .abi import WasiMemory

_ALL_OFLAGS = abi.O_CREAT | abi.O_DIRECTORY | abi.O_EXCL | abi.O_TRUNC


class PathCalls(DescriptorCalls):
    """The functions of ``Wasi`` on paths."""

    def path_open(
        self,
        memory: WasiMemory,
        fd: int,
        dirflags: int,
        path: int,
        path_len: int,
        oflags: int,
        rights_base: int,
        rights_inheriting: int,
        fdflags: int,
        opened_fd: int,
    ) -> int:
        """Open a file or directory.

        It inherits from its directory, whatever ``rights_inheriting`` says.
        """
        directory = self._directory(fd, abi.PATH_OPEN)
        result = memory.view(opened_fd, 4)
        if (
            oflags & ~_ALL_OFLAGS
            or fdflags & ~ALL_FDFLAGS
            or (oflags & abi.O_DIRECTORY and oflags & (abi.O_CREAT | abi.O_TRUNC))
        ):
            raise WasiError(abi.INVAL)
        follow = _follow(dirflags)
        name = _path(memory, path, path_len)
        writes = rights_base & abi.FD_WRITE and not oflags & abi.O_DIRECTORY
        if directory.read_only and (writes or oflags & (abi.O_CREAT | abi.O_TRUNC)):
            raise WasiError(abi.ROFS)
        if (oflags & abi.O_CREAT and not directory.rights & abi.PATH_CREATE_FILE) or (
            oflags & abi.O_TRUNC and not directory.rights & abi.PATH_FILESTAT_SET_SIZE
        ):
            raise WasiError(abi.NOTCAPABLE)
        if self._opened >= self._max_descriptors:
            raise WasiError(abi.MFILE)
        rights = rights_base & directory.inheriting
        opened = directory.open(name, follow=follow, oflags=oflags, fdflags=fdflags, rights=rights)
        U32.pack_into(result, 0, self._add(opened))
        return 0

    def path_filestat_get(
        self, memory: WasiMemory, fd: int, flags: int, path: int, path_len: int, buf: int
    ) -> int:
        directory = self._directory(fd, abi.PATH_FILESTAT_GET)
        name = _path(memory, path, path_len)
        with Walk(directory.fd, name, follow=_follow(flags) or _means_directory(name)) as at:
            stat = at.existing()
        memory.write(buf, pack_filestat(stat))
        return 0

    def path_filestat_set_times(
        self,
        memory: WasiMemory,
        fd: int,
        flags: int,
        path: int,
        path_len: int,
        atim: int,
        mtim: int,
        fst_flags: int,
    ) -> int:
        directory = self._directory(fd, abi.PATH_FILESTAT_SET_TIMES, changes=True)
        name = _path(memory, path, path_len)
        with Walk(directory.fd, name, follow=_follow(flags) or _means_directory(name)) as at:
            times = self._times(at.existing(), atim, mtim, fst_flags)
            os.utime(at.name, ns=times, dir_fd=at.fd, follow_symlinks=False)
        return 0

    def path_create_directory(self, memory: WasiMemory, fd: int, path: int, path_len: int) -> int:
        directory = self._directory(fd, abi.PATH_CREATE_DIRECTORY, changes=True)
        with Walk(directory.fd, _path(memory, path, path_len)) as at:
            os.mkdir(at.name, dir_fd=at.fd)
        return 0

    def path_remove_directory(self, memory: WasiMemory, fd: int, path: int, path_len: int) -> int:
        directory = self._directory(fd, abi.PATH_REMOVE_DIRECTORY, changes=True)
        name = _path(memory, path, path_len)
        if _last(name) == b"." and name.strip(b"/") != b".":
            raise WasiError(abi.INVAL)
        with Walk(directory.fd, name) as at:
            os.rmdir(at.name, dir_fd=at.fd)
        return 0

    def path_unlink_file(self, memory: WasiMemory, fd: int, path: int, path_len: int) -> int:
        directory = self._directory(fd, abi.PATH_UNLINK_FILE, changes=True)
        name = _path(memory, path, path_len)
        with Walk(directory.fd, name, follow=_means_directory(name)) as at:
            if S_ISDIR(at.existing().st_mode):
                raise WasiError(abi.ISDIR)
            os.unlink(at.name, dir_fd=at.fd)
        return 0

    def path_rename(
        self,
        memory: WasiMemory,
        fd: int,
        old: int,
        old_len: int,
        new_fd: int,
        new: int,
        new_len: int,
    ) -> int:
        source = self._directory(fd, abi.PATH_RENAME_SOURCE, changes=True)
        target = self._directory(new_fd, abi.PATH_RENAME_TARGET, changes=True)
        old_path, new_path = _path(memory, old, old_len), _path(memory, new, new_len)
        with Walk(source.fd, old_path) as before, Walk(target.fd, new_path) as after:
            if before.found is not None and (
                _is_dots(old_path, before) or _is_dots(new_path, after)
            ):
                raise WasiError(abi.BUSY)
            moved = before.existing()
            if after.directory and not S_ISDIR(moved.st_mode):
                raise WasiError(abi.NOTDIR)
            os.rename(before.name, after.name, src_dir_fd=before.fd, dst_dir_fd=after.fd)
        return 0

    def path_link(
        self,
        memory: WasiMemory,
        old_fd: int,
        old_flags: int,
        old: int,
        old_len: int,
        new_fd: int,
        new: int,
        new_len: int,
    ) -> int:
        """Make a hard link.

        One to a symbolic link is a second name of that; following it is INVAL.
        """
        source = self._directory(old_fd, abi.PATH_LINK_SOURCE, changes=True)
        target = self._directory(new_fd, abi.PATH_LINK_TARGET, changes=True)
        if old_flags:
            raise WasiError(abi.INVAL)
        old_path, new_path = _path(memory, old, old_len), _path(memory, new, new_len)
        with (
            Walk(source.fd, old_path, follow=_means_directory(old_path)) as before,
            Walk(target.fd, new_path, follow=_means_directory(new_path)) as after,
        ):
            before.existing()
            _refuse_directory(after)
            os.link(
                before.name,
                after.name,
                src_dir_fd=before.fd,
                dst_dir_fd=after.fd,
                follow_symlinks=False,
            )
        return 0

    def path_symlink(
        self, memory: WasiMemory, old: int, old_len: int, fd: int, new: int, new_len: int
    ) -> int:
        """Make a symbolic link.

        The target is text, checked when it is followed. An absolute one never could be, so it is
        PERM at once.
        """
        directory = self._directory(fd, abi.PATH_SYMLINK, changes=True)
        target, name = _path(memory, old, old_len), _path(memory, new, new_len)
        if target.startswith(b"/"):
            raise WasiError(abi.PERM)
        with Walk(directory.fd, name, follow=_means_directory(name)) as at:
            _refuse_directory(at)
            os.symlink(target, at.name, dir_fd=at.fd)
        return 0

    def path_readlink(
        self,
        memory: WasiMemory,
        fd: int,
        path: int,
        path_len: int,
        buf: int,
        buf_len: int,
        bufused: int,
    ) -> int:
        directory = self._directory(fd, abi.PATH_READLINK)
        result = memory.view(bufused, 4)
        name = _path(memory, path, path_len)
        with Walk(directory.fd, name, follow=_means_directory(name)) as at:
            if not S_ISLNK(at.existing().st_mode):
                raise WasiError(abi.INVAL)
            target = os.readlink(at.name, dir_fd=at.fd)
        if target.startswith(b"/"):  # a path of the host, which the guest must not learn
            raise WasiError(abi.PERM)
        target = target[:buf_len]
        memory.write(buf, target)
        U32.pack_into(result, 0, len(target))
        return 0


def _path(memory: WasiMemory, offset: int, length: int) -> bytes:
    if length > MAX_PATH:
        raise WasiError(abi.NAMETOOLONG)
    path = memory.read(offset, length)
    if not path:
        raise WasiError(abi.NOENT)
    if b"\0" in path:
        raise WasiError(abi.INVAL)
    try:
        path.decode()
    except UnicodeDecodeError:
        raise WasiError(abi.ILSEQ) from None
    return path


def _means_directory(path: bytes) -> bool:
    """Return whether a path means the directory that a link leads to, even if links are not
    followed.

    It does with a slash at its end.
    """
    return path.endswith((b"/", b"/."))


def _last(path: bytes) -> bytes:
    """Return the last name of a path, without the slashes after it."""
    return path.rstrip(b"/").rpartition(b"/")[2]


def _is_dots(path: bytes, at: Walk) -> bool:
    """Return whether a path names a directory as ``.`` or ``..``, which cannot be renamed."""
    return _last(path) in (b".", b"..") and at.found is not None and S_ISDIR(at.found.st_mode)


def _refuse_directory(at: Walk) -> None:
    """Raise the error for a new name that can only mean a directory, which a link cannot be."""
    if at.directory:
        raise WasiError(
            abi.NOENT
            if at.found is None
            else abi.EXIST
            if S_ISDIR(at.found.st_mode)
            else abi.NOTDIR
        )


def _follow(flags: int) -> bool:
    if flags & ~abi.LOOKUP_SYMLINK_FOLLOW:
        raise WasiError(abi.INVAL)
    return bool(flags)
