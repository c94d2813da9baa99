"""The data set: sample = f(seed, index), nothing else.

`dataset[i]` can be asked in any order, by any process, at any time, and answers the same; so a resumed run needs one
integer, and every rank computes its own rows. The chain is: mixture (which source), rows (which stored tokens),
spans (what is hidden), blanks (the arrays), packing (the row).
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from configs.schema import ObjectiveConfig, SliceRule
from data_pipeline.blanks import Segment, gmask_segment, mask_segment
from data_pipeline.mixture import Mixture
from data_pipeline.objective import Objective
from data_pipeline.packing import Sample, pack_row
from data_pipeline.rng import rng_for
from data_pipeline.rows import Row, RowMap, split_evenly
from data_pipeline.spans import draw_lengths, draw_plan, place_spans
from data_pipeline.special_tokens import SpecialTokens

# The original never shortens a slice below this.
_SHORTEST_SLICE = 32


class TokenStream(Protocol):
    """All stored tokens of one source in a row, document after document."""

    def __len__(self) -> int:
        """Number of tokens."""
        ...

    def read(self, start: int, stop: int) -> np.ndarray:
        """Tokens [start, stop)."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes when the tokens do."""
        ...


@dataclass(frozen=True)
class Source:
    """A stream with its name and sampling weight."""

    name: str
    stream: TokenStream
    weight: float | None = None
    """None: by the number of rows."""


class GLMDataset:
    """Endless, pure map from index to sample.

    Args:
        sources: streams with unique names.
        special: special tokens of their tokenizer.
        objective: how rows are made.
        seq_length: tokens per row.
        seed: of every random choice.

    Raises:
        DataError: a source is too short.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        special: SpecialTokens,
        objective: ObjectiveConfig,
        seq_length: int,
        seed: int,
    ) -> None:
        self._sources = list(sources)
        self._special = special
        self._objective = objective
        self._seq_length = seq_length
        self._seed = seed
        self._rows = [
            RowMap.of(source.name, len(source.stream), seq_length, objective, seed)
            for source in self._sources
        ]
        by_size = [float(rows.num_rows) for rows in self._rows]
        given = [source.weight for source in self._sources]
        self._weights = [
            size if weight is None else weight for weight, size in zip(given, by_size, strict=True)
        ]
        self._mixture = Mixture.of(self._weights)

    def __getitem__(self, index: int) -> Sample:
        """Build the sample at `index` >= 0."""
        number, within = self._mixture.locate(index)
        source = self._sources[number]
        row = self._rows[number].row(within, self._seq_length)
        tokens = _read(source.stream, row)
        rng = rng_for(self._seed, "sample", source.name, row.epoch, row.number)
        if row.objective is Objective.GMASK:
            segment = self._gmask(rng, tokens)
            return self._pack([[segment]], Objective.GMASK, index, 0)
        build = (
            self._original_window
            if self._objective.slice_rule is SliceRule.glm_130b
            else self._fit_window
        )
        windows, redraws = [], 0
        for start, stop in split_evenly(len(tokens), self._objective.windows_per_row):
            segments, rejected = build(rng, tokens[start:stop])
            windows.append(segments)
            redraws += rejected
        return self._pack(windows, Objective.MASK, index, redraws)

    @property
    def rows_per_epoch(self) -> int:
        """Rows until every stored token was used once."""
        return sum(rows.num_rows for rows in self._rows)

    @property
    def fingerprint(self) -> str:
        """Changes when any sample could change."""
        text = json.dumps(self.describe(), sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def describe(self) -> dict[str, Any]:
        """The data state beside the positions: what a checkpoint must find again."""
        return {
            "seed": self._seed,
            "seq_length": self._seq_length,
            "objective": {
                key: getattr(value, "value", value)
                for key, value in asdict(self._objective).items()
                if key != "loss_weighting"
            },
            "special_tokens": self._special.to_dict(),
            "sources": [
                {
                    "name": source.name,
                    "tokens": len(source.stream),
                    "fingerprint": source.stream.fingerprint,
                    "weight": weight,
                }
                for source, weight in zip(self._sources, self._weights, strict=True)
            ],
        }

    def _pack(
        self, windows: list[list[Segment]], objective: Objective, index: int, redraws: int
    ) -> Sample:
        return pack_row(windows, self._seq_length, self._special.pad, objective, index, redraws)

    def _gmask(self, rng: np.random.Generator, tokens: np.ndarray) -> Segment:
        # The target's length is uniform on [0.2 n, n], both ends included: the context may be empty.
        shortest = max(int(self._objective.gmask_min_fraction * len(tokens)), 1)
        length = int(rng.integers(shortest, len(tokens) + 1))
        return gmask_segment(tokens, len(tokens) - length, self._special)

    def _fit_window(
        self, rng: np.random.Generator, tokens: np.ndarray
    ) -> tuple[list[Segment], int]:
        """One segment, or rarely two short ones side by side; nothing is dropped."""
        if len(tokens) == 0:
            return [], 0
        pieces = [tokens]
        is_short = rng.random() < self._objective.short_segment_probability
        if is_short and len(tokens) >= 2 * _SHORTEST_SLICE:
            cut = int(rng.integers(_SHORTEST_SLICE, len(tokens) - _SHORTEST_SLICE + 1))
            pieces = [tokens[:cut], tokens[cut:]]
        window = self._seq_length // self._objective.windows_per_row
        # Markers get room in proportion: a piece of n tokens may fill n / total of the window.
        segments, redraws = [], 0
        for piece in pieces:
            room = window * len(piece) // len(tokens)
            lengths, rejected = draw_plan(rng, len(piece), max(room, len(piece) + 2), self._objective)
            redraws += rejected
            segments.append(self._mask(rng, piece, lengths))
        return segments, redraws

    def _original_window(
        self, rng: np.random.Generator, tokens: np.ndarray
    ) -> tuple[list[Segment], int]:
        """One segment, cut to its window: most slices of 500 lose the end of their last targets."""
        if rng.random() < self._objective.short_segment_probability and len(tokens) > _SHORTEST_SLICE:
            tokens = tokens[: int(rng.integers(_SHORTEST_SLICE, len(tokens)))]
        if len(tokens) == 0:
            return [], 0
        lengths = draw_lengths(rng, len(tokens), self._objective)
        window = self._seq_length // self._objective.windows_per_row
        return [self._mask(rng, tokens, lengths).cut(window)], 0

    def _mask(
        self, rng: np.random.Generator, tokens: np.ndarray, lengths: np.ndarray
    ) -> Segment:
        starts, ends = place_spans(rng, len(tokens), lengths)
        order = rng.permutation(len(lengths))
        return mask_segment(tokens, starts, ends, order, self._special)


def _read(stream: TokenStream, row: Row) -> np.ndarray:
    """Read a row's tokens, going on at the front of the stream where it ends."""
    stop = row.start + row.length
    size = len(stream)
    if stop <= size:
        return np.asarray(stream.read(row.start, stop), dtype=np.int64)
    parts = (stream.read(row.start, size), stream.read(0, stop - size))
    return np.concatenate(parts).astype(np.int64)
