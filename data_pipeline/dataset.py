"""The data set: sample = f(seed, index), nothing else.

`dataset[i]` can be asked in any order, by any process, at any time, and answers the same; so a resumed run needs one
integer, and every rank computes its own rows. The chain is: mixture (which source), rows (which stored tokens),
windows and spans (what is hidden), blanks (the arrays), packing (the row).
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from configs.objectives import objectives_of, text_shares
from configs.schema import ObjectiveConfig
from data_pipeline import instructions as instruction_data
from data_pipeline.instructions import InstructionRow, Instructions, InstructionStream
from data_pipeline.mip_windows import mip_windows
from data_pipeline.mixing.mixture import Mixture, Stage, with_share
from data_pipeline.objective import Making, maker_of
from data_pipeline.packing import Sample, pack_row
from data_pipeline.rng import rng_for
from data_pipeline.rows import Row, RowMap
from data_pipeline.sentences import SentenceBlanks
from data_pipeline.special_tokens import SpecialTokens
from data_pipeline.storage.shard_part import ShardPart


class TokenStream(Protocol):
    """All stored tokens of one source as one stream, document after document."""

    def __len__(self) -> int:
        """Number of tokens."""
        ...

    def read(self, start: int, stop: int) -> np.ndarray:
        """Tokens [start, stop)."""
        ...

    @property
    def fingerprint(self) -> str:
        """A string that changes when the tokens do."""
        ...


@dataclass(frozen=True)
class Source:
    """A stream with its name and sampling weight."""

    name: str
    stream: TokenStream
    weight: float | None = None
    """Sampling weight; None: the number of rows."""


class GLMDataset:
    """Endless, pure map from index to sample; its length is where the run that it belongs to ends.

    Args:
        sources: streams with unique names (a name is part of every key: renaming a source changes its order).
        special: special tokens of their tokenizer.
        objective: how rows are made.
        seq_length: tokens per row.
        seed: seed of every random choice.
        stages: weights that change along the stream, one per source; None: the sources' own weights throughout.
        ramp_samples: over how many samples the weights move from a stage's start on.
        sentences: required if the objective hides sentences.
        locality_rows: rows of a source's text that are read before others; 0: of all of it.
        instructions: an additional source of prompts and targets.
        instruction_shares: share of its rows from a drawn index on, the first from 0; the others keep the rest.
        is_validation: a fixed set of rows, the same in every pass, with the objectives evenly interleaved; see
            `GLMDataset.validation`.
        num_samples: length; None: `rows_per_epoch`.

    Raises:
        DataError: a source is too short.
        ConfigError: the spans that are asked for hardly ever fit.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        special: SpecialTokens,
        objective: ObjectiveConfig,
        seq_length: int,
        seed: int,
        *,
        stages: Sequence[Stage] | None = None,
        ramp_samples: int = 0,
        sentences: SentenceBlanks | None = None,
        locality_rows: int = 0,
        instructions: Instructions | None = None,
        instruction_shares: Sequence[tuple[int, float]] = (),
        is_validation: bool = False,
        num_samples: int | None = None,
    ) -> None:
        names = [source.name for source in sources]
        assert len(set(names)) == len(names), f"the sources {names} must have unique names"
        self.objectives = objectives_of(objective)
        """The objectives that rows may have, numbered as in samples."""
        self._numbers = {each: number for number, each in enumerate(self.objectives)}
        for each, share in text_shares(objective):
            if share > 0:
                maker_of(each).check(seq_length, objective)
        self._sources = list(sources)
        self._special = special
        self._objective = objective
        self._making = Making(objective, seq_length, special, sentences)
        self._seq_length = seq_length
        self._seed = seed
        self._locality_rows = locality_rows
        self._num_samples = num_samples
        self._purpose = "validation sample" if is_validation else "sample"
        self._rows: list[RowMap | Instructions] = [
            RowMap(
                source.name,
                len(source.stream),
                seq_length,
                objective,
                seed,
                is_validation,
                locality_rows=locality_rows,
            )
            for source in self._sources
        ]
        own_weights = [
            rows.num_rows if source.weight is None else source.weight
            for source, rows in zip(self._sources, self._rows, strict=True)
        ]
        stages = stages or [Stage(0, tuple(own_weights))]
        self._instructions = instructions
        if instructions is not None:
            self._sources.append(Source(instruction_data.NAME, instructions.stream))
            self._rows.append(instructions)
            stages = with_share(stages, instruction_shares)
        self._mixture = Mixture(stages, ramp_samples)

    @classmethod
    def validation(
        cls,
        sources: Sequence[Source],
        special: SpecialTokens,
        objective: ObjectiveConfig,
        seq_length: int,
        seed: int,
    ) -> "GLMDataset":
        """Open held-out streams as a fixed set of rows.

        Any first k rows of a source hold each objective at its share, to the nearest row, so that a small evaluation
        measures both. Rows, spans and order are keyed apart from those of training.
        """
        return cls(sources, special, objective, seq_length, seed, is_validation=True)

    def __len__(self) -> int:
        """Samples that the run draws, including those it skips; larger indices are valid samples as well."""
        return self.rows_per_epoch if self._num_samples is None else self._num_samples

    def __iter__(self) -> Iterator[Sample]:
        """Yield the samples that the length counts."""
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Sample:
        """Build the sample at `index` >= 0.

        Raises:
            IndexError: it is negative.
            DataError: a shard cannot be read.
        """
        if index < 0:
            raise IndexError(f"sample {index} of a stream that begins at 0")
        source, row = self.locate(index)
        pad = self._special.pad
        if isinstance(row, InstructionRow):
            assert self._instructions is not None, "only instructions have such rows"
            records = self._instructions.read(row)
            windows = mip_windows(
                records, self._making.window_length, self._objective, self._special
            )
            numbers = [self._numbers[row.objective]] * len(windows)
            return pack_row(windows, self._seq_length, pad, row.objective, index, numbers=numbers)
        tokens = _read(source.stream, row)
        rng = rng_for(self._seed, self._purpose, source.name, row.epoch, row.number)
        made = maker_of(row.objective).windows(rng, tokens, self._making)
        kinds = made.objectives or [row.objective] * len(made.segments)
        numbers = [self._numbers[each] for each in kinds]
        return pack_row(
            made.segments, self._seq_length, pad, row.objective, index, made.redraws, numbers
        )

    def count_as(self, counted: Sequence[str]) -> None:
        """Count windows of objectives that a run does not report by themselves under the objective that they belong to.

        Args:
            counted: keys of the objectives that it counts.
        """
        by_key = {each.key: number for number, each in enumerate(self.objectives)}
        self._numbers = {
            each: by_key[each.key if each.key in counted else each.part_of or each.key]
            for each in self.objectives
        }

    def locate(self, index: int) -> tuple[Source, Row]:
        """Return the source that a sample is read from, and which of its stored tokens."""
        source_number, within = self._mixture.locate(index)
        return self._sources[source_number], self._rows[source_number].row(within)

    def source_of(self, index: int) -> str:
        """Name of the source that a sample is read from."""
        return self._sources[self._mixture.locate(index)[0]].name

    @property
    def sources(self) -> Sequence[Source]:
        """All sources, the instructions last."""
        return self._sources

    @property
    def rows_per_epoch(self) -> int:
        """Number of rows that use every stored token of every source once."""
        return sum(rows.num_rows for rows in self._rows)

    def shares_at(self, index: int) -> dict[str, float]:
        """Share of each source, by name, that is asked for at a drawn index."""
        shares = self._mixture.shares_at(index)
        return {source.name: share for source, share in zip(self._sources, shares, strict=True)}

    @property
    def fingerprint(self) -> str:
        """Changes when the stored tokens or what they mean do; not with settings, which a run may change."""
        shards = [[source.name, source.stream.fingerprint] for source in self._sources]
        text = json.dumps([shards, self._special.to_dict()], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def describe(self) -> dict[str, Any]:
        """Everything that the order of samples depends on, as plain JSON; kept in checkpoints beside the positions."""
        objective = {
            key: getattr(value, "value", value)
            for key, value in asdict(self._objective).items()
            # The weighting concerns the loss, not the samples. Without further objectives the description has no entry
            # for them.
            if key != "loss_weighting" and (key != "shares" or value)
        }
        return {
            "seed": self._seed,
            "seq_length": self._seq_length,
            "locality_rows": self._locality_rows,
            "objective": objective,
            "special_tokens": self._special.to_dict(),
            "fingerprint": self.fingerprint,
            "sources": [
                {
                    "name": source.name,
                    "tokens": len(source.stream),
                    "rows_per_epoch": rows.num_rows,
                    "fingerprint": source.stream.fingerprint,
                    "files": {
                        f"{name}.{ending}": [stamp.size, stamp.mtime_ns]
                        for name, part in shard_parts(source.stream)
                        for ending, stamp in part.stamps.items()
                    },
                }
                for source, rows in zip(self._sources, self._rows, strict=True)
            ],
            "mixture": self._mixture.describe(),
        }


def shard_parts(stream: TokenStream) -> list[tuple[str, ShardPart]]:
    """The shard parts that a source reads, each with the name of its data set ("" for a corpus of text)."""
    if isinstance(stream, ShardPart):
        return [("", stream)]
    if isinstance(stream, InstructionStream):
        return [(each.name, each.part) for each in stream.sets]
    return []


def _read(stream: TokenStream, row: Row) -> np.ndarray:
    """Read a row's tokens, wrapping around at the end of the stream: (length,) int64."""
    stop = row.start + row.length
    size = len(stream)
    if stop <= size:
        return np.asarray(stream.read(row.start, stop), dtype=np.int64)
    parts = (stream.read(row.start, size), stream.read(0, stop - size))
    return np.concatenate(parts).astype(np.int64)
