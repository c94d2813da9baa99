"""From records to documents: lines of a .jsonl or .txt file, rows of a .parquet file or data set.

A document is a tuple of texts, one for each field that was asked for: ("text",) gives documents of one text. Whatever
is wrong with a record is passed to `on_error` with the file's name and line: `stop` raises it, a `Skipped` counts it
and reading goes on.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn, cast

from configs.errors import DataError

Document = tuple[str, ...]

# A plain text has no document borders. It is cut at the first blank line after this many characters, so that a book
# becomes many documents, some of which can be held out; without blank lines it is cut at a line's end, and a line
# that is longer by itself at the end of a sentence.
_DOCUMENT_CHARACTERS = 2000
_LONGEST_DOCUMENT = 8000
# The end of a sentence: a mark, what closes with it, and the blank behind it, which Chinese does without.
_SENTENCE_END = re.compile(
    "(?:[.!?\u2026][\"')\\]\u201d\u2019]*(?=\\s)|[\u3002\uff01\uff1f][\u201d\u2019\u300b\u300d\u300f\u3011\uff09]*)\\s*"
)
# File systems return zeros, a sector or more, for the parts of a file that were never written.
_HOLE = bytes(512)
_NUM_NAMES, _NAME_CHARACTERS, _VALUE_CHARACTERS, _ERROR_CHARACTERS = 20, 60, 40, 2000
_TYPED_AS_IT_IS = re.compile(r"\w[\w.-]*")
_SKIP = "To leave such records out, prepare with --on-error skip."

OnError = Callable[[DataError], None]
Lines = Iterable[tuple[Callable[[], str], bytes]]
"""Lines of a file, each with a function that returns its place ("FILE:LINE"), which is computed only when needed."""


def stop(error: DataError) -> NoReturn:
    """Raise the error: without --on-error skip no record is skipped."""
    raise error


@dataclass
class Skipped:
    """Counts records that are passed over, and remembers the first reason."""

    count: int = 0
    first: str = ""

    def __call__(self, error: DataError) -> None:
        """Count one record."""
        self.first = self.first or str(error).removesuffix(f" {_SKIP}")[:_ERROR_CHARACTERS]
        self.count += 1


def from_jsonl(lines: Lines, text_keys: Sequence[str], on_error: OnError) -> Iterator[Document]:
    """Yield one document for each line that holds a JSON record; blank lines are none."""
    for where, line in _decoded(lines, on_error):
        if not line.strip():
            continue
        try:
            record = _record(line)
        except (ValueError, RecursionError) as error:
            on_error(
                DataError(f"{where()}: not a JSON record ({error}). Correct the line. {_SKIP}")
            )
            continue
        yield from documents_of(record, where, text_keys, on_error)


def from_text(lines: Lines, on_error: OnError) -> Iterator[Document]:
    """Yield the documents that a plain text is cut into."""
    gathered: list[str] = []
    size = 0
    for _, line in _decoded(lines, on_error):
        *whole, last = _pieces(line)
        for piece in whole:
            yield from _joined([*gathered, piece])
            gathered, size = [], 0
        gathered.append(last)
        size += len(last)
        is_blank = not last.strip()
        if (is_blank and size >= _DOCUMENT_CHARACTERS) or size >= _LONGEST_DOCUMENT:
            yield from _joined(gathered)
            gathered, size = [], 0
    yield from _joined(gathered)


def documents_of(
    record: object, where: Callable[[], str], text_keys: Sequence[str], on_error: OnError
) -> Iterator[Document]:
    """Turn one record into its documents: here one, of its fields `text_keys`."""
    if not isinstance(record, Mapping):
        on_error(
            DataError(
                f'{where()}: {_described(record)} instead of a record, so there is no field "{text_keys[0]}". Write each '
                f'line as {{"{text_keys[0]}": "..."}}. {_SKIP}'
            )
        )
        return
    fields = cast("Mapping[str, object]", record)
    texts: list[str] = []
    for key in text_keys:
        if key not in fields:
            on_error(
                DataError(
                    f'{where()}: no text in field "{key}" (the record has: {names_of(list(fields))}). '
                    f"{_other_field(fields, key, text_keys)} {_SKIP}"
                )
            )
            return
        text = fields[key]
        if isinstance(text, bytes):
            try:
                text = text.decode("utf-8")
            except UnicodeDecodeError as error:
                on_error(
                    DataError(
                        f'{where()}: field "{key}" is not UTF-8 (its byte {error.start} is '
                        f"0x{text[error.start]:02x}). Convert the text. {_SKIP}"
                    )
                )
                return
        if not isinstance(text, str):
            on_error(
                DataError(
                    f'{where()}: no text in field "{key}": its value is {_described(text)}. Correct the record. '
                    f"{_other_field(fields, key, text_keys)} {_SKIP}"
                )
            )
            return
        if not _is_encodable(text):
            on_error(
                DataError(
                    f'{where()}: field "{key}" holds half a character (a lone surrogate). Correct the record. {_SKIP}'
                )
            )
            return
        texts.append(text)
    yield tuple(texts)


def names_of(fields: Sequence[object]) -> str:
    """The first few names of fields, for a message."""
    named = ", ".join(str(name)[:_NAME_CHARACTERS] for name in fields[:_NUM_NAMES])
    more = len(fields) - _NUM_NAMES
    return f"{named} and {more:,} more" if more > 0 else named


def _record(line: str) -> object:
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        raise
    except (
        ValueError
    ):  # a number with more digits than Python parses: not text, but no reason to refuse the record
        return json.loads(line, parse_int=float)


def _pieces(line: str) -> Iterator[str]:
    """A line as it is or, if it is longer than a document by itself, cut at ends of sentences, else at blanks."""
    start = 0
    while len(line) - start > _LONGEST_DOCUMENT:
        earliest, latest = start + _DOCUMENT_CHARACTERS, start + _LONGEST_DOCUMENT
        ends = [found.end() for found in _SENTENCE_END.finditer(line, earliest, latest)]
        blank = line.rfind(" ", earliest, latest) + 1
        cut = ends[-1] if ends else blank or latest
        yield line[start:cut]
        start = cut
    yield line[start:]


def _joined(gathered: Sequence[str]) -> Iterator[Document]:
    if text := "".join(gathered).strip():
        yield (text,)


def _decoded(lines: Lines, on_error: OnError) -> Iterator[tuple[Callable[[], str], str]]:
    for where, raw in lines:
        hole = raw.find(_HOLE)
        if hole >= 0:
            on_error(
                DataError(
                    f"{where()}: zeros from byte {hole:,} of the line on: a hole, as an interrupted copy leaves it. "
                    f"Fetch the file again. {_SKIP}"
                )
            )
            continue
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            on_error(
                DataError(
                    f"{where()}: not UTF-8 (byte {error.start} of the line is 0x{raw[error.start]:02x}). Convert "
                    f"the file: iconv -f ENCODING -t utf-8. {_SKIP}"
                )
            )
            continue
        yield where, line


def _other_field(fields: Mapping[str, object], key: str, text_keys: Sequence[str]) -> str:
    """How to name the field that holds the text: the one with the longest text of those not asked for."""
    option = text_option(key, text_keys)
    texts = {
        name: len(value)
        for name, value in fields.items()
        if isinstance(value, str | bytes) and value and name not in text_keys
    }
    found = max(texts, key=lambda name: texts[name], default="")
    # Other names need quotes, whose rules differ between shells and configurations.
    if not _TYPED_AS_IT_IS.fullmatch(found):
        found = "NAME"
    if len(text_keys) > 1:  # training takes raw records only with the usual fields
        return f"To take another field, prepare the records (python -m data_pipeline prepare) and type {option}{found}."
    if found == "NAME":
        return f"Name the field with {option}NAME."
    return f'If "{found}" is the text, type {option}{found}.'


def text_option(key: str, text_keys: Sequence[str]) -> str:
    """The beginning of what is typed for one of the fields: of instruction records the options of prepare."""
    if len(text_keys) == 1:
        return "data.text_key="
    return "--prompt-key " if key == text_keys[0] else "--target-key "


def _described(value: object) -> str:
    """Describe a value that is not a text, for a message."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return "a text"
    shown = str(value)[:_VALUE_CHARACTERS]
    if isinstance(value, int | float):
        return f"the number {shown}"
    if isinstance(value, Mapping):
        return f"an object ({names_of(list(cast('Mapping[object, object]', value)))})"
    if isinstance(value, list):
        return f"a list of {len(cast('list[object]', value)):,}"
    return f"of type {type(value).__name__}"


def _is_encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
