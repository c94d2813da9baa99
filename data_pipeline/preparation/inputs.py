"""Corpora and the parts that they are read in: .jsonl, .txt (also .gz, .zst), .parquet, a data set, or python-docs.

A part is what one worker reads at a time. Where parts begin depends on the corpus alone, never on who reads them:
part k holds the lines that begin in bytes [k, k + 1) * PART_BYTES of the text. A plain file is entered in the middle,
a .parquet file at a row group; an archive and a data set can only be read from their beginning, so that their parts
carry what they hold.
"""

# pyarrow and datasets come without types.
# pyright: basic

import gzip
import io
import logging
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import zstandard

from configs.errors import DataError
from data_pipeline.preparation import python_docs
from data_pipeline.preparation.documents import (
    Document,
    Lines,
    OnError,
    documents_of,
    from_jsonl,
    from_text,
    stop,
)
from data_pipeline.preparation.zstd_reader import ZstdReader

FILE_ENDINGS = (".jsonl", ".txt", ".parquet", ".jsonl.gz", ".jsonl.zst", ".txt.gz", ".txt.zst")
PART_BYTES = 16 * 2**20
# Read from an archive at a time, so that an error can say after which line.
_PIECE_BYTES = 2**20
_PARQUET_ROWS = 256
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Part:
    """A stretch of one corpus."""

    path: str
    number: int
    """From 0 in its corpus."""
    start: int
    """First byte of a plain file, first row group of a .parquet file."""
    stop: int
    before: int = 0
    """Lines or rows that come before what it carries, or before its row groups."""
    read_bytes: int = 0
    """How much of the file's bytes it takes, for the progress."""
    content: bytes | None = field(default=None, repr=False)
    """Whole lines of an archive."""
    rows: list[Any] | None = field(default=None, repr=False)
    """Rows of a data set."""


def is_file_name(path: str) -> bool:
    """True if the path names a corpus file rather than a data set."""
    return path.endswith(FILE_ENDINGS)


def is_on_hub(path: str) -> bool:
    """True if a corpus is none of this machine: the name of a data set, which is fetched from the hub."""
    return not (path == python_docs.NAME or is_file_name(path) or os.path.exists(path))


def check_input(path: str) -> None:
    """Refuse what cannot be a corpus: a file that is not there, or of another kind.

    Raises:
        DataError: the message says what to check.
    """
    if is_file_name(path):
        if not Path(path).is_file():
            what = "is a folder" if Path(path).is_dir() else "does not exist"
            raise DataError(
                f"The corpus {path} {what}. Check its path (data.paths, or INPUT of prepare)."
            )
        return
    is_path = path.startswith((".", "/", "~")) or (Path(path).parent.is_dir() and "/" in path)
    if Path(path).is_file() or (is_path and not Path(path).exists()):
        raise DataError(
            f"{path} is neither a file with one of the endings {', '.join(FILE_ENDINGS)}, nor a prefix of token "
            "shards. Check data.paths."
        )


def identity(path: str) -> list[str | int]:
    """What makes a corpus the same one: size and time of its files; of a data set on the hub, its name."""
    if path == python_docs.NAME:
        return python_docs.identity()
    check_input(path)
    if is_file_name(path):
        return [os.path.realpath(path), *_size_and_time(Path(path))]
    if Path(path).is_dir():
        files = sorted(file for file in Path(path).rglob("*") if file.is_file())
        parts = (part for file in files for part in (str(file), *_size_and_time(file)))
        return [os.path.realpath(path), *parts]
    return [path]


def size_bytes(path: str) -> int | None:
    """What `Part.read_bytes` add up to; None if that is not known before the end."""
    return os.path.getsize(path) if is_file_name(path) else None


