"""Opening the large files of shards: only regular ones, each failure with the file's name, and as many as a run needs."""

import contextlib
import errno
import os
import resource
import stat
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from configs.errors import DataError, StorageError

# More files than any data set needs, and less than the limit of any kernel.
_ENOUGH_FILES = 2**20
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR)
_USERS = (
    *_NOT_THERE,
    errno.EACCES,
    errno.EPERM,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENXIO,
)


@dataclass(frozen=True)
class FileStamp:
    """Size and time of a file, which change with every write."""

    size: int
    """Size in bytes."""
    mtime_ns: int
    """Time of the last write, in nanoseconds since the epoch."""

    @classmethod
    def of(cls, file: BinaryIO) -> "FileStamp":
        """Read them from an open file, whatever its name refers to by now."""
        found = os.fstat(file.fileno())
        return cls(found.st_size, found.st_mtime_ns)


@contextlib.contextmanager
def readable(path: str | Path) -> Generator[None, None, None]:
    """Name the file that cannot be opened or read.

    Raises:
        DataError: it does not exist, or may not be read.
        StorageError: the file system failed.
    """
    try:
        yield
    except OSError as error:
        if error.errno == errno.EMFILE:
            raise DataError(_too_many_files(path)) from error
        kind = DataError if error.errno in _USERS else StorageError
        raise kind(f"{path} cannot be read: {error.strerror}.") from error


def require_file(path: str, advice: str) -> None:
    """Check that a path names a regular file.

    Args:
        path: the file, or a link to it.
        advice: a sentence for a path where nothing is.

    Raises:
        DataError: it does not.
        StorageError: the file system failed.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        if error.errno in _NOT_THERE:
            raise DataError(f"{path} does not exist. {advice}") from error
        with readable(path):
            raise
    except ValueError as error:
        raise DataError(f"{path!r} cannot be the name of a file ({error}).") from error
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise DataError(f"{path} is {what}, not a file. Check the path.")


def open_to_keep(path: str) -> BinaryIO:
    """Open a regular file that stays open as long as the process runs, for positioned reads.

    Many shards need many open files: this process's own limit is raised as far as the system lets it.

    Raises:
        DataError: it cannot be opened, or the limit is too low.
        StorageError: the file system failed.
    """
    with readable(path):
        try:
            return _opened(path)
        except OSError as error:
            if error.errno != errno.EMFILE:
                raise
        _raise_limit()
        return _opened(path)


def _opened(path: str) -> BinaryIO:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    # Checkpoints and connections, which are opened later, need descriptors too.
    if descriptor >= resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2:
        _raise_limit()
    return open(descriptor, "rb", buffering=0)


def _raise_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _ENOUGH_FILES if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(OSError, ValueError):  # then opening the file reports the error
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _too_many_files(path: str | Path) -> str:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        f"{path} cannot be opened: this process may hold {soft:,} files open, and every shard takes two to four. Allow more "
        f"before the command, ulimit -n {16 * max(hard, 1024)} (more than {hard:,} an administrator must allow), or prepare "
        "several INPUT together as one PREFIX."
    )
