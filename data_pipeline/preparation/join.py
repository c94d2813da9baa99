"""From finished parts to shards, in the order of the input: what is held out, and what repeats an earlier document.

A document is held out if a hash of its text falls below `valid_fraction`: the same documents in every order of
preparation, on every machine, and the same text twice never lands on both sides. Of repeated documents the first in
the order of the input stays.
"""

import contextlib
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from configs.errors import DataError
from data_pipeline.preparation.duplicates import repetitions
from data_pipeline.preparation.outputs import Outputs
from data_pipeline.preparation.parts import FinishedPart, PartRecord
from data_pipeline.preparation.parts_folder import PartsFolder
from data_pipeline.storage.shard_writer import ShardWriter
from data_pipeline.storage.shards import ShardInfo
from data_pipeline.tokenizer import Tokenizer, keep_tokenizer, load_tokenizer, spec_in

# Corpora of fewer documents always get a held-out one.
_FEW = 1000
_REPEATED = "repeated"
_NUM_NAMED = 8


@dataclass(frozen=True)
class Prepared:
    """The shards that were written, and what was left out of them."""

    train: ShardInfo
    valid: ShardInfo | None
    """The held-out shard; None if nothing was to be held out."""
    num_bad_records: int
    """Records that were passed over because they hold no text."""
    first_bad_record: str

    @property
    def left_out(self) -> dict[str, int]:
        """Documents that are in neither shard, by reason."""
        return self.train.left_out


def join(
    parts: Sequence[FinishedPart],
    folder: PartsFolder,
    outputs: Outputs,
    tokenizer: Tokenizer,
    sources: Sequence[str],
    valid_fraction: float,
    deduplicate: bool,
    made_from: str,
) -> Prepared:
    """Write the shards of finished parts; when all of them is complete they replace those of an earlier preparation.

    Args:
        parts: in the order of the input.
        folder: of the parts, where the shards are written until they are complete.
        outputs: their place; its folder exists.
        tokenizer: that the parts were made with.
        sources: what the documents were read from, for the record and for messages.
        valid_fraction: share of documents to hold out.
        deduplicate: leave out what repeats an earlier document; the parts have digests.
        made_from: hash of all that the shards depend on, for the record.

    Raises:
        DataError: there is no text, or too little to hold some out.
        OSError: the shards cannot be written.
    """
    counts = _added_up(parts)
    bad = [part.record for part in parts if part.record.num_bad_records]
    keeps = _keeper(parts, outputs.train.parent, counts) if deduplicate else _keep_all
    summary = _Summary.of(parts, keeps)
    if not summary.num_documents:
        raise DataError(
            f"{_listed(sources)} has no text ({_reasons(counts, bad)}). Check the path and the field that holds the text."
        )
    threshold = summary.threshold(valid_fraction, sources)
    spec = spec_in(tokenizer.spec, outputs.tokenizer.name)
    with contextlib.ExitStack() as opened:

        def writer(prefix: Path, name: str) -> ShardWriter:
            made = ShardWriter(prefix, tokenizer, spec, sources, folder.staged_shard(name))
            opened.callback(made.discard)
            return made

        train = writer(outputs.train, "train")
        valid = writer(outputs.valid, "valid") if valid_fraction > 0 else None
        _divide(parts, keeps, threshold, train, valid)
        left_out = dict(sorted(counts.items()))
        made = (
            train.finish(left_out, threshold, made_from),
            valid.finish(left_out, threshold, made_from) if valid else None,
        )
        for info, what in zip(made, ("kept for training", "held out"), strict=True):
            if info is not None and not info.num_documents:
                raise DataError(
                    f"Of {_listed(sources)} no document was {what}: a share of {valid_fraction} is too extreme for it. "
                    "Try data.valid_fraction=0.05."
                )
        # Everything that can fail for lack of space or a missing file happens before the old shards are removed.
        opened.callback(shutil.rmtree, folder.staged_tokenizer, ignore_errors=True)
        _stage_tokenizer(tokenizer, folder.staged_tokenizer)
        outputs.check(sources, tokenizer.spec)  # hours may have passed
        outputs.withdraw()
        outputs.publish_tokenizer(folder.staged_tokenizer)
        if valid is not None:
            valid.publish()
        train.publish()
    first = bad[0].first_bad_record if bad else ""
    return Prepared(*made, sum(record.num_bad_records for record in bad), first)


