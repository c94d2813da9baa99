"""What a stretch of the data stream will be: lengths, shares, targets, padding, for any range of samples to come.

python -m data_pipeline stats runs/default --from 100000 --to 200000
"""

# pyright: basic
# NumPy's index arithmetic has no useful types in strict mode.
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from configs.terminal import visible
from data_pipeline.dataset import GLMDataset
from data_pipeline.packing import Sample
from data_pipeline.rng import rng_for
from data_pipeline.rows import Row

_QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)


@dataclass
class Lengths:
    """How often each length was seen: as small as lengths are few, for any number of them."""

    counts: Counter[int] = field(default_factory=Counter[int])

    def add(self, lengths: np.ndarray) -> None:
        """Count lengths: (n,) integers."""
        self.counts.update(lengths.tolist())

    def describe(self) -> list[str]:
        """Count, mean and quantiles, ready to print."""
        total = sum(self.counts.values())
        if not total:
            return ["0"] + ["-"] * (1 + len(_QUANTILES))
        mean = sum(length * count for length, count in self.counts.items()) / total
        lengths = sorted(self.counts)
        below = np.cumsum([self.counts[length] for length in lengths])
        ranks = [max(int(np.ceil(share * total)), 1) for share in _QUANTILES]
        found = [lengths[int(np.searchsorted(below, rank))] for rank in ranks]
        return [f"{total:,}", f"{mean:,.1f}", *(f"{length:,}" for length in found)]


@dataclass
class Shares:
    """Sums of one group of samples."""

    samples: int = 0
    stored: int = 0
    """Stored tokens that were read from the corpus."""
    targets: int = 0
    padding: int = 0


class Statistics:
    """Collects the statistics of samples, one by one."""

    def __init__(self) -> None:
        self.num_tokens = 0
        self.redraws = 0
        self.objectives: dict[str, Shares] = {}
        self.sources: dict[str, Shares] = {}
        self.epochs: dict[str, tuple[int, int]] = {}
        """First and last epoch of each source."""
        self.segments, self.contexts = Lengths(), Lengths()
        self.spans: dict[str, Lengths] = {}
        self.targets: dict[str, Lengths] = {}

    def add(self, sample: Sample, source: str, row: Row) -> None:
        """Count one sample."""
        name = sample.objective.label
        num_targets = int(sample.loss_mask.sum())
        padding = int((sample.segment_ids == 0).sum())
        for shares in (
            self.objectives.setdefault(name, Shares()),
            self.sources.setdefault(source, Shares()),
        ):
            shares.samples += 1
            shares.stored += row.length
            shares.targets += num_targets
            shares.padding += padding
        self.num_tokens += len(sample.tokens)
        self.redraws += sample.redraws
        first, last = self.epochs.get(source, (row.epoch, row.epoch))
        self.epochs[source] = (min(first, row.epoch), max(last, row.epoch))
        self.segments.add(np.bincount(sample.segment_ids)[1:])
        self.contexts.add(np.bincount(sample.segment_ids[sample.is_context], minlength=1)[1:])
        self.targets.setdefault(name, Lengths()).add(np.array([num_targets]))
        self.spans.setdefault(name, Lengths()).add(_span_lengths(sample))


def gather(dataset: GLMDataset, indices: Iterable[int]) -> Statistics:
    """Build samples and collect their statistics."""
    statistics = Statistics()
    for index in indices:
        source, row = dataset.locate(index)
        statistics.add(dataset[index], source.name, row)
    return statistics


def chosen_indices(start: int, stop: int, most: int) -> Sequence[int]:
    """All indices of [start, stop), or `most` of them: one anywhere in each of as many equal parts.

    At equal distances they could keep step with the mixture's cycle and see one source only.
    """
    count = stop - start
    if count <= most:
        return range(start, stop)
    rng = rng_for(0, "stats", start, stop, most)
    borders = [start + number * count // most for number in range(most + 1)]
    return [int(rng.integers(first, last)) for first, last in pairwise(borders)]


def render(statistics: Statistics, width: int | None = None) -> str:
    """Render the tables.

    Args:
        statistics: what was counted.
        width: of the terminal; wider tables have names on lines of their own. None: they do not.
    """
    samples = sum(shares.samples for shares in statistics.objectives.values())
    lengths = [
        ("segments", statistics.segments),
        ("contexts", statistics.contexts),
        *((f"targets per {name} span", found) for name, found in sorted(statistics.spans.items())),
        *((f"targets per {name} row", found) for name, found in sorted(statistics.targets.items())),
    ]
    header = ["", "count", "mean", "min", "5 %", "median", "95 %", "max"]
    tables = [
        table(_shares("objective", statistics.objectives, statistics.num_tokens, None), width),
        table(
            _shares("source", statistics.sources, statistics.num_tokens, statistics.epochs), width
        ),
        table([header, *([name, *found.describe()] for name, found in lengths)], width),
        f"Span plans redrawn: {statistics.redraws:,} ({statistics.redraws / max(samples, 1):.2f} a sample)",
    ]
    return "\n\n".join(tables)


def table(rows: Sequence[Sequence[str]], width: int | None = None) -> str:
    """Align columns: the first to the left, the others to the right.

    Args:
        rows: of cells.
        width: if the table is wider, the first cell of each row goes on a line of its own.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if width is not None and sum(widths) + 2 * (len(widths) - 1) > width:
        return "\n".join(
            f"{row[0]}\n".lstrip("\n") + "  ".join(["", *map(str.rjust, row[1:], widths[1:])])
            for row in rows
        )
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in rows
    )


def _shares(
    title: str,
    groups: dict[str, Shares],
    num_tokens: int,
    epochs: dict[str, tuple[int, int]] | None,
) -> list[list[str]]:
    total = Shares()
    for shares in groups.values():
        total.samples += shares.samples
        total.stored += shares.stored
        total.targets += shares.targets
        total.padding += shares.padding
    size = num_tokens / max(total.samples, 1)
    header = [title, "samples", "share", "stored", "targets", "of stored", "padding"]
    rows = [header + (["epochs"] if epochs is not None else [])]
    named = sorted(groups.items(), key=lambda item: -item[1].samples)
    for name, shares in [*named, *([("all", total)] if len(named) > 1 else [])]:
        cells = [
            visible(name, keep=""),
            f"{shares.samples:,}",
            f"{shares.samples / max(total.samples, 1):.2%}",
            f"{shares.stored:,}",
            f"{shares.targets:,}",
            f"{shares.targets / max(shares.stored, 1):.1%}",
            f"{shares.padding / max(shares.samples * size, 1):.1%}",
        ]
        if epochs is not None:
            first, last = epochs.get(name, (0, -1))
            cells.append(
                "" if last < first else f"{first:,}" if first == last else f"{first:,}-{last:,}"
            )
        rows.append(cells)
    return rows


def _span_lengths(sample: Sample) -> np.ndarray:
    """Targets that follow each `<sop>`, `<eop>` included: (num_spans,)."""
    inside = np.flatnonzero(sample.loss_mask)
    firsts = np.flatnonzero(sample.block_position_ids[inside] == 1)
    return np.diff(np.append(firsts, len(inside)))
