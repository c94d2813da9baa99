"""Which stored tokens a row reads: arithmetic on the row's number, no index file.

Rule `fit` divides a stream of N tokens, once per epoch, between the two objectives:

    rotated stream  |----- [MASK] rows -----|----------- [gMASK] rows -----------|
                    offset                                                       offset + N

The rotation is keyed by the epoch, so slices fall elsewhere each time. A [MASK] row reads at most windows x slice
tokens, a [gMASK] row at most seq_length - 1; the fewest rows that hold N tokens at the asked shares are taken, and
the tokens are spread evenly over them. So every stored token is used exactly once an epoch, and padding stays below
one row per epoch plus what the windows leave. A keyed permutation gives the order of the rows.

Rule `glm_130b` cuts rows of 2000 tokens (of 2048), as the original run; each row draws its objective.
"""

from dataclasses import dataclass

from configs.derive import slice_length
from configs.errors import DataError
from configs.schema import ObjectiveConfig, SliceRule
from configs.validate import GLM_130B_ROW
from data_pipeline.objective import Objective
from data_pipeline.permutation import Permutation
from data_pipeline.rng import rng_for

MIN_TOKENS = 64
_MIN_ROWS = 4


@dataclass(frozen=True)
class Row:
    """What one row reads: `length` tokens of the stream from `start` on, wrapping around at its end."""

    objective: Objective
    start: int
    length: int
    epoch: int
    number: int
    """Which row of its epoch, before permutation."""


@dataclass(frozen=True)
class RowMap:
    """The rows of one source."""

    name: str
    """Name of the source: part of every key."""
    num_tokens: int
    seed: int
    objective: ObjectiveConfig
    num_mask_rows: int
    num_gmask_rows: int
    num_mask_tokens: int

    @classmethod
    def of(
        cls, name: str, num_tokens: int, seq_length: int, objective: ObjectiveConfig, seed: int
    ) -> "RowMap":
        """Plan the epochs of a stream.

        Raises:
            DataError: the stream is too short to train on.
        """
        if num_tokens < MIN_TOKENS:
            raise DataError(
                f"The corpus {name} has {num_tokens} tokens; at least {MIN_TOKENS} are needed. Add text to data.paths."
            )
        if objective.slice_rule is SliceRule.glm_130b:
            row = original_row_length(seq_length)
            return cls(name, num_tokens, seed, objective, 0, max(num_tokens // row, 1), 0)
        window = seq_length // objective.windows_per_row
        mask_row = objective.windows_per_row * slice_length(window)
        gmask_row = seq_length - 1
        mask_rows, gmask_rows = _fewest_rows(num_tokens, mask_row, gmask_row, objective.gmask_share)
        capacity = mask_rows * mask_row + gmask_rows * gmask_row
        mask_tokens = num_tokens * mask_rows * mask_row // capacity
        return cls(name, num_tokens, seed, objective, mask_rows, gmask_rows, mask_tokens)

    @property
    def num_rows(self) -> int:
        """Rows per epoch."""
        return self.num_mask_rows + self.num_gmask_rows

    def row(self, index: int, seq_length: int) -> Row:
        """Find the row at position `index` of this source's endless sequence of epochs."""
        epoch, place = divmod(index, self.num_rows)
        number = Permutation.of(self.num_rows, self.seed, "rows", self.name, epoch)(place)
        if self.objective.slice_rule is SliceRule.glm_130b:
            return self._original_row(epoch, number, seq_length)
        if number < self.num_mask_rows:
            objective, first = Objective.MASK, 0
            tokens, rows, within = self.num_mask_tokens, self.num_mask_rows, number
        else:
            objective, first = Objective.GMASK, self.num_mask_tokens
            tokens, rows = self.num_tokens - self.num_mask_tokens, self.num_gmask_rows
            within = number - self.num_mask_rows
        start, stop = within * tokens // rows, (within + 1) * tokens // rows
        rotation = int(
            rng_for(self.seed, "rotation", self.name, epoch).integers(self.num_tokens)
        )
        begin = (rotation + first + start) % self.num_tokens
        return Row(objective, begin, stop - start, epoch, number)

    def _original_row(self, epoch: int, number: int, seq_length: int) -> Row:
        length = min(original_row_length(seq_length), self.num_tokens)
        draw = rng_for(self.seed, "objective", self.name, epoch, number).random()
        objective = Objective.GMASK if draw < self.objective.gmask_share else Objective.MASK
        return Row(objective, number * length, length, epoch, number)


def original_row_length(seq_length: int) -> int:
    """Stored tokens of a row in the glm_130b rule: 2000 of 2048."""
    numerator, denominator = GLM_130B_ROW
    return seq_length * numerator // denominator


def split_evenly(length: int, parts: int) -> list[tuple[int, int]]:
    """Cut range(length) into `parts` half-open ranges whose sizes differ by at most one."""
    return [(part * length // parts, (part + 1) * length // parts) for part in range(parts)]


def _fewest_rows(
    num_tokens: int, mask_row: int, gmask_row: int, gmask_share: float
) -> tuple[int, int]:
    """Fewest (mask, gmask) rows at the asked share, to the nearest row, that hold `num_tokens`.

    A stream shorter than four rows gets four shorter ones, so that both objectives appear.
    """

    def counts(total: int) -> tuple[int, int]:
        gmask = int(gmask_share * total + 0.5)
        return total - gmask, gmask

    mean = (1 - gmask_share) * mask_row + gmask_share * gmask_row
    total = max(int(num_tokens / mean) - 2, _MIN_ROWS)
    while True:
        mask, gmask = counts(total)
        if mask * mask_row + gmask * gmask_row >= num_tokens:
            return mask, gmask
        total += 1
