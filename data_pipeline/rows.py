"""Which stored tokens a row reads: arithmetic on the row's number, no index file.

Rule `fit` divides a stream of N tokens, once per epoch, among the objectives, evenly interleaved:

    rotated stream  | gMASK | MASK | gMASK | gMASK | MASK | gMASK | ...       | gMASK |
                    offset                                                            offset + N

so that each objective sees all parts of the text in every epoch, and a small held-out set measures all on the same
kind of text. The rotation is keyed by the epoch: slices fall elsewhere each time. A [MASK] row reads at most windows x
slice tokens, a [gMASK] row at most seq_length - 1; the fewest rows that hold N tokens at the asked shares are taken, and
the tokens are spread evenly over them (there is no stub of a row at the end). So every stored token is used exactly
once an epoch. A keyed permutation gives the order of the rows.

Rule `glm_130b` cuts rows of 2000 tokens (of 2048) at fixed places, as the original run, and drops a shorter last one;
each row draws its objective.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from operator import mul

from configs.errors import DataError
from configs.objectives import Objective, text_shares
from configs.schema import ObjectiveConfig, SliceRule
from data_pipeline.objective import maker_of
from data_pipeline.permutation import LocalPermutation, Permutation
from data_pipeline.rng import rng_for
from data_pipeline.windows import original_row_length

MIN_TOKENS = 8
# A stream shorter than this many rows gets as many shorter ones, so that its objectives appear.
MIN_ROWS = 4


@dataclass(frozen=True)
class Row:
    """What one row reads: `length` tokens of the stream from `start` on, wrapping around at its end."""

    objective: Objective
    start: int
    length: int
    epoch: int
    number: int
    """Which row of its epoch, in the order of the text."""


@dataclass(frozen=True)
class Division:
    """How the rows and tokens of an epoch are divided among objectives.

    Of the rows of the text the last objective has its share, evenly interleaved with all others; of those others the
    last but one has its share in the same way, and so on. So any part of the text holds each at its share.
    """

    counts: tuple[int, ...]
    """Rows of each objective."""
    tokens: tuple[int, ...]
    """Stored tokens that the rows of the epoch share."""

    @property
    def num_rows(self) -> int:
        """Rows per epoch."""
        return sum(self.counts)

    def rows_before(self, number: int) -> list[int]:
        """How many of the first `number` rows of the text are of each objective: its share, to the nearest row."""
        before = [0] * len(self.counts)
        rows = self.num_rows
        for which in range(len(self.counts) - 1, 0, -1):
            count = self.counts[which]
            if count:
                before[which] = (2 * number * count + rows) // (2 * rows)
                number -= before[which]
                rows -= count
        before[0] = number
        return before

    def which(self, number: int) -> int:
        """Place in the list of the objective of a row of the text."""
        after = self.rows_before(number + 1)
        changed = (
            now > before for now, before in zip(after, self.rows_before(number), strict=True)
        )
        return list(changed).index(True)

    def nth(self, which: int, index: int) -> int:
        """Number of the row that is the (index + 1)-th of its objective in the text: the inverse of `rows_before`."""
        rows = sum(self.counts[: which + 1])
        if which and self.counts[which]:
            index = -(-rows * (2 * index + 1) // (2 * self.counts[which])) - 1
        for count in self.counts[which + 1 :]:
            # The place among the rows that are left of these and `count` others.
            others, rows = rows, rows + count
            index = rows * (2 * index + 1) // (2 * others)
        return index

    def start_of(self, number: int) -> int:
        """First token of a row of the text; that of the row after the last is the number of tokens."""
        shared = zip(self.rows_before(number), self.counts, self.tokens, strict=True)
        return sum(before * tokens // count for before, count, tokens in shared if count)


class RowMap:
    """The rows of one source, epoch after epoch.

    Args:
        name: name of the source; part of every key.
        num_tokens: length of the stream.
        seq_length: tokens of a row.
        objective: slice rule and share.
        seed: seed of the order.
        locality_rows: rows of the text that are read before others, for disks that seek slowly; 0: of all the text.
        is_validation: the rows of one epoch again and again, the objectives interleaved so that any first k rows hold
            each at its share, to the nearest row.

    Raises:
        DataError: the stream is too short to train on.
    """

    def __init__(
        self,
        name: str,
        num_tokens: int,
        seq_length: int,
        objective: ObjectiveConfig,
        seed: int,
        is_validation: bool = False,
        *,
        locality_rows: int = 0,
    ) -> None:
        if num_tokens < MIN_TOKENS:
            raise DataError(
                f"The corpus {name} has {num_tokens} tokens; at least {MIN_TOKENS} are needed. Add text to data.paths."
            )
        self._name = name
        self._num_tokens = num_tokens
        self._seed = seed
        self._is_validation = is_validation
        self._locality_rows = 0 if is_validation else locality_rows
        self._is_original = objective.slice_rule is SliceRule.glm_130b
        shares = text_shares(objective)
        self.objectives = [each for each, _ in shares]
        """The objectives that divide the rows among them, in the order of `division`."""
        self._shares = [share for _, share in shares]
        self._original_length = min(original_row_length(seq_length), num_tokens)
        if self._is_original:
            counts = _counts(num_tokens // self._original_length, self._shares)
            self.division = Division(counts, (0,) * len(counts))
        else:
            sizes = [maker_of(each).row_tokens(seq_length, objective) for each in self.objectives]
            self.division = divide(num_tokens, sizes, self._shares)

    @property
    def num_rows(self) -> int:
        """Rows per epoch."""
        return self.division.num_rows

    def row(self, index: int) -> Row:
        """Find the row at position `index` >= 0 of this source."""
        epoch, place = divmod(index, self.num_rows)
        if self._is_validation:
            epoch = 0
        return (
            self._original_row(epoch, place) if self._is_original else self._fit_row(epoch, place)
        )

    def _fit_row(self, epoch: int, place: int) -> Row:
        division = self.division
        if self._is_validation:
            number = self._validation_number(place)
        else:
            number = self._permutation(division.num_rows, "rows", epoch)(place)
        start = division.start_of(number)
        length = division.start_of(number + 1) - start
        offset = _rotation(self._seed, self._name, epoch, self._num_tokens)
        objective = self.objectives[division.which(number)]
        return Row(objective, (offset + start) % self._num_tokens, length, epoch, number)

    def _validation_number(self, place: int) -> int:
        """The row at a place of the validation order: its objective by the place, which row of it by permutation."""
        division = self.division
        which = division.which(place)
        within, size = division.rows_before(place)[which], division.counts[which]
        purpose = f"valid {self.objectives[which].key.upper()}"
        return division.nth(which, self._permutation(size, purpose, 0)(within))

    def _original_row(self, epoch: int, place: int) -> Row:
        number = self._permutation(self.num_rows, "rows", epoch)(place)
        if self._is_validation:
            which = self.division.which(place)
        else:
            draw = rng_for(self._seed, "objective", self._name, epoch, number).random()
            borders = list(accumulate(self._shares[1:]))
            which = (bisect_right(borders, draw) + 1) % len(self.objectives)
        length = self._original_length
        return Row(self.objectives[which], number * length, length, epoch, number)

    def _permutation(self, size: int, purpose: str, epoch: int) -> Permutation | LocalPermutation:
        return _permutation_of(size, self._locality_rows, self._seed, purpose, self._name, epoch)


def divide(num_tokens: int, sizes: Sequence[int], shares: Sequence[float]) -> Division:
    """Divide an epoch by the `fit` rule: the fewest rows at the asked shares, to the nearest row, that hold the stream.

    Args:
        num_tokens: length of the stream, at least MIN_TOKENS.
        sizes: stored tokens of a full row of each objective.
        shares: of each objective; the first one has what the others leave.
    """
    largest = max(sizes)
    total = max(num_tokens // largest, MIN_ROWS)
    while True:
        counts = _counts(total, shares)
        held = list(accumulate(map(mul, counts, sizes)))
        if held[-1] >= num_tokens:
            break
        # At least this many rows are missing; one at a time near the end.
        total += max((num_tokens - held[-1]) // largest, 1)
    borders = [0, *(num_tokens * border // held[-1] for border in held)]
    tokens = [
        max(stop - start, count)
        for (start, stop), count in zip(pairwise(borders), counts, strict=True)
    ]
    # No row is empty: in a tiny stream those that have most to spare give up tokens for it.
    while (surplus := sum(tokens) - num_tokens) > 0:
        spare = [held - count for held, count in zip(tokens, counts, strict=True)]
        richest = spare.index(max(spare))
        tokens[richest] -= min(surplus, spare[richest])
    return Division(counts, tuple(tokens))


def _counts(total: int, shares: Sequence[float]) -> tuple[int, ...]:
    """Divide rows, each share but the first to the nearest row."""
    counts: list[int] = []
    for share in shares[1:]:
        counts.append(min(int(share * total + 0.5), total - sum(counts)))
    return total - sum(counts), *counts


# Rows of an epoch are requested one after another, and neighbouring epochs of several sources at the same time.
@lru_cache(maxsize=1024)
def _permutation_of(
    size: int, window: int, seed: int, purpose: str, name: str, epoch: int
) -> Permutation | LocalPermutation:
    if 0 < window < size:
        return LocalPermutation.of(size, window, seed, purpose, name, epoch)
    return Permutation.of(size, seed, purpose, name, epoch)


@lru_cache(maxsize=1024)
def _rotation(seed: int, name: str, epoch: int, num_tokens: int) -> int:
    return int(rng_for(seed, "rotation", name, epoch).integers(num_tokens))