def parts_of(path: str, text_keys: Sequence[str]) -> Iterator[Part]:
    """Yield the parts of a corpus in order.

    Raises:
        DataError: it is missing or unreadable.
    """
    if path == python_docs.NAME:
        rows = ({key: text for key in text_keys} for text in python_docs.python_docs())
        yield from _parts_of_rows(path, rows, text_keys)
        return
    check_input(path)
    if len(text_keys) > 1 and is_file_name(path) and ".txt" in Path(path).name:
        raise DataError(
            f"{path} is plain text, without the fields {', '.join(text_keys)} of an instruction record. Write the records "
            "as .jsonl, or name the file in data.paths."
        )
    if not is_file_name(path):
        yield from _parts_of_rows(path, _data_set(path), text_keys)
    elif path.endswith(".parquet"):
        yield from _parts_of_parquet(path, text_keys)
    elif path.endswith((".gz", ".zst")):
        yield from _parts_of_archive(path)
    else:
        size = os.path.getsize(path)
        for number, start in enumerate(range(0, size, PART_BYTES)):
            end = min(start + PART_BYTES, size)
            yield Part(path, number, start, end, read_bytes=end - start)


def read_part(part: Part, text_keys: Sequence[str], on_error: OnError = stop) -> Iterator[Document]:
    """Yield the documents of a part.

    Args:
        part: of `parts_of`.
        text_keys: fields that hold the text, for .jsonl, .parquet and data sets.
        on_error: told what is wrong with a record.

    Raises:
        DataError: the file cannot be read any further; the message names file and line.
    """
    if part.rows is not None:
        for number, row in enumerate(part.rows, start=part.before + 1):
            where = partial("{}, row {}".format, part.path, number)
            yield from documents_of(row, where, text_keys, on_error)
    elif part.path.endswith(".parquet"):
        yield from _parquet(part, text_keys, on_error)
    elif ".jsonl" in Path(part.path).name:
        yield from from_jsonl(_lines(part), text_keys, on_error)
    else:
        yield from from_text(_lines(part), on_error)


def read_documents(
    path: str, text_keys: Sequence[str], on_error: OnError = stop
) -> Iterator[Document]:
    """Yield the documents of one corpus, part by part.

    Raises:
        DataError: the corpus is missing or unreadable; the message names file and line.
    """
    for part in parts_of(path, text_keys):
        yield from read_part(part, text_keys, on_error)


def _lines(part: Part) -> Lines:
    """Yield (where, line) of a part's lines, without a byte order mark at the beginning of the file."""
    try:
        with _open_part(part) as file:
            if part.content is None and part.start:
                file.seek(part.start - 1)
                file.readline()  # a line that began in an earlier part
            before = partial(_lines_before, part)
            position = file.tell()
            for number, line in enumerate(file, start=1):
                if part.content is None and position >= part.stop:
                    return
                is_first = number == 1 and not part.number
                yield (
                    partial(_place, part.path, before, number),
                    line.removeprefix(_BYTE_ORDER_MARK) if is_first else line,
                )
                position += len(line)
    except OSError as error:
        raise DataError(
            f"{part.path}: cannot be read after byte {part.start:,} ({error})."
        ) from error


def _open_part(part: Part) -> BinaryIO:
    if part.content is not None:
        return io.BytesIO(part.content)
    return open(part.path, "rb")


def _place(path: str, before: Callable[[], int], number: int) -> str:
    return f"{path}:{before() + number}"


def _lines_before(part: Part) -> int:
    """Lines that begin in earlier parts: counted when an error needs them."""
    if part.content is not None or not part.start:
        return part.before
    lines = 0
    with Path(part.path).open("rb") as file:
        left = part.start - 1
        while left and (piece := file.read(min(left, _PIECE_BYTES))):
            lines += piece.count(b"\n")
            left -= len(piece)
    return lines + 1  # the line at whose end the first line of the part begins


def _parts_of_archive(path: str) -> Iterator[Part]:
    lines = number = start = taken = 0
    try:
        with Path(path).open("rb") as packed, _unpacked(path, packed) as file:
            while True:
                pieces: list[bytes] = []
                size = 0
                wanted = (number + 1) * PART_BYTES - start
                while size < wanted and (piece := file.read(min(wanted - size, _PIECE_BYTES))):
                    pieces.append(piece)
                    size += len(piece)
                    lines += piece.count(b"\n")
                if pieces and not pieces[-1].endswith(b"\n"):
                    pieces.append(file.readline())
                    lines += pieces[-1].count(b"\n")
                if not pieces and wanted > 0:
                    return
                content = b"".join(pieces)
                here = packed.tell()
                yield Part(
                    path,
                    number,
                    start,
                    start + len(content),
                    before=lines - content.count(b"\n"),
                    read_bytes=here - taken,
                    content=content,
                )
                start, taken, number = start + len(content), here, number + 1
    except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise DataError(
            f"{path}: cannot be read after line {lines} ({error}). The file is damaged or truncated: fetch it again."
        ) from error


