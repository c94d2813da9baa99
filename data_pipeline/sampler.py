"""Which samples a rank trains: arithmetic on positions, the same set of samples for every number of ranks.

    index(m, dp_rank, i) = first + (m * dp + dp_rank) * micro_batch_size + i

counts trained samples. Skipped ranges of the data stream lie between trained positions and drawn indices: the learning
rate does not move when data is skipped. (GLM-130B skipped 200 steps of data after a divergence, and kept two counters.)
"""

from collections.abc import Sequence

from configs.errors import DataError

Ranges = Sequence[Sequence[int]]


def micro_batch_indices(
    first: int, number: int, dp: int, dp_rank: int, micro_batch_size: int
) -> range:
    """Trained positions of micro-batch `number` of the step that begins at `first`, on one replica."""
    start = first + (number * dp + dp_rank) * micro_batch_size
    return range(start, start + micro_batch_size)


def drawn_index(trained_index: int, skip_samples: Ranges) -> int:
    """Index in the data stream of the sample at a trained position.

    Args:
        trained_index: how many samples are trained before it.
        skip_samples: ordered, disjoint ranges [a, b) of drawn indices that are passed over.
    """
    index = trained_index
    for start, stop in skip_samples:
        if index < start:
            break
        index += stop - start
    return index


def trained_position(drawn: int, skip_samples: Ranges) -> int | None:
    """Trained position of a sample of the data stream, the inverse of `drawn_index`; None if it is skipped."""
    passed = 0
    for start, stop in skip_samples:
        if start <= drawn < stop:
            return None
        if drawn >= stop:
            passed += stop - start
    return drawn - passed


def samples_drawn(samples_seen: int, skip_samples: Ranges) -> int:
    """Position of the data stream after `samples_seen` trained samples: those plus the ranges passed on the way.

    A range that begins exactly there is not counted yet: until the next sample is drawn it can still be added.
    """
    return drawn_index(samples_seen - 1, skip_samples) + 1 if samples_seen > 0 else 0


def check_skip_samples(skip_samples: Ranges, stored: Ranges, drawn: int) -> None:
    """Refuse a skip range that reaches into samples already drawn.

    Args:
        skip_samples: ranges asked for now.
        stored: ranges that the run so far was trained with.
        drawn: position of the data stream.

    Raises:
        DataError: a range would change what was already trained.
    """
    before = [list(pair) for pair in stored]
    now = [list(pair) for pair in skip_samples]
    for pair in now:
        if pair not in before and pair[0] < drawn:
            raise DataError(
                f"data.skip_samples ({pair}) begins before the current position of the data stream ({drawn:,}). "
                f"Skip from there on: data.skip_samples=[[{drawn},{max(pair[1], drawn + 1)}]], or go back to an "
                "earlier checkpoint with checkpoint.resume=PATH."
            )
    for pair in before:
        if pair not in now and pair[0] < drawn:
            raise DataError(
                f"data.skip_samples lacks the range {pair} that this run has already skipped. Add it again."
            )