def _stage_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Copy a tokenizer's file into a new folder.

    Raises:
        DataError: the file is gone, or no longer what the ids were made with.
    """
    shutil.rmtree(folder, ignore_errors=True)  # left by a process that was killed
    load_tokenizer(tokenizer.spec)  # its error names the file if it is gone
    keep_tokenizer(tokenizer.spec, folder)
    if load_tokenizer(spec_in(tokenizer.spec, str(folder))).fingerprint != tokenizer.fingerprint:
        raise DataError(
            f"{tokenizer.spec} has changed since the tokens were made. Restore it, or prepare the corpus again."
        )


_Keeps = Callable[[int, int], np.ndarray]
"""From (first document, number of documents), counted over all parts, to (documents,) bool: which of them stay."""


def _keep_all(first: int, count: int) -> np.ndarray:
    return np.ones(count, bool)


def _keeper(parts: Sequence[FinishedPart], scratch: Path, counts: Counter[str]) -> _Keeps:
    """Find repeated documents and count them."""
    num_documents = sum(part.record.num_documents for part in parts)
    digests = (entries["digest"] for part in parts for entries in part.entries())
    repeats = repetitions(digests, num_documents, scratch)
    if found := int(repeats.sum()):
        counts[_REPEATED] = found
    return lambda first, count: ~repeats[first : first + count]


@dataclass(frozen=True)
class _Summary:
    """What is needed of all documents to choose the threshold."""

    num_documents: int
    smallest_place: float
    largest_place: float

    @classmethod
    def of(cls, parts: Sequence[FinishedPart], keeps: _Keeps) -> "_Summary":
        count, smallest, largest, seen = 0, 1.0, 0.0, 0
        for part in parts:
            for entries in part.entries():
                places = _places(entries[keeps(seen, len(entries))])
                seen += len(entries)
                count += len(places)
                if len(places):
                    smallest = min(smallest, float(places.min()))
                    largest = max(largest, float(places.max()))
        return cls(count, smallest, largest)

    def threshold(self, valid_fraction: float, sources: Sequence[str]) -> float:
        """The place below which documents are held out; in a small corpus at least one is, and at least one stays."""
        if self.num_documents >= _FEW or valid_fraction == 0:
            return valid_fraction
        if self.smallest_place == self.largest_place:
            raise DataError(
                f"{_listed(sources)} has only one document, so none can be held out. Add text, or hold nothing out "
                "(data.valid_fraction=0) and name another corpus for it in training: data.valid_paths=[FILE]."
            )
        above_smallest = float(np.nextafter(self.smallest_place, 1))
        return min(max(valid_fraction, above_smallest), self.largest_place)


def _divide(
    parts: Sequence[FinishedPart],
    keeps: _Keeps,
    threshold: float,
    train: ShardWriter,
    valid: ShardWriter | None,
) -> None:
    """Stream the documents of all parts into the shard that each belongs to."""
    seen = 0
    for part in parts:
        for tokens, entries in part.blocks():
            keep = keeps(seen, len(entries))
            seen += len(entries)
            is_held_out = _places(entries) < threshold
            sizes = entries["lengths"].sum(axis=1, dtype=np.int64)
            for writer, wanted in ((train, keep & ~is_held_out), (valid, keep & is_held_out)):
                if writer is None or not wanted.any():
                    continue
                chosen = tokens if wanted.all() else tokens[np.repeat(wanted, sizes)]
                writer.append(chosen, entries["lengths"][wanted])


def _places(entries: np.ndarray) -> np.ndarray:
    """(documents,) float64 in [0, 1): where each document's text lies."""
    return entries["place"].astype(np.float64) / 2**64


def _added_up(parts: Sequence[FinishedPart]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for part in parts:
        counts.update(part.record.left_out)
    return counts


def _reasons(counts: Counter[str], bad: Sequence[PartRecord]) -> str:
    reasons = [f"{count:,} documents left out: {why}" for why, count in counts.items()]
    if bad:
        skipped = sum(record.num_bad_records for record in bad)
        reasons.append(f"{skipped:,} records skipped, the first: {bad[0].first_bad_record}")
    return ", ".join(reasons) or "0 documents"


def _listed(sources: Sequence[str]) -> str:
    more = f" and {len(sources) - _NUM_NAMED:,} more" if len(sources) > _NUM_NAMED else ""
    return ", ".join(sources[:_NUM_NAMED]) + more if sources else "The corpus"