def _unpacked(path: str, packed: BinaryIO) -> BinaryIO:
    if path.endswith(".gz"):
        return cast(BinaryIO, gzip.GzipFile(fileobj=packed, mode="rb"))
    return io.BufferedReader(ZstdReader(packed))


def _parts_of_parquet(path: str, text_keys: Sequence[str]) -> Iterator[Part]:
    """Runs of row groups of at least PART_BYTES."""
    import pyarrow  # heavy, and not needed to train from prepared shards
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            columns, metadata = file.schema_arrow.names, file.metadata
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read ({error}).") from error
    for key in text_keys:
        if key not in columns:
            raise DataError(
                f'{path}: no column "{key}" (it has: {", ".join(columns)}). Name the column with '
                "data.text_key=NAME or --text-key NAME."
            )
    file_bytes = os.path.getsize(path)
    number = first = size = before = rows = taken = 0
    for group in range(metadata.num_row_groups):
        size += metadata.row_group(group).total_byte_size
        rows += metadata.row_group(group).num_rows
        is_last = group + 1 == metadata.num_row_groups
        if size >= PART_BYTES or is_last:
            until = file_bytes if is_last else file_bytes * (group + 1) // metadata.num_row_groups
            yield Part(path, number, first, group + 1, before, read_bytes=until - taken)
            number, first, taken = number + 1, group + 1, until
            before, rows, size = before + rows, 0, 0


def _parquet(part: Part, text_keys: Sequence[str], on_error: OnError) -> Iterator[Document]:
    import pyarrow
    import pyarrow.parquet

    number = part.before
    try:
        with pyarrow.parquet.ParquetFile(part.path) as file:
            names = dict.fromkeys(file.schema_arrow.names)
            groups = list(range(part.start, part.stop))
            for batch in file.iter_batches(_PARQUET_ROWS, groups, columns=list(text_keys)):
                for row in batch.to_pylist():
                    number += 1
                    where = partial("{}, row {}".format, part.path, number)
                    yield from documents_of({**names, **row}, where, text_keys, on_error)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{part.path}: cannot be read after row {number} ({error}).") from error


def _parts_of_rows(
    path: str, rows: Iterator[dict[str, Any]], text_keys: Sequence[str]
) -> Iterator[Part]:
    """Parts that carry rows: of each the fields that hold text, of the others their names."""
    gathered: list[dict[str, Any]] = []
    number = before = size = 0
    for row in rows:
        texts = {key: row[key] for key in text_keys if key in row}
        gathered.append({**dict.fromkeys(row), **texts})
        size += sum(len(text) for text in texts.values() if isinstance(text, str))
        if size >= PART_BYTES:
            yield Part(path, number, 0, 0, before, rows=gathered)
            number, before, size = number + 1, before + len(gathered), 0
            gathered = []
    if gathered:
        yield Part(path, number, 0, 0, before, rows=gathered)


def _data_set(name: str) -> Iterator[dict[str, Any]]:
    """Stream the training split of a data set: a folder, or `NAME` or `NAME:CONFIGURATION` on the hub."""
    import datasets  # heavy, and not needed to train from prepared shards

    # Its client prints every attempt to reach the hub; what counts is said once, below.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    repository, _, configuration = name.partition(":")
    try:
        yield from datasets.load_dataset(
            repository, configuration or None, split="train", streaming=True
        )
    except Exception as error:  # the hub client raises many kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f'The data set "{name}" cannot be loaded ({reason}). Check data.paths: a file (.jsonl, .txt, .parquet), a '
            "prefix of token shards, or a data set's name; a name needs the network or a filled cache."
        ) from error


def _size_and_time(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
