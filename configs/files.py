"""Read regular files whole, and refuse anything else, such as a pipe. Imports the standard library only."""

import errno
import os
import stat
from pathlib import Path

from configs.errors import RecordError

LARGEST_RECORD = 2**24
"""Bytes of a record that is read as a whole, unless the reader says otherwise."""

# Errors that a wrong name or path causes; all others are failures of the file system, which may be gone at a restart.
_WRONG_NAMES = (
    errno.EACCES,
    errno.EPERM,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.ELOOP,
    errno.ENXIO,
    errno.ENAMETOOLONG,
)


def read_file(path: Path, largest: int = LARGEST_RECORD) -> bytes:
    """Read a regular file whole; never waits for the other end of a pipe.

    Args:
        path: the file, or a link to it.
        largest: largest size of the file, in bytes.

    Raises:
        FileNotFoundError: there is no such file.
        RecordError: it is a folder, a pipe or a device, may not be read, or is too large.
        OSError: the file system failed.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _WRONG_NAMES:
            raise RecordError(f"{path} cannot be read: {error.strerror}.") from error
        raise
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise RecordError(f"{path} is {_kind(found.st_mode)}, not a file.")
        if found.st_size > largest:
            raise RecordError(f"{path} has {found.st_size:,} bytes, more than {largest:,}.")
        with open(descriptor, "rb", closefd=False) as file:
            # Not `largest`, which would be allocated.
            return file.read(found.st_size)
    finally:
        os.close(descriptor)


def read_text(path: Path, largest: int = LARGEST_RECORD) -> str:
    """Read a regular file as UTF-8.

    Raises:
        FileNotFoundError: there is no such file.
        RecordError: it is not a regular file, is too large, or is not UTF-8.
        OSError: the file system failed.
    """
    try:
        return read_file(path, largest).decode("utf-8")
    except UnicodeDecodeError as error:
        raise RecordError(f"{path} is not UTF-8 text (byte {error.start:,}).") from error


def _kind(mode: int) -> str:
    names = {
        stat.S_ISDIR: "a folder",
        stat.S_ISFIFO: "a pipe",
        stat.S_ISSOCK: "a socket",
        stat.S_ISCHR: "a device",
        stat.S_ISBLK: "a device",
    }
    return next((name for is_one, name in names.items() if is_one(mode)), "something else")
