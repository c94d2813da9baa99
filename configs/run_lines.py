"""Read the files of a run folder that grow by lines of JSON. Imports the standard library only, for quick commands.

A kill or a full disk can cut off the last line: a line counts only once its line end is written. The callers check what
a whole line holds.
"""

import json
from pathlib import Path
from typing import Any, cast

from configs.errors import RecordError
from configs.files import read_file

LARGEST_LINES = 2**34
"""Bytes of a file that has a line a step."""


def whole_lines(path: Path) -> list[bytes]:
    """The lines of a file, with their line ends, without an incomplete last one; empty if there is no file.

    Raises:
        RecordError: the file cannot be read.
        OSError: the file system failed.
    """
    try:
        content = read_file(path, LARGEST_LINES)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [line + b"\n" for line in content.split(b"\n")[:-1]]


def json_object(text: bytes | str, where: str) -> dict[str, Any]:
    """Decode a JSON object; its values are not checked.

    Args:
        text: the JSON, in which NaN and Infinity are not allowed.
        where: file, or file and line, for messages.

    Raises:
        RecordError: the text is not a JSON object.
    """
    try:
        found: Any = json.loads(text, parse_constant=_refused)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{where} is damaged or not of this program: it is not JSON.") from error
    if not isinstance(found, dict):
        raise RecordError(f"{where} is damaged or not of this program: it is not an object.")
    return cast(dict[str, Any], found)


def _refused(constant: str) -> float:
    raise ValueError(constant)
