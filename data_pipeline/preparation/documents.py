"""From records to documents: lines of a .jsonl or .txt file, rows of a .parquet file or data set.

A document is a tuple of texts, one for each field that was asked for: ("text",) gives documents of one text. Whatever
is wrong with a record is told to `on_error` with the file's name and line: `stop` raises it, a `Skipped` counts it and
reading goes on.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn, cast

from configs.errors import DataError

Document = tuple[str, ...]

# A plain text has no document borders. It is cut at the first blank line after this many characters, so that a book
# becomes many documents, some of which can be held out; without blank lines it is cut at a line's end.
_DOCUMENT_CHARACTERS = 2000
_LONGEST_DOCUMENT = 8000

OnError = Callable[[DataError], None]
Lines = Iterable[tuple[Callable[[], str], bytes]]
"""Lines of a file, each with what says where it stands ("FILE:LINE"), which is worked out only if it is asked for."""


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


def from_jsonl(lines: Lines, text_keys: Sequence[str], on_error: OnError) -> Iterator[Document]:
    """Yield one document for each line that holds a JSON record; blank lines are none."""
    for where, line in _decoded(lines, on_error):
        if not line.strip():
            continue
        try:
            record: object = json.loads(line)
        except (ValueError, RecursionError) as error:
            on_error(DataError(f"{where()}: not a JSON record ({error}). Mend the line."))
            continue
        yield from documents_of(record, where, text_keys, on_error)


def from_text(lines: Lines, on_error: OnError) -> Iterator[Document]:
    """Yield the documents that a plain text is cut into."""
    gathered: list[str] = []
    size = 0
    for _, line in _decoded(lines, on_error):
        gathered.append(line)
        size += len(line)
        is_blank = not line.strip()
        if (is_blank and size >= _DOCUMENT_CHARACTERS) or size >= _LONGEST_DOCUMENT:
            yield ("".join(gathered).strip(),)
            gathered, size = [], 0
    if rest := "".join(gathered).strip():
        yield (rest,)


def documents_of(
    record: object, where: Callable[[], str], text_keys: Sequence[str], on_error: OnError
) -> Iterator[Document]:
    """Turn one record into its documents: here one, of its fields `text_keys`."""
    if not isinstance(record, Mapping):
        on_error(_no_text(where(), text_keys[0], [type(record).__name__]))
        return
    fields = cast("Mapping[str, object]", record)
    texts: list[str] = []
    for key in text_keys:
        text = fields.get(key)
        if not isinstance(text, str):
            on_error(_no_text(where(), key, list(fields)))
            return
        if not _is_encodable(text):
            on_error(
                DataError(
                    f'{where()}: field "{key}" holds half a character (a lone surrogate). Mend the record.'
                )
            )
            return
        texts.append(text)
    yield tuple(texts)


def _decoded(lines: Lines, on_error: OnError) -> Iterator[tuple[Callable[[], str], str]]:
    for where, raw in lines:
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            on_error(
                DataError(
                    f"{where()}: not UTF-8 (byte {error.start} of the line is 0x{raw[error.start]:02x}). Convert "
                    "the file: iconv -f ENCODING -t utf-8"
                )
            )
            continue
        yield where, line


def _no_text(where: str, key: str, fields: list[str]) -> DataError:
    return DataError(
        f'{where}: no text in field "{key}" (the record has: {", ".join(fields)}). Name the field with '
        "data.text_key=NAME or --text-key NAME."
    )


def _is_encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
