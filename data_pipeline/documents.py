"""Corpora as documents: .jsonl, .txt (also .gz, .zst), .parquet, a Hugging Face data set, or python-docs.

A reader yields one text per document, in order. Whatever is wrong with a file ends with its name and line.
"""

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import zstandard

from configs.errors import DataError
from data_pipeline import python_docs

FILE_ENDINGS = (".jsonl", ".txt", ".parquet", ".jsonl.gz", ".jsonl.zst", ".txt.gz", ".txt.zst")

# A plain text has no document borders. It is cut at the first blank line after this many characters, so that a book
# becomes many documents, some of which can be held out; without blank lines it is cut at a line's end.
_DOCUMENT_CHARACTERS = 2000
_LONGEST_DOCUMENT = 8000


def is_file_name(path: str) -> bool:
    """True if the path names a corpus file rather than a data set."""
    return path.endswith(FILE_ENDINGS)


def read_documents(path: str, text_key: str) -> Iterator[str]:
    """Yield the documents of one corpus.

    Args:
        path: as in `data.paths`.
        text_key: field that holds the text, for .jsonl, .parquet and data sets.

    Raises:
        DataError: the file is missing or unreadable; the message names file and line.
    """
    if path == python_docs.NAME:
        yield from python_docs.python_docs()
    elif is_file_name(path):
        if not Path(path).is_file():
            raise DataError(f"The corpus {path} does not exist. Check data.paths.")
        if path.endswith(".parquet"):
            yield from _parquet(path, text_key)
        elif ".jsonl" in Path(path).name:
            yield from _jsonl(path, text_key)
        else:
            yield from _text(path)
    else:
        yield from _data_set(path, text_key)


def _jsonl(path: str, text_key: str) -> Iterator[str]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}:{number}: not a JSON record ({error}). Mend the line.") from error
        if not isinstance(record, dict) or not isinstance(record.get(text_key), str):
            fields = ", ".join(record) if isinstance(record, dict) else type(record).__name__
            raise DataError(
                f'{path}:{number}: no text in field "{text_key}" (the record has: {fields}). Name the field with '
                "data.text_key=NAME."
            )
        yield record[text_key]


def _text(path: str) -> Iterator[str]:
    lines: list[str] = []
    size = 0
    for _, line in _lines(path):
        lines.append(line)
        size += len(line)
        is_blank = not line.strip()
        if (is_blank and size >= _DOCUMENT_CHARACTERS) or size >= _LONGEST_DOCUMENT:
            yield "".join(lines).strip()
            lines, size = [], 0
    if rest := "".join(lines).strip():
        yield rest


def _lines(path: str) -> Iterator[tuple[int, str]]:
    """Yield (line number, decoded line)."""
    number = 0
    try:
        with _open(path) as file:
            for raw in file:
                number += 1
                yield number, raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}:{number}: not UTF-8 (byte {error.start} of the line is 0x{error.object[error.start]:02x}). "
            "Convert the file: iconv -f ENCODING -t utf-8"
        ) from error
    except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise DataError(f"{path}: cannot be read after line {number} ({error}).") from error


def _open(path: str) -> BinaryIO:
    if path.endswith(".gz"):
        return gzip.open(path, "rb")  # type: ignore[return-value]
    if path.endswith(".zst"):
        return io.BufferedReader(zstandard.open(path, "rb"))  # type: ignore[arg-type]
    return open(path, "rb")


def _parquet(path: str, text_key: str) -> Iterator[str]:
    import pyarrow  # heavy, and not needed to train from prepared shards
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        if text_key not in file.schema_arrow.names:
            raise DataError(
                f'{path}: no column "{text_key}" (it has: {", ".join(file.schema_arrow.names)}). Name it with '
                "data.text_key=NAME."
            )
        for batch in file.iter_batches(columns=[text_key]):
            yield from (text for text in batch.column(0).to_pylist() if text)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read ({error}).") from error


def _data_set(name: str, text_key: str) -> Iterator[str]:
    """Stream the training split of a data set on the Hugging Face hub, `NAME` or `NAME:CONFIGURATION`."""
    if "/" in name and Path(name).parent.is_dir() and not Path(name).exists():
        raise DataError(
            f"{name} is neither a file with one of the endings {', '.join(FILE_ENDINGS)}, nor a prefix of token "
            "shards. Check data.paths."
        )
    import datasets  # heavy, and not needed to train from prepared shards

    repository, _, configuration = name.partition(":")
    try:
        rows = datasets.load_dataset(
            repository, configuration or None, split="train", streaming=True
        )
        for number, row in enumerate(rows):
            if not isinstance(row.get(text_key), str):
                raise DataError(
                    f'{name}, row {number}: no text in field "{text_key}" (it has: {", ".join(row)}). Name it with '
                    "data.text_key=NAME."
                )
            yield row[text_key]
    except DataError:
        raise
    except Exception as error:  # the hub client raises many kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f'The data set "{name}" cannot be loaded ({reason}). Check data.paths: a file (.jsonl, .txt, .parquet), a '
            "prefix of token shards, or a data set's name; a name needs the network or a filled cache."
        ) from error
