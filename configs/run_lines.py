"""The files of a run folder that grow by whole lines of JSON. Of the standard library alone, for quick commands.

One rule for a line that was torn, by a kill or by a full disk: the last line counts once its end is there. What stands
in a whole line is for its reader to judge.
"""

import json
from pathlib import Path
from typing import Any, cast

from configs.errors import RecordError
from configs.files import read_file

LARGEST_LINES = 2**34
"""Bytes of a file that has a line a step."""


def whole_lines(path: Path) -> list[bytes]:
    """The lines of a file, each with its end; a last one that was torn is left out. Nothing if there is no file.

    Raises:
        RecordError: it is no file that can be read.
        OSError: the file system failed.
    """
    try:
        content = read_file(path, LARGEST_LINES)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [line + b"\n" for line in content.split(b"\n")[:-1]]


def json_object(text: bytes | str, where: str) -> dict[str, Any]:
    """Decode an object of JSON, whose values are still to be judged.

    Args:
        text: the JSON; NaN and Infinity are none.
        where: file, or file and line, for messages.

    Raises:
        RecordError: it is none.
    """
    try:
        found: Any = json.loads(text, parse_constant=_refused)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{where} is damaged or not of this program: it is no JSON.") from error
    if not isinstance(found, dict):
        raise RecordError(f"{where} is damaged or not of this program: it is no object.")
    return cast(dict[str, Any], found)


def _refused(constant: str) -> float:
    raise ValueError(constant)
