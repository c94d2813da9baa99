"""Corpora and their parts: .jsonl, .txt (also .gz, .zst), .parquet, a data set, or python-docs.

Where parts begin depends on the corpus alone, never on who reads them: part k holds the lines that begin in bytes
[k, k + 1) * PART_BYTES of the text. A plain file is entered in the middle, a .parquet file at a row group; an archive
and a data set can only be read from their beginning, so that their parts carry what they hold.
"""

import contextlib
import difflib
import errno
import os
import stat
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

from configs.errors import DataError, StorageError
from data_pipeline.preparation import python_docs
from data_pipeline.preparation.archives import ENDINGS as ARCHIVE_ENDINGS
from data_pipeline.preparation.archives import parts_of_archive
from data_pipeline.preparation.corpus_part import CorpusPart
from data_pipeline.preparation.documents import Document, OnError, from_jsonl, from_text, stop
from data_pipeline.preparation.lines import record_lines, text_lines
from data_pipeline.preparation.tables import (
    data_set,
    parts_of_parquet,
    parts_of_rows,
    read_parquet,
    read_rows,
)

FILE_ENDINGS = (".jsonl", ".txt", ".parquet", ".jsonl.gz", ".jsonl.zst", ".txt.gz", ".txt.zst")
PART_BYTES = 16 * 2**20
# Ending of the file that marks a shard.
_INDEX = ".idx"

# Errors of a wrong name or of missing permission; every other error is a failure of the file system.
_USERS = (errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG)


def is_file_name(path: str) -> bool:
    """True if the path names a corpus file rather than a data set."""
    return path.lower().endswith(FILE_ENDINGS)


def is_text(path: str) -> bool:
    """True if the path names a plain text, whatever stands before its last ending (notes.jsonl.txt)."""
    return _ending(path) == ".txt"


def is_on_hub(path: str) -> bool:
    """True if a corpus is not on this machine: the name of a data set, which is fetched from the hub."""
    return not (path == python_docs.NAME or is_file_name(path) or os.path.exists(path))


def _files_alike(path: str) -> str:
    """Files and token shards that a mistyped name may stand for, rather than for a data set; "" if there is none."""
    folder, name = os.path.split(path)
    with contextlib.suppress(OSError):
        listed = os.listdir(folder or ".")
        names = [other for other in listed if is_file_name(other)]
        names += [other.removesuffix(_INDEX) for other in listed if other.endswith(_INDEX)]
        close = difflib.get_close_matches(name, names, n=2, cutoff=0.8)
        return " or ".join(os.path.join(folder, other) for other in close)
    return ""


