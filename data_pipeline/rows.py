"""Which stored tokens a row reads: arithmetic on the row's number, no index file.

Rule `fit` divides a stream of N tokens, once per epoch, between the two objectives, evenly interleaved:

    rotated stream  | gMASK | MASK | gMASK | gMASK | MASK | gMASK | ...       | gMASK |
                    offset                                                            offset + N

so that each objective sees all parts of the text in every epoch, and a small held-out set measures both on the same
kind of text. The rotation is keyed by the epoch: slices fall elsewhere each time. A [MASK] row reads at most windows x
slice tokens, a [gMASK] row at most seq_length - 1; the fewest rows that hold N tokens at the asked share are taken, and
the tokens are spread evenly over them (there is no stub of a row at the end). So every stored token is used exactly
once an epoch. A keyed permutation gives the order of the rows.

Rule `glm_130b` cuts rows of 2000 tokens (of 2048) at fixed places, as the original run, and drops a shorter last one;
each row draws its objective.
"""

from dataclasses import dataclass
from functools import lru_cache

from configs.derive import slice_length
from configs.errors import DataError
from configs.schema import ObjectiveConfig, SliceRule
from data_pipeline.objective import Objective
from data_pipeline.permutation import LocalPermutation, Permutation
from data_pipeline.rng import rng_for
from data_pipeline.windows import original_row_length

MIN_TOKENS = 8
# A stream shorter than this many rows gets as many shorter ones, so that both objectives appear.
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
    """How many rows of each objective an epoch has, and how many tokens the [MASK] rows share."""

    num_mask_rows: int
    num_gmask_rows: int
    num_mask_tokens: int

    @property
    def num_rows(self) -> int:
        """Rows per epoch."""
        return self.num_mask_rows + self.num_gmask_rows

    def gmask_rows_before(self, number: int) -> int:
        """How many of the first `number` rows of the text are [gMASK]: their share, to the nearest row."""
        rows = self.num_rows
        return (2 * number * self.num_gmask_rows + rows) // (2 * rows)

    def objective_of(self, number: int) -> Objective:
        """Objective of a row of the text."""
        is_gmask = self.gmask_rows_before(number + 1) > self.gmask_rows_before(number)
        return Objective.GMASK if is_gmask else Objective.MASK

    def nth(self, objective: Objective, index: int) -> int:
        """Number of the row that is the (index + 1)-th of its objective in the text: undoes `gmask_rows_before`."""
        rows = self.num_rows * (2 * index + 1)
        if objective is Objective.GMASK:
            return -(-rows // (2 * self.num_gmask_rows)) - 1
        return rows // (2 * self.num_mask_rows)

    def start_of(self, number: int, num_tokens: int) -> int:
        """First token of a row of the text; that of the row after the last is `num_tokens`."""
        gmask = self.gmask_rows_before(number)
        num_gmask_tokens = num_tokens - self.num_mask_tokens
        return (number - gmask) * self.num_mask_tokens // max(self.num_mask_rows, 1) + (
            gmask * num_gmask_tokens // max(self.num_gmask_rows, 1)
        )


class RowMap:
    """The rows of one source, epoch after epoch.

    Args:
        name: of the source; part of every key.
        num_tokens: length of the stream.
        seq_length: tokens of a row.
        objective: slice rule and share.
        seed: of the order.
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
        self._gmask_share = objective.gmask_share
        self._original_length = min(original_row_length(seq_length), num_tokens)
        if self._is_original:
            gmask, mask = _shares(num_tokens // self._original_length, objective.gmask_share)
            self.division = Division(mask, gmask, 0)
        else:
            self.division = divide(num_tokens, seq_length, objective)

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
        start = division.start_of(number, self._num_tokens)
        length = division.start_of(number + 1, self._num_tokens) - start
        offset = _rotation(self._seed, self._name, epoch, self._num_tokens)
        objective = division.objective_of(number)
        return Row(objective, (offset + start) % self._num_tokens, length, epoch, number)

    def _validation_number(self, place: int) -> int:
        """The row at a place of the validation order: its objective by the place, which row of it by permutation."""
        division = self.division
        objective, within = division.objective_of(place), division.gmask_rows_before(place)
        size = division.num_gmask_rows
        if objective is Objective.MASK:
            within, size = place - within, division.num_mask_rows
        return division.nth(
            objective, self._permutation(size, f"valid {objective.name}", 0)(within)
        )

    def _original_row(self, epoch: int, place: int) -> Row:
        number = self._permutation(self.num_rows, "rows", epoch)(place)
        if self._is_validation:
            objective = self.division.objective_of(place)
        else:
            draw = rng_for(self._seed, "objective", self._name, epoch, number).random()
            objective = Objective.GMASK if draw < self._gmask_share else Objective.MASK
        length = self._original_length
        return Row(objective, number * length, length, epoch, number)

    def _permutation(self, size: int, purpose: str, epoch: int) -> Permutation | LocalPermutation:
        return _permutation_of(size, self._locality_rows, self._seed, purpose, self._name, epoch)


def divide(num_tokens: int, seq_length: int, objective: ObjectiveConfig) -> Division:
    """Divide an epoch by the `fit` rule: the fewest rows at the asked share, to the nearest row, that hold the stream.

    Args:
        num_tokens: length of the stream, at least MIN_TOKENS.
        seq_length: tokens of a row.
        objective: share of [gMASK] rows, windows per row.
    """
    mask_row = objective.windows_per_row * slice_length(seq_length // objective.windows_per_row)
    gmask_row = seq_length - 1  # [gMASK] itself takes one place
    largest = max(mask_row, gmask_row)
    total = max(num_tokens // largest, MIN_ROWS)
    while True:
        gmask, mask = _shares(total, objective.gmask_share)
        capacity = mask * mask_row + gmask * gmask_row
        if capacity >= num_tokens:
            break
        # At least this many rows are missing; one at a time near the end.
        total += max((num_tokens - capacity) // largest, 1)
    mask_tokens = max(num_tokens * mask * mask_row // capacity, mask)
    return Division(mask, gmask, mask_tokens)


def _shares(total: int, gmask_share: float) -> tuple[int, int]:
    """Divide rows into ([gMASK], [MASK]), to the nearest row."""
    gmask = int(gmask_share * total + 0.5)
    return gmask, total - gmask


# Rows of an epoch are asked one after another, and neighbouring epochs of several sources at the same time.
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
