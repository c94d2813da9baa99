"""Instruction records, (prompt, target) pairs of several data sets, as one source of the mixture.

A record is a document of two sequences in token shards: its prompt, and its target with an `<eos>` behind it that a row
leaves out. Where it lies is read from the index file with three positioned reads, whatever the number of records.

Data sets are drawn from by size, but a set larger than `cap` counts as one of `cap` records (T0's mixture; GLM-130B,
appendix C.1). An epoch holds min(size, cap) records of each set in the order of a keyed permutation, so every record
that counts is used once before any is used twice; of a capped set each epoch takes the next `cap` records around a
circle, so that these, too, come round before any returns.
"""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from configs.errors import DataError
from configs.objectives import Objective
from data_pipeline.permutation import Permutation
from data_pipeline.rows import Row
from data_pipeline.storage.shard_part import ShardPart

NAME = "data.instructions"
"""Name of the source of instructions, among the names of the corpora."""


class Record(NamedTuple):
    """One prompt and its target."""

    prompt: np.ndarray
    """Token ids of the prompt: (n,) int64."""
    target: np.ndarray
    """Token ids of the target, without `<eos>`: (n,) int64."""


class RecordPlace(NamedTuple):
    """Where a record is stored."""

    data_set: str
    number: int
    """Number of the record in its data set."""
    num_tokens: int
    """Stored tokens of the record, `<eos>` included."""


@dataclass(frozen=True)
class InstructionRow(Row):
    """A row of several records; `start` is 0 and `length` counts their stored tokens."""

    places: tuple[RecordPlace, ...]
    """Places of the row's records, in the order of the row."""


class InstructionSet:
    """The records of one data set.

    Args:
        name: name of the data set; part of the key of its order.
        part: token shards made with two texts a document.
        eos: id of `<eos>`.

    Raises:
        DataError: the shards hold something else.
    """

    def __init__(self, name: str, part: ShardPart, eos: int) -> None:
        self.name = name
        self.part = part
        self._eos = eos
        index = part.shard.index
        if not index.holds_records:
            raise DataError(
                f"{part.shard.prefix} has {index.num_sequences:,} texts in {index.num_documents:,} documents: these are "
                "not (prompt, target) records. Prepare them: python -m data_pipeline prepare FILE --prompt-key prompt "
                f"--target-key target --output {part.shard.prefix} --tokenizer SPEC"
            )

    def __len__(self) -> int:
        """Number of records."""
        return self.part.shard.num_documents

    def num_tokens(self, number: int) -> int:
        """Stored tokens of a record."""
        start, _, stop = self.part.documents.record_at(number)
        return stop - start

    def read(self, number: int) -> Record:
        """Read a record.

        Raises:
            DataError: the shards cannot be read, or are damaged here.
            DataError: an id lies outside of the vocabulary.
        """
        start, middle, stop = self.part.documents.record_at(number)
        tokens = self.part.read(start, stop).astype(np.int64)
        has_eos = stop > middle and tokens[-1] == self._eos
        return Record(tokens[: middle - start], tokens[middle - start : len(tokens) - has_eos])


class InstructionStream:
    """All sets together, as the mixture sees them (the stream of a data_pipeline.dataset.Source)."""

    def __init__(self, sets: Sequence[InstructionSet], cap: int) -> None:
        self.sets = list(sets)
        self._cap = cap
        self._borders = [0, *accumulate(len(each.part) for each in sets)]

    def __len__(self) -> int:
        """Number of tokens."""
        return self._borders[-1]

    def read(self, start: int, stop: int) -> np.ndarray:
        """Tokens [start, stop) of the sets in a row."""
        parts = [
            each.part.read(max(start - first, 0), min(stop - first, len(each.part)))
            for each, first in zip(self.sets, self._borders, strict=False)
            if first < stop and start < first + len(each.part)
        ]
        return np.concatenate(parts)

    @property
    def fingerprint(self) -> str:
        """Changes when the order of records does: with the sets, their tokens and the cap."""
        known = [[each.name, each.part.fingerprint] for each in self.sets]
        text = json.dumps([known, self._cap])
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class Instructions:
    """The rows of instruction records, epoch after epoch.

    Args:
        sets: data sets with unique names.
        cap: most records of a set that an epoch uses.
        records_per_row: number of records in a row.
        seed: seed of the order.
        purpose: part of the key, so that orders for different purposes differ.
    """

    def __init__(
        self,
        sets: Sequence[InstructionSet],
        cap: int,
        records_per_row: int,
        seed: int,
        purpose: str = "train",
    ) -> None:
        self._sets = list(sets)
        self._by_name = {each.name: each for each in sets}
        self.stream = InstructionStream(sets, cap)
        """The stream of the mixture's source."""
        self._counts = counted(sets, cap)
        self._borders = [0, *accumulate(self._counts)]
        self._records_per_row = records_per_row
        self._seed = seed
        self._purpose = purpose

    @property
    def num_rows(self) -> int:
        """Rows per epoch, the last one shared with the next epoch."""
        return -(-self._borders[-1] // self._records_per_row)

    def row(self, index: int) -> InstructionRow:
        """Find the row at position `index` >= 0 of this source."""
        first = index * self._records_per_row
        places = tuple(self._place(first + number) for number in range(self._records_per_row))
        length = sum(place.num_tokens for place in places)
        epoch = first // self._borders[-1]
        return InstructionRow(Objective.MIP, 0, length, epoch, index, places)

    def read(self, row: InstructionRow) -> list[Record]:
        """Read the records of a row.

        Raises:
            DataError: the shards cannot be read.
        """
        return [self._by_name[place.data_set].read(place.number) for place in row.places]

    def _place(self, index: int) -> RecordPlace:
        """The record at position `index` of the endless order."""
        total = self._borders[-1]
        epoch, within = divmod(index, total)
        drawn = _permutation(total, self._seed, self._purpose, "records", epoch)(within)
        which = bisect_right(self._borders, drawn) - 1
        data_set = self._sets[which]
        used = epoch * self._counts[which] + drawn - self._borders[which]
        # The order never changes: an epoch that begins a new round must not repeat a record of the previous round.
        circle = _permutation(len(data_set), self._seed, self._purpose, f"set {data_set.name}", 0)
        number = circle(used % len(data_set))
        return RecordPlace(data_set.name, number, data_set.num_tokens(number))


def counted(sets: Sequence[InstructionSet], cap: int) -> list[int]:
    """How many records of each set an epoch holds."""
    return [min(len(each), cap) for each in sets]


def mean_tokens(sets: Sequence[InstructionSet], cap: int) -> float:
    """Mean number of stored tokens of a record, weighted as records are drawn."""
    counts = counted(sets, cap)
    sums = (count * len(each.part) / len(each) for count, each in zip(counts, sets, strict=True))
    return sum(sums) / sum(counts)


@lru_cache(maxsize=1024)
def _permutation(size: int, seed: int, purpose: str, what: str, epoch: int) -> Permutation:
    return Permutation.of(size, seed, "instructions", purpose, what, epoch)