def check_input(path: str) -> None:
    """Refuse what cannot be a corpus: a file that is not there, may not be read, or of another kind.

    Raises:
        DataError: the message says what to check.
    """
    with _readable(path):
        found = _status(path)
        if is_file_name(path):
            if found is None or not stat.S_ISREG(found.st_mode):
                alike = _files_alike(path) if found is None else ""
                advice = f"Did you mean {alike}?" if alike else "Check its path."
                raise DataError(f"The corpus {path} {_what_else(found)}. {advice}")
            if not os.access(path, os.R_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return
        is_path = path.startswith((".", "/", "~")) or ("/" in path and Path(path).parent.is_dir())
        is_folder = found is not None and stat.S_ISDIR(found.st_mode)
        if found is None and (alike := _files_alike(path)):
            raise DataError(f"There is no file or token shard {path}. Did you mean {alike}?")
        if (found is None and is_path) or (found is not None and not is_folder):
            raise DataError(
                f"{path} is neither a file with one of the endings {', '.join(FILE_ENDINGS)}, nor a prefix of token "
                "shards. Check its path."
            )
        if is_folder:
            os.listdir(path)


def identity(path: str) -> list[str | int]:
    """What makes a corpus the same one: size and time of its files; of a data set on the hub, its name.

    Raises:
        DataError: as `check_input`.
    """
    if path == python_docs.NAME:
        return python_docs.identity()
    check_input(path)
    with _readable(path):
        if is_file_name(path):
            return [os.path.realpath(path), *_size_and_time(Path(path))]
        if Path(path).is_dir():
            files = sorted(file for file in Path(path).rglob("*") if file.is_file())
            parts = (part for file in files for part in (str(file), *_size_and_time(file)))
            return [os.path.realpath(path), *parts]
    return [path]


def size_bytes(path: str) -> int | None:
    """What `Part.read_bytes` add up to; None if that is not known before the end."""
    with _readable(path):
        return os.path.getsize(path) if is_file_name(path) else None


def parts_of(path: str, text_keys: Sequence[str]) -> Iterator[CorpusPart]:
    """Yield the parts of a corpus in order.

    Raises:
        DataError: it is missing or unreadable.
    """
    if path == python_docs.NAME:
        rows = ({key: text for key in text_keys} for text in python_docs.python_docs())
        yield from parts_of_rows(path, rows, text_keys, PART_BYTES)
        return
    check_input(path)
    if len(text_keys) > 1 and is_text(path):
        raise DataError(
            f"{path} is plain text, without the fields {', '.join(text_keys)} of an instruction record. Write the records "
            "as .jsonl, or name the file in data.paths."
        )
    if not is_file_name(path):
        yield from parts_of_rows(path, data_set(path), text_keys, PART_BYTES)
    elif _ending(path) == ".parquet":
        yield from parts_of_parquet(path, text_keys, PART_BYTES)
    elif path.lower().endswith(ARCHIVE_ENDINGS):
        yield from parts_of_archive(path, PART_BYTES, is_text(path))
    else:
        size = size_bytes(path) or 0
        for number, start in enumerate(range(0, size, PART_BYTES)):
            end = min(start + PART_BYTES, size)
            yield CorpusPart(path, number, start, end, read_bytes=end - start)


def read_part(
    part: CorpusPart, text_keys: Sequence[str], on_error: OnError = stop
) -> Iterator[Document]:
    """Yield the documents of a part.

    Args:
        part: a part from `parts_of`.
        text_keys: fields that hold the text, for .jsonl, .parquet and data sets.
        on_error: called with the error of each bad record.

    Raises:
        DataError: the file cannot be read any further; the message names file and line.
    """
    if part.rows is not None:
        yield from read_rows(part, text_keys, on_error)
    elif _ending(part.path) == ".parquet":
        yield from read_parquet(part, text_keys, on_error)
    elif is_text(part.path):
        yield from from_text(text_lines(part), on_error)
    else:
        yield from from_jsonl(record_lines(part, on_error), text_keys, on_error)


def read_documents(
    path: str, text_keys: Sequence[str], on_error: OnError = stop
) -> Iterator[Document]:
    """Yield the documents of one corpus, part by part.

    Raises:
        DataError: the corpus is missing or unreadable; the message names file and line.
    """
    for part in parts_of(path, text_keys):
        yield from read_part(part, text_keys, on_error)


def _ending(path: str) -> str:
    """The ending that tells the format: the last one but that of an archive, in small letters."""
    name = Path(path.lower())
    return Path(name.stem).suffix if name.suffix in ARCHIVE_ENDINGS else name.suffix


@contextlib.contextmanager
def _readable(path: str) -> Generator[None, None, None]:
    """Say of which corpus the file system refused something."""
    try:
        yield
    except ValueError as error:
        raise DataError(f"{path!r} is not a path ({error}). Check what was typed.") from error
    except OSError as error:
        if error.errno in _USERS:
            raise DataError(
                f"The corpus {path} cannot be read ({error.strerror}). Check its path and who may read it: "
                f"namei -l {path}"
            ) from error
        raise StorageError(f"The corpus {path} cannot be read ({error.strerror}).") from error


def _status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _what_else(found: os.stat_result | None) -> str:
    if found is None:
        return "does not exist"
    if stat.S_ISDIR(found.st_mode):
        return "is a folder"
    return "is a pipe or a device, which can be read only once: write its text to a file first"


def _size_and_time(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
