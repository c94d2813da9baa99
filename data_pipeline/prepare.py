"""Documents to token shards, some of them held out:  python -m data_pipeline prepare INPUT... --output PREFIX ...

A document is held out if a hash of its text falls below `valid_fraction`: the same documents in every order of
preparation, on every machine, and the same text twice never lands on both sides.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from configs.errors import DataError
from data_pipeline.shards import ShardInfo, ShardWriter
from data_pipeline.tokenizer import Tokenizer

_BATCH = 512
# Corpora up to this many documents always get a held-out one.
_FEW = 1000


@dataclass(frozen=True)
class Prepared:
    """What was written."""

    train: ShardInfo
    valid: ShardInfo


def prepare(
    documents: Iterable[str],
    prefix: Path,
    tokenizer: Tokenizer,
    tokenizer_spec: str,
    valid_fraction: float,
) -> Prepared:
    """Write PREFIX (training) and PREFIX.valid (held out).

    Args:
        documents: texts; empty ones are passed over.
        prefix: path without ending; its folder exists.
        tokenizer: makes the ids.
        tokenizer_spec: how to find it again, relative to the folder.
        valid_fraction: share of documents to hold out.

    Raises:
        DataError: there is no text, or too little to hold some out.
    """
    texts = (text for text in documents if text.strip())
    first = list(islice(texts, _FEW))
    if not first:
        raise DataError(f"The corpus for {prefix} has no text. Check data.paths and data.text_key.")
    threshold = valid_fraction
    if len(first) < _FEW and valid_fraction > 0:
        if len(set(first)) < 2:
            raise DataError(
                "The corpus has only one document, so none can be held out. Add text, or give data.valid_paths and "
                "data.valid_fraction=0."
            )
        # At least one document is held out, and at least one stays.
        places = sorted({_place(text) for text in first})
        threshold = min(max(valid_fraction, np.nextafter(places[0], 1)), places[-1])
    writer = ShardWriter(
        tokenizer_spec, tokenizer.fingerprint, tokenizer.vocab_size, tokenizer.special
    )
    held_out: list[np.ndarray] = []
    train = writer.write(prefix, _training(first, texts, tokenizer, threshold, held_out))
    valid = writer.write(Path(f"{prefix}.valid"), held_out)
    return Prepared(train, valid)


def _training(
    first: list[str],
    rest: Iterator[str],
    tokenizer: Tokenizer,
    threshold: float,
    held_out: list[np.ndarray],
) -> Iterator[np.ndarray]:
    """Yield training documents as ids; put the others aside (a few per cent of the corpus)."""
    batches = [first[start : start + _BATCH] for start in range(0, len(first), _BATCH)]
    more = iter(lambda: list(islice(rest, _BATCH)), [])
    for source in (batches, more):
        for batch in source:
            for text, ids in zip(batch, tokenizer.encode_batch(batch), strict=True):
                if _place(text) < threshold:
                    held_out.append(np.asarray(ids))
                else:
                    yield np.asarray(ids)


def _place(text: str) -> float:
    """Where a text lies in [0, 1): its hash."""
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=b"held-out").digest()
    return int.from_bytes(digest, "little") / 2**64
