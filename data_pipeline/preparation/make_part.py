"""The work on one part of a corpus: read, filter, tokenise, write; the same in this process and in a worker."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np

from data_pipeline.preparation.corpus_part import CorpusPart
from data_pipeline.preparation.documents import Document, Skipped, stop
from data_pipeline.preparation.duplicates import digest_of
from data_pipeline.preparation.filters import EMPTY, Filters
from data_pipeline.preparation.inputs import read_part
from data_pipeline.preparation.parts import PartWriter, entry_type
from data_pipeline.storage.shards import token_type
from data_pipeline.tokenizer import Tokenizer

# What is tokenised at once: the library's own result takes some hundred bytes a token.
_BATCH_DOCUMENTS = 512
_BATCH_CHARACTERS = 400_000


@dataclass(frozen=True)
class Settings:
    """How records become documents; with the input and the tokenizer, all that a part depends on."""

    text_keys: tuple[str, ...] = ("text",)
    """Fields whose texts are the sequences of a document."""
    filters: Filters = field(default_factory=Filters)
    deduplicate: bool = False
    skip_bad_records: bool = False


@dataclass(frozen=True)
class Task:
    """A part to be made."""

    part: CorpusPart
    path: Path
    """Path of the finished part."""
    fingerprint: str


@dataclass(frozen=True)
class Start:
    """The first message to a worker process."""

    parent: int
    """Process id of the parent."""
    tokenizer: str
    settings: Settings


@dataclass(frozen=True)
class Answer:
    """A worker process's result for a task; all fields are empty if the part is made."""

    mistake: str = ""
    failed_write: tuple[int, str] | None = None
    """Error number and text of a failed write."""


def make_part(task: Task, tokenizer: Tokenizer, settings: Settings) -> None:
    """Turn a part of a corpus into its file (see data_pipeline/preparation/parts.py).

    Raises:
        DataError: a record is bad and is not to be skipped, or the corpus cannot be read.
        OSError: the file cannot be written.
    """
    skipped = Skipped()
    on_error = skipped if settings.skip_bad_records else stop
    left_out: Counter[str] = Counter()
    documents = read_part(task.part, settings.text_keys, on_error)
    dtype = token_type(tokenizer.vocab_size)
    entry = entry_type(len(settings.text_keys), settings.deduplicate)
    writer = PartWriter(task.path)
    try:
        for batch in _batches(_filtered(documents, settings.filters, left_out)):
            writer.append(*_tokenised(batch, tokenizer, dtype, entry, left_out))
        writer.finish(task.fingerprint, dict(left_out), skipped.count, skipped.first)
    finally:
        writer.discard()


def place(text: str) -> int:
    """Where a text lies in [0, 2^64): its hash. Those below the held-out share of it are held out."""
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=b"held-out").digest()
    return int.from_bytes(digest, "little")


def _filtered(
    documents: Iterable[Document], filters: Filters, left_out: Counter[str]
) -> Iterator[Document]:
    for texts in documents:
        reason = filters.reason_against(texts)
        if reason is None:
            yield texts
        else:
            left_out[reason] += 1


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    characters = 0
    for texts in documents:
        batch.append(texts)
        characters += sum(map(len, texts))
        if len(batch) == _BATCH_DOCUMENTS or characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _tokenised(
    batch: list[Document],
    tokenizer: Tokenizer,
    dtype: np.dtype,
    entry: np.dtype,
    left_out: Counter[str],
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of a batch in a row, and an entry for each document."""
    width = len(batch[0])
    encoded = tokenizer.encode_batch([text for texts in batch for text in texts])
    kept: list[int] = []
    for number in range(len(batch)):
        last = encoded[(number + 1) * width - 1]
        if last:
            kept.append(number)
            last.append(tokenizer.special.eos)
        else:  # a tokenizer may drop all of the text
            left_out[EMPTY] += 1
    entries = np.zeros(len(kept), entry)
    ids = [encoded[number * width + column] for number in kept for column in range(width)]
    lengths = [len(text_ids) for text_ids in ids]
    for column in range(width):
        entries["lengths"][:, column] = lengths[column::width]
    joined = ["\0".join(batch[number]) for number in kept]
    entries["place"] = np.fromiter(map(place, joined), np.uint64, len(kept))
    if "digest" in (entry.names or ()):
        entries["digest"] = np.frombuffer(b"".join(map(digest_of, joined)), entry["digest"])
    return np.fromiter(chain.from_iterable(ids), dtype, sum(lengths)), entries
