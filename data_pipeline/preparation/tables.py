"""Parts of corpora that come in rows: .parquet files, and data sets of Hugging Face's library."""

# pyarrow and datasets come without types.
# pyright: basic

import logging
import os
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from configs.errors import DataError
from data_pipeline.preparation.corpus_part import CorpusPart
from data_pipeline.preparation.documents import (
    Document,
    OnError,
    documents_of,
    names_of,
    text_option,
)

_PARQUET_ROWS = 256
# pyarrow's names for the types of columns that hold text.
_TEXTS = ("string", "large_string", "string_view")


def parts_of_parquet(path: str, text_keys: Sequence[str], part_bytes: int) -> Iterator[CorpusPart]:
    """Yield runs of row groups of at least `part_bytes`.

    Raises:
        DataError: it is not a .parquet file, or has no such columns.
    """
    import pyarrow  # heavy, and not needed to train from prepared shards
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            columns, metadata = file.schema_arrow.names, file.metadata
            kinds = map(str, file.schema_arrow.types)
            texts = {name for name, kind in zip(columns, kinds, strict=True) if kind in _TEXTS}
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read ({error}).") from error
    for key in text_keys:
        if key not in columns:
            left = [name for name in columns if name in texts and name not in text_keys]
            name = left[0] if len(left) == 1 else "NAME"
            raise DataError(
                f'{path}: no column "{key}" (it has: {names_of(columns)}). Name the column with '
                f"{text_option(key, text_keys)}{name}."
            )
    file_bytes = os.path.getsize(path)
    number = first = size = before = rows = taken = 0
    for group in range(metadata.num_row_groups):
        size += metadata.row_group(group).total_byte_size
        rows += metadata.row_group(group).num_rows
        is_last = group + 1 == metadata.num_row_groups
        if size >= part_bytes or is_last:
            until = file_bytes if is_last else file_bytes * (group + 1) // metadata.num_row_groups
            yield CorpusPart(path, number, first, group + 1, before, read_bytes=until - taken)
            number, first, taken = number + 1, group + 1, until
            before, rows, size = before + rows, 0, 0


def read_parquet(
    part: CorpusPart, text_keys: Sequence[str], on_error: OnError
) -> Iterator[Document]:
    """Yield the documents of a part of a .parquet file.

    Raises:
        DataError: it cannot be read any further.
    """
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


def parts_of_rows(
    path: str, rows: Iterator[dict[str, Any]], text_keys: Sequence[str], part_bytes: int
) -> Iterator[CorpusPart]:
    """Yield parts that carry rows: of each the fields asked for, of others their names; of a row that lacks one, all."""
    gathered: list[dict[str, Any]] = []
    number = before = size = 0
    for row in rows:
        texts = {key: row[key] for key in text_keys if key in row}
        # The message guesses the field that holds the text from the values of one row.
        gathered.append({**dict.fromkeys(row), **texts} if len(texts) == len(text_keys) else row)
        size += sum(len(text) for text in texts.values() if isinstance(text, str | bytes))
        if size >= part_bytes:
            yield CorpusPart(path, number, 0, 0, before, rows=gathered)
            number, before, size = number + 1, before + len(gathered), 0
            gathered = []
    if gathered:
        yield CorpusPart(path, number, 0, 0, before, rows=gathered)


def read_rows(part: CorpusPart, text_keys: Sequence[str], on_error: OnError) -> Iterator[Document]:
    """Yield the documents of a part that carries rows."""
    for number, row in enumerate(part.rows or (), start=part.before + 1):
        where = partial("{}, row {}".format, part.path, number)
        yield from documents_of(row, where, text_keys, on_error)


def data_set(name: str) -> Iterator[dict[str, Any]]:
    """Stream the training split of a data set: a folder, or `NAME` or `NAME:CONFIGURATION` on the hub.

    Raises:
        DataError: it cannot be loaded.
    """
    import datasets  # heavy, and not needed to train from prepared shards

    # These libraries log every attempt to reach the hub and every bad file; the cause is reported once, below.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    logging.getLogger("datasets").setLevel(logging.CRITICAL)
    repository, _, configuration = name.partition(":")
    try:
        yield from datasets.load_dataset(
            repository, configuration or None, split="train", streaming=True
        )
    except Exception as error:  # the hub client raises many kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if os.path.isdir(repository):
            raise DataError(
                f"The folder {repository} cannot be read as a data set ({reason.rstrip('.')}). Name its files or prefixes of "
                f"token shards one by one (data.paths){_for_example(repository)}."
            ) from error
        raise DataError(
            f'The data set "{name}" cannot be loaded ({reason}). Check data.paths: a file (.jsonl, .txt, .parquet), a '
            "prefix of token shards, or a data set's name; a name needs the network or a filled cache."
        ) from error


def _for_example(folder: str) -> str:
    """A file or prefix in a folder that can be named; "" if it holds none."""
    names = sorted(os.listdir(folder))
    shards = [name.removesuffix(".idx") for name in names if name.endswith(".idx")]
    found = shards + [name for name in names if name.endswith((".jsonl", ".txt", ".parquet"))]
    return f", such as {os.path.join(folder, found[0])}" if found else ""
