"""Documents to token shards, some of them held out:  python -m data_pipeline prepare INPUT... --output PREFIX ...

A document is held out if a hash of its text falls below `valid_fraction`: the same documents in every order of
preparation, on every machine, and the same text twice never lands on both sides.
"""

import contextlib
import hashlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np

from configs.errors import DataError
from data_pipeline.shards import ShardInfo, ShardWriter, withdraw
from data_pipeline.tokenizer import Tokenizer, keep_tokenizer, spec_in

# What is tokenised at once.
_BATCH_DOCUMENTS = 512
_BATCH_CHARACTERS = 4_000_000
# Corpora of fewer documents always get a held-out one.
_FEW = 1000


@dataclass(frozen=True)
class Prepared:
    """What was written."""

    train: ShardInfo
    valid: ShardInfo | None
    """None if nothing was to be held out."""
    num_empty: int
    """Documents without text, which were left out."""


@dataclass
class _Counts:
    empty: int = 0


def prepare(
    documents: Iterable[str],
    prefix: Path,
    tokenizer: Tokenizer,
    valid_fraction: float,
    sources: Sequence[str],
) -> Prepared:
    """Write PREFIX (training) and, if something is held out, PREFIX.valid.

    Both appear when all is complete, and replace what was there before. A process that is killed leaves files ending
    with .part, which the next one overwrites.

    Args:
        documents: texts; empty ones are passed over.
        prefix: path without ending; its folder exists.
        tokenizer: makes the ids; its file is kept in PREFIX.tokenizer, so that shards can be moved with it.
        valid_fraction: share of documents to hold out.
        sources: what the documents are read from, for the record and for messages.

    Raises:
        DataError: there is no text, too little to hold some out, or no space.
    """
    counts = _Counts()
    texts = _with_text(documents, counts)
    first = list(islice(texts, _FEW))
    if not first:
        raise DataError(
            f"{_listed(sources)} has no text ({counts.empty:,} documents, all empty). Check the path and the field "
            "that holds the text."
        )
    threshold = _threshold(first, valid_fraction, sources)
    valid_prefix = Path(f"{prefix}.valid")
    kept_tokenizer = Path(f"{prefix}.tokenizer")
    spec = spec_in(tokenizer.spec, kept_tokenizer.name)
    with _writing(prefix) as opened:
        train = ShardWriter(prefix, tokenizer, spec, sources)
        opened.callback(train.discard)
        valid = None
        if valid_fraction > 0:
            valid = ShardWriter(valid_prefix, tokenizer, spec, sources)
            opened.callback(valid.discard)
        for batch in _batches(chain(first, texts)):
            for text, ids in zip(batch, tokenizer.encode_batch(batch), strict=True):
                if not ids:  # a tokenizer may drop all that there is
                    counts.empty += 1
                elif valid is not None and place(text) < threshold:
                    valid.add(ids)
                else:
                    train.add(ids)
        prepared = Prepared(train.finish(), valid.finish() if valid else None, counts.empty)
        for info, what in ((prepared.train, "kept for training"), (prepared.valid, "held out")):
            if info is not None and not info.num_documents:
                raise DataError(
                    f"Of {_listed(sources)} no document was {what}: a share of {valid_fraction} is too extreme for it. "
                    "Try data.valid_fraction=0.05 or --valid-fraction 0.05."
                )
        for old in (prefix, valid_prefix):
            withdraw(old)
        keep_tokenizer(tokenizer.spec, kept_tokenizer)
        if valid is not None:
            valid.publish()
        train.publish()
    return prepared


def place(text: str) -> float:
    """Where a text lies in [0, 1): its hash. Those below the held-out share are held out."""
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=b"held-out").digest()
    return int.from_bytes(digest, "little") / 2**64


def _threshold(first: list[str], valid_fraction: float, sources: Sequence[str]) -> float:
    """The place below which documents are held out; in a small corpus at least one is, and at least one stays."""
    if len(first) == _FEW or valid_fraction == 0:
        return valid_fraction
    places = sorted({place(text) for text in first})
    if len(places) < 2:
        raise DataError(
            f"{_listed(sources)} has only one document, so none can be held out. Add text, or name another corpus for "
            "it: data.valid_paths=[FILE] (prepare: --valid-fraction 0)."
        )
    return min(max(valid_fraction, float(np.nextafter(places[0], 1))), places[-1])


def _with_text(documents: Iterable[str], counts: _Counts) -> Iterator[str]:
    for text in documents:
        if text and not text.isspace():
            yield text
        else:
            counts.empty += 1


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if len(batch) == _BATCH_DOCUMENTS or characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


@contextlib.contextmanager
def _writing(prefix: Path) -> Generator[contextlib.ExitStack, None, None]:
    """Clean up at the end, and say which file could not be written."""
    try:
        with contextlib.ExitStack() as opened:
            yield opened
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(
            f"{prefix} cannot be written ({reason}). Make room, or choose another place (--output, data.cache_dir)."
        ) from error


def _listed(sources: Sequence[str]) -> str:
    return ", ".join(sources) if sources else "The corpus"
