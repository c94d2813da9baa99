"""Small files read from a disk, checked before anything else sees them: kind of file, size, types, ranges and depth.

A record is a frozen dataclass whose annotations say what is allowed; the names below narrow the plain types. msgspec,
which only this file uses, decodes JSON directly into it. A wrong record raises a `RecordError`; the caller decides
whether to report it as an error or to pass over the record with a notice.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from configs.errors import RecordError
from configs.files import LARGEST_RECORD, read_file, read_text

__all__ = [
    "LARGEST_RECORD",
    "Count",
    "Number",
    "Seconds",
    "ShortText",
    "convert",
    "decode",
    "read_file",
    "read_record",
    "read_text",
]

T = TypeVar("T")

Count = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]
"""A position, a size or a number of things."""
Seconds = Annotated[float, msgspec.Meta(ge=0, lt=2**40)]
"""A time since the epoch, or a duration."""
Number = (
    Annotated[int, msgspec.Meta(ge=-(2**62), lt=2**62)]
    | Annotated[float, msgspec.Meta(ge=-1e150, le=1e150)]
    | Literal["inf", "-inf", "nan"]
    | None
)
"""A measured value; None for what does not exist."""
ShortText = Annotated[str, msgspec.Meta(max_length=2**16)]
"""A name, a path or a message."""
RunId = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{16}$")]
"""Identity of a run (train/identity.py)."""


def read_record(path: Path, kind: type[T], largest: int = LARGEST_RECORD) -> T:
    """Read a JSON file as a record.

    Args:
        path: the file.
        kind: dataclass, or another type that annotations can express; keys that it does not name are ignored.
        largest: largest size of the file, in bytes.

    Raises:
        FileNotFoundError: there is no such file.
        RecordError: it does not hold such a record; the message names the file and the value.
        OSError: the file system failed.
    """
    return decode(read_file(path, largest), kind, str(path))


def decode(text: bytes | str, kind: type[T], where: str) -> T:
    """Decode JSON as a record.

    Args:
        text: the JSON, in which NaN and Infinity are not allowed.
        kind: as for `read_record`.
        where: file, or file and line, for messages.

    Raises:
        RecordError: the text does not hold such a record.
    """
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise RecordError(f"{where} is damaged or not of this program: {error}.") from error
    except RecursionError as error:
        raise RecordError(f"{where} is nested without end.") from error


def convert(value: Any, kind: type[T], where: str) -> T:
    """Convert a value that is already decoded (from YAML, from a manifest) to a record.

    Raises:
        RecordError: the value is not such a record.
    """
    try:
        return msgspec.convert(value, type=kind)
    except msgspec.MsgspecError as error:
        raise RecordError(f"{where} is damaged or not of this program: {error}.") from error
    except RecursionError as error:
        raise RecordError(f"{where} is nested without end.") from error
