"""The lines of a part of a file, each of bounded size whatever the file holds: also one line of four GiB, or holes.

A line of a .jsonl file is a record: one that is too long is reported, and never held in memory as a whole. A plain
text has no records, so that a long line of it comes in pieces, and a part of it may begin within a line.
"""

import contextlib
import io
from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import BinaryIO

from configs.errors import DataError
from data_pipeline.preparation.corpus_part import CorpusPart
from data_pipeline.preparation.documents import Lines, OnError

LONGEST_RECORD = 64 * 2**20
"""Bytes of a line of a .jsonl file: a book has one or two million."""
BORDER_BYTES = 2**20
"""A part of a plain text begins behind a line's end if one comes within so many bytes, otherwise within a line."""

_PIECE_BYTES = 2**20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def record_lines(part: CorpusPart, on_error: OnError) -> Lines:
    """Yield (where, line) of the lines that begin in a part of a .jsonl file.

    Args:
        part: of a plain file, or with content.
        on_error: told of a line that is too long; reading goes on behind it.

    Raises:
        DataError: the file cannot be read any further.
    """
    with _opened(part) as file:
        begin = position = _first_line(part, file)
        number = 0
        while part.content is not None or position < part.stop:
            line = file.readline(LONGEST_RECORD + 1)
            if not line:
                return
            number += 1
            position += len(line)
            where = partial(_place, part, begin, number)
            if len(line) <= LONGEST_RECORD or line.endswith(b"\n"):
                yield where, _without_mark(line)
                continue
            on_error(_too_long(where()))
            del line
            position += skip_line(file)


def text_lines(part: CorpusPart) -> Lines:
    """Yield (where, line) of a part of a plain text; of a long line, pieces that end at a blank where it has any.

    Raises:
        DataError: the file cannot be read any further.
    """
    with _opened(part) as file:
        position, stop = 0, len(part.content or b"")
        if part.content is None:
            position, stop = _border(file, part.start), _border(file, part.stop)
            file.seek(position)
        begin, number, is_new = position, 0, True
        while position < stop:
            line = file.readline(min(_PIECE_BYTES, stop - position))
            if not line:
                return
            if not line.endswith(b"\n") and position + len(line) < stop:
                line = line[: _end_of_piece(line)]
                file.seek(position + len(line))
            number += is_new
            where = partial(_place, part, begin, number)
            yield where, _without_mark(line) if is_new else line
            is_new = line.endswith(b"\n")
            position += len(line)


def border_in(window: bytes) -> int | None:
    """Where a part of a plain text begins: an index in `window`, of which the first byte lies before the part.

    Behind the first line's end; if there is none in BORDER_BYTES, behind the first blank, otherwise at a character.
    None: the file ends before.
    """
    line_end = window.find(b"\n")
    if line_end >= 0:
        return line_end + 1
    if len(window) <= BORDER_BYTES:
        return None
    blank = window.find(b" ")
    if blank >= 0:
        return blank + 1
    return next((place for place in range(1, 5) if window[place] & 0xC0 != 0x80), 1)


def skip_line(file: BinaryIO) -> int:
    """Read to the end of a line without keeping it; returns its bytes."""
    size = 0
    while piece := file.readline(_PIECE_BYTES):
        size += len(piece)
        if piece.endswith(b"\n"):
            break
    return size


def _first_line(part: CorpusPart, file: BinaryIO) -> int:
    """Go to the first line that begins in a part; returns its place, at or behind part.stop if there is none."""
    if part.content is not None or not part.start:
        return 0
    position = part.start - 1
    file.seek(position)
    while position < part.stop and (piece := file.readline(_PIECE_BYTES)):
        position += len(piece)
        if piece.endswith(b"\n"):
            break
    else:
        return part.stop  # one line, which began earlier, fills the whole part
    return position


def _border(file: BinaryIO, offset: int) -> int:
    if not offset:
        return 0
    file.seek(offset - 1)
    place = border_in(file.read(BORDER_BYTES + 1))
    return file.tell() if place is None else offset - 1 + place


def _end_of_piece(line: bytes) -> int:
    """Where to cut a line so that no word, or at least no character, is cut."""
    blank = line.rfind(b" ")
    if blank > 0:
        return blank + 1
    for back in range(1, min(4, len(line))):
        if line[-back] & 0xC0 != 0x80:  # the first byte of the last character, which may go on
            return len(line) - back if line[-back] >= 0x80 else len(line)
    return len(line)


@contextlib.contextmanager
def _opened(part: CorpusPart) -> Generator[BinaryIO, None, None]:
    """The file of a part, or its content; says where a file system failed."""
    try:
        with _file(part) as file:
            yield file
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(
            f"{part.path}: cannot be read after byte {part.start:,} ({reason})."
        ) from error


def _file(part: CorpusPart) -> BinaryIO:
    if part.content is not None:
        return io.BytesIO(part.content)
    return open(part.path, "rb")


def _place(part: CorpusPart, begin: int, number: int) -> str:
    return f"{part.path}:{_lines_before(part, begin) + number}"


def _lines_before(part: CorpusPart, begin: int) -> int:
    """Lines that end before byte `begin`, where the reading of a part begins: counted when an error needs them."""
    if part.content is not None:
        return part.before
    lines = 0
    with Path(part.path).open("rb") as file:
        while begin and (piece := file.read(min(begin, _PIECE_BYTES))):
            lines += piece.count(b"\n")
            begin -= len(piece)
    return lines


def _without_mark(line: bytes) -> bytes:
    """Without the byte order marks at its beginning: joined files have them in the middle."""
    while line.startswith(_BYTE_ORDER_MARK):
        line = line[len(_BYTE_ORDER_MARK) :]
    return line


def _too_long(where: str) -> DataError:
    return DataError(
        f"{where}: a line of more than {LONGEST_RECORD // 2**20} MiB, too long for a record. Write one record per line; "
        "with --on-error skip prepare leaves out longer ones."
    )
