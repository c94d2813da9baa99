"""Corpora as documents: .jsonl, .txt (also .gz, .zst), .parquet, a Hugging Face data set, or python-docs.

A reader yields one text per document, in order. Whatever is wrong with a record is told to `on_error` with the file's
name and line: `stop` raises it, a `Skipped` counts it and reading goes on. A file that cannot be read any further
always ends the reading.
"""

# pyarrow and datasets come without types, and JSON has none.
# pyright: basic

import gzip
import io
import json
import logging
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn, cast

import zstandard

from configs.errors import DataError
from data_pipeline import python_docs
from data_pipeline.zstd_reader import ZstdReader

FILE_ENDINGS = (".jsonl", ".txt", ".parquet", ".jsonl.gz", ".jsonl.zst", ".txt.gz", ".txt.zst")

# A plain text has no document borders. It is cut at the first blank line after this many characters, so that a book
# becomes many documents, some of which can be held out; without blank lines it is cut at a line's end.
_DOCUMENT_CHARACTERS = 2000
_LONGEST_DOCUMENT = 8000
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

OnError = Callable[[DataError], None]


def stop(error: DataError) -> NoReturn:
    """Raise the error: nothing is skipped unasked."""
    raise error


@dataclass
class Skipped:
    """Counts records that are passed over, and remembers the first reason."""

    count: int = 0
    first: str = ""

    def __call__(self, error: DataError) -> None:
        """Count one record."""
        self.first = self.first or str(error)
        self.count += 1


def is_file_name(path: str) -> bool:
    """True if the path names a corpus file rather than a data set."""
    return path.endswith(FILE_ENDINGS)


def read_documents(path: str, text_key: str, on_error: OnError = stop) -> Iterator[str]:
    """Yield the documents of one corpus.

    Args:
        path: as in `data.paths`.
        text_key: field that holds the text, for .jsonl, .parquet and data sets.
        on_error: told what is wrong with a record.

    Raises:
        DataError: the file is missing or unreadable; the message names file and line.
    """
    if path == python_docs.NAME:
        yield from python_docs.python_docs()
    elif not is_file_name(path):
        yield from _data_set(path, text_key, on_error)
    else:
        check_file(path)
        if path.endswith(".parquet"):
            yield from _parquet(path, text_key, on_error)
        elif ".jsonl" in Path(path).name:
            yield from _jsonl(path, text_key, on_error)
        else:
            yield from _text(path, on_error)


def check_file(path: str) -> None:
    """Refuse a corpus file that is not there, or a folder of that name.

    Raises:
        DataError: there is no such file.
    """
    if not Path(path).is_file():
        what = "is a folder" if Path(path).is_dir() else "does not exist"
        raise DataError(
            f"The corpus {path} {what}. Check its path (data.paths, or INPUT of prepare)."
        )


def _jsonl(path: str, text_key: str, on_error: OnError) -> Iterator[str]:
    for number, line in _lines(path, on_error):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            on_error(DataError(f"{path}:{number}: not a JSON record ({error}). Mend the line."))
            continue
        fields = list(record) if isinstance(record, dict) else [type(record).__name__]
        text = record.get(text_key) if isinstance(record, dict) else None
        yield from _checked(text, f"{path}:{number}", text_key, fields, on_error)


def _text(path: str, on_error: OnError) -> Iterator[str]:
    lines: list[str] = []
    size = 0
    for _, line in _lines(path, on_error):
        lines.append(line)
        size += len(line)
        is_blank = not line.strip()
        if (is_blank and size >= _DOCUMENT_CHARACTERS) or size >= _LONGEST_DOCUMENT:
            yield "".join(lines).strip()
            lines, size = [], 0
    if rest := "".join(lines).strip():
        yield rest


def _lines(path: str, on_error: OnError) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, decoded line)."""
    for number, raw in _raw_lines(path):
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            on_error(
                DataError(
                    f"{path}:{number}: not UTF-8 (byte {error.start} of the line is 0x{raw[error.start]:02x}). Convert "
                    "the file: iconv -f ENCODING -t utf-8"
                )
            )
            continue
        yield number, line


def _raw_lines(path: str) -> Iterator[tuple[int, bytes]]:
    number = 0
    try:
        with _open(path) as file:
            for number, raw in enumerate(file, start=1):
                yield number, raw.removeprefix(_BYTE_ORDER_MARK) if number == 1 else raw
    except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise DataError(
            f"{path}: cannot be read after line {number} ({error}). The file is damaged or truncated: fetch it again."
        ) from error


def _open(path: str) -> BinaryIO:
    if path.endswith(".gz"):
        return cast(BinaryIO, gzip.open(path, "rb"))
    if path.endswith(".zst"):
        return io.BufferedReader(ZstdReader(open(path, "rb")))
    return open(path, "rb")


def _parquet(path: str, text_key: str, on_error: OnError) -> Iterator[str]:
    import pyarrow  # heavy, and not needed to train from prepared shards
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            columns = file.schema_arrow.names
            if text_key not in columns:
                raise DataError(
                    f'{path}: no column "{text_key}" (it has: {", ".join(columns)}). Name the column with '
                    "data.text_key=NAME or --text-key NAME."
                )
            for batch in file.iter_batches(batch_size=1024, columns=[text_key]):
                for value in batch.column(0):
                    number += 1
                    text = value.as_py()
                    yield from _checked(text, f"{path}, row {number}", text_key, columns, on_error)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read after row {number} ({error}).") from error


def _data_set(name: str, text_key: str, on_error: OnError) -> Iterator[str]:
    """Stream the training split of a data set on the Hugging Face hub, `NAME` or `NAME:CONFIGURATION`."""
    is_path = name.startswith((".", "/", "~")) or (Path(name).parent.is_dir() and "/" in name)
    if Path(name).is_file() or (is_path and not Path(name).exists()):
        raise DataError(
            f"{name} is neither a file with one of the endings {', '.join(FILE_ENDINGS)}, nor a prefix of token "
            "shards. Check data.paths."
        )
    import datasets  # heavy, and not needed to train from prepared shards

    # Its client prints every attempt to reach the hub; what counts is said once, below.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    repository, _, configuration = name.partition(":")
    try:
        rows = datasets.load_dataset(
            repository, configuration or None, split="train", streaming=True
        )
        for number, row in enumerate(rows, start=1):
            where = f"{name}, row {number}"
            yield from _checked(row.get(text_key), where, text_key, list(row), on_error)
    except DataError:
        raise
    except Exception as error:  # the hub client raises many kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f'The data set "{name}" cannot be loaded ({reason}). Check data.paths: a file (.jsonl, .txt, .parquet), a '
            "prefix of token shards, or a data set's name; a name needs the network or a filled cache."
        ) from error


def _checked(
    text: object, where: str, text_key: str, fields: list[str], on_error: OnError
) -> Iterator[str]:
    """Yield `text` if it is one."""
    if not isinstance(text, str):
        on_error(
            DataError(
                f'{where}: no text in field "{text_key}" (the record has: {", ".join(fields)}). Name the field with '
                "data.text_key=NAME or --text-key NAME."
            )
        )
    elif not _is_encodable(text):
        on_error(
            DataError(
                f'{where}: field "{text_key}" holds half a character (a lone surrogate). Mend the record.'
            )
        )
    else:
        yield text


def _is_encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
