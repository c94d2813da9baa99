"""Parts of an archive (.gz, .zst), which can only be read from its beginning: each carries its lines.

What an archive unpacks to is not bounded by its size: a few KiB may hold a line of many GiB. So everything is read in
pieces, and the progress counts packed bytes that have been unpacked, not those that have been read ahead.
"""

# zstandard comes without complete types.
# pyright: basic

import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, cast

import zstandard

from configs.errors import DataError
from data_pipeline.preparation.corpus_part import CorpusPart
from data_pipeline.preparation.lines import BORDER_BYTES, LONGEST_RECORD, border_in, skip_line
from data_pipeline.preparation.zstd_reader import ZstdReader

ENDINGS = (".gz", ".zst")
# Read at a time, so that an error can say after which line.
_PIECE_BYTES = 2**20


def parts_of_archive(path: str, part_bytes: int, is_text: bool) -> Iterator[CorpusPart]:
    """Yield the parts of an archive in order, each with its content.

    Args:
        path: of the archive.
        part_bytes: as `inputs.PART_BYTES`.
        is_text: True for a plain text, of which a part may begin within a line.

    Raises:
        DataError: it cannot be read, is damaged or truncated.
    """
    take = _text if is_text else _records
    lines = number = start = taken = 0
    carried = b""
    try:
        with Path(path).open("rb") as packed:
            file, unpacked_to = _unpacked(path, packed)
            with closing(file):
                while True:
                    wanted = (number + 1) * part_bytes - start
                    content, carried, dropped = take(file, carried, wanted)
                    if not content and wanted > 0:
                        return
                    before, lines = lines, lines + content.count(b"\n")
                    here = unpacked_to()
                    yield CorpusPart(
                        path,
                        number,
                        start,
                        start + len(content),
                        before=before,
                        read_bytes=here - taken,
                        content=content,
                    )
                    start, taken, number = start + len(content) + dropped, here, number + 1
    except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise DataError(
            f"{path}: cannot be read after line {lines:,} ({error}). The file is damaged or truncated: fetch it again."
        ) from error


def _records(file: BinaryIO, carried: bytes, wanted: int) -> tuple[bytes, bytes, int]:
    """Read `wanted` bytes and the rest of the last line, of which no more is kept than tells that it is too long.

    Returns:
        What is kept, what is carried to the next part (nothing), and how many bytes were dropped.
    """
    pieces = _read(file, carried, wanted)
    dropped = 0
    if pieces and not pieces[-1].endswith(b"\n"):
        pieces.append(file.readline(LONGEST_RECORD + 1))
        if len(pieces[-1]) > LONGEST_RECORD and not pieces[-1].endswith(b"\n"):
            dropped = skip_line(file) - 1
            pieces.append(b"\n")
    return b"".join(pieces), b"", dropped


def _text(file: BinaryIO, carried: bytes, wanted: int) -> tuple[bytes, bytes, int]:
    """Read `wanted` bytes and on to the start of the next part; bytes read after it are carried to that part."""
    wanted = max(wanted, 0)
    content = b"".join(_read(file, carried[:wanted], wanted))
    carried = carried[wanted:]
    if not content or content.endswith(b"\n"):
        return content, carried, 0
    more = carried + file.readline(max(BORDER_BYTES - len(carried), 0))
    place = border_in(content[-1:] + more)
    place = len(more) if place is None else place - 1
    return content + more[:place], more[place:], 0


def _read(file: BinaryIO, carried: bytes, wanted: int) -> list[bytes]:
    pieces = [carried] if carried else []
    size = len(carried)
    while size < wanted and (piece := file.read(min(wanted - size, _PIECE_BYTES))):
        pieces.append(piece)
        size += len(piece)
    return pieces


def _unpacked(path: str, packed: BinaryIO) -> tuple[BinaryIO, Callable[[], int]]:
    """Reads unpacked bytes, and counts the packed bytes used so far."""
    if path.lower().endswith(".gz"):
        return cast(BinaryIO, gzip.GzipFile(fileobj=packed, mode="rb")), packed.tell
    reader = ZstdReader(packed)
    return io.BufferedReader(reader, _PIECE_BYTES), lambda: reader.num_taken
