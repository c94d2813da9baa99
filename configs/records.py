"""Small files read from a disk, checked before anything else sees them: kind of file, size, types, ranges and depth.

A record is a frozen dataclass whose annotations say what is allowed; the names below narrow the plain types. JSON is
decoded straight into it by msgspec, which this file alone knows. Whoever reads a record decides whether a wrong one is
an error or is passed over with a word: both begin with a `RecordError`.
"""

import errno
import os
import stat
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from configs.errors import RecordError

T = TypeVar("T")

Count = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]
"""A position, a size or a number of things."""
Seconds = Annotated[float, msgspec.Meta(ge=0, lt=2**40)]
"""A time since the epoch, or a duration."""
ShortText = Annotated[str, msgspec.Meta(max_length=2**16)]
"""A name, a path or a message."""

LARGEST_RECORD = 2**24
"""Bytes of a record that is read as a whole, unless the reader says otherwise."""

# What a name stands for is wrong; everything else is the file system's failure, which may be gone at the next start.
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
        path: the file; a link to one will do.
        largest: bytes that it may have.

    Raises:
        FileNotFoundError: there is none.
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
            return file.read(largest)
    finally:
        os.close(descriptor)


def read_text(path: Path, largest: int = LARGEST_RECORD) -> str:
    """Read a regular file as UTF-8.

    Raises:
        FileNotFoundError: there is none.
        RecordError: it is no regular file, too large, or not UTF-8.
        OSError: the file system failed.
    """
    try:
        return read_file(path, largest).decode("utf-8")
    except UnicodeDecodeError as error:
        raise RecordError(f"{path} is not UTF-8 text (byte {error.start:,}).") from error


def read_record(path: Path, kind: type[T], largest: int = LARGEST_RECORD) -> T:
    """Read a JSON file as a record.

    Args:
        path: the file.
        kind: dataclass, or another type that annotations can express; keys that it does not name are ignored.
        largest: bytes that it may have.

    Raises:
        FileNotFoundError: there is none.
        RecordError: it is no such record; names the file and the value.
        OSError: the file system failed.
    """
    return decode(read_file(path, largest), kind, str(path))


def decode(text: bytes | str, kind: type[T], where: str) -> T:
    """Decode JSON as a record.

    Args:
        text: the JSON; NaN and Infinity are none.
        kind: as for `read_record`.
        where: file, or file and line, for messages.

    Raises:
        RecordError: it is no such record.
    """
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise RecordError(f"{where} is damaged or not of this program: {error}.") from error
    except RecursionError as error:
        raise RecordError(f"{where} is nested without end.") from error


def convert(value: Any, kind: type[T], where: str) -> T:
    """Check a value that is already decoded (from YAML, from a manifest) as a record.

    Raises:
        RecordError: it is no such record.
    """
    try:
        return msgspec.convert(value, type=kind)
    except msgspec.MsgspecError as error:
        raise RecordError(f"{where} is damaged or not of this program: {error}.") from error
    except RecursionError as error:
        raise RecordError(f"{where} is nested without end.") from error


def _kind(mode: int) -> str:
    names = {
        stat.S_ISDIR: "a folder",
        stat.S_ISFIFO: "a pipe",
        stat.S_ISSOCK: "a socket",
        stat.S_ISCHR: "a device",
        stat.S_ISBLK: "a device",
    }
    return next((name for is_one, name in names.items() if is_one(mode)), "something else")
