"""A long run of ten corpora that changes on its way: its samples are the same for every number of ranks and attempts.

The weights change twice, the tenth corpus comes in at drawn sample 50,000, a range is skipped and the batch grows. The
first attempts know nothing of what comes later.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pytest

from configs.schema import Config, ObjectiveConfig
from data_pipeline.dataset import GLMDataset, Source
from data_pipeline.mixing.mixture import Stage
from data_pipeline.sampler import drawn_index, micro_batch_indices, samples_drawn
from tests.helpers.streams import FIRST_TOKEN, CountingStream
from tests.helpers.tiny import SPECIAL
from train.batches import BatchStream
from train.plan import TrainingPlan
from train.topology import Topology

SEQ_LENGTH = 64
SIZES = [700_000, 410_000, 333_333, 120_000, 99_999, 50_001, 20_000, 4_321, 800, 250_000]
# Nine corpora at odd weights; others from an odd place on; and the tenth.
STAGES = [
    Stage(0, (0.31, 0.2, 0.17, 0.1, 0.08, 0.06, 0.05, 0.025, 0.005, 0.0)),
    Stage(23_457, (0.25, 0.25, 0.17, 0.11, 0.09, 0.05, 0.05, 0.025, 0.005, 0.0)),
    Stage(50_000, (0.2, 0.22, 0.15, 0.1, 0.08, 0.05, 0.05, 0.02, 0.005, 0.125)),
]
ADDED_AT = 50_000
SKIPPED = [[30_000, 30_517]]
BATCH, LARGER_BATCH = 48, 96
# Trained samples: a whole number of steps of either size.
SKIP_KNOWN_FROM, ADDED_KNOWN_FROM, BATCH_CHANGE, LAST = 29_952, 49_440, 49_920, 56_064
NUM_DRAWN = samples_drawn(LAST, SKIPPED)


@dataclass(frozen=True)
class Attempt:
    """What a run knows when it starts at a position."""

    num_sources: int
    stages: tuple[Stage, ...]
    skipped: list[list[int]]
    batch_size: int

    @classmethod
    def from_position(cls, seen: int) -> "Attempt":
        has_added = seen >= ADDED_KNOWN_FROM
        num_sources = 10 if has_added else 9
        return cls(
            num_sources,
            tuple(
                Stage(stage.first_sample, stage.weights[:num_sources])
                for stage in (STAGES if has_added else STAGES[:2])
            ),
            SKIPPED if seen >= SKIP_KNOWN_FROM else [],
            LARGER_BATCH if seen >= BATCH_CHANGE else BATCH,
        )

    def open(self) -> GLMDataset:
        sources = [
            Source(f"corpus {number}", CountingStream(size))
            for number, size in enumerate(SIZES[: self.num_sources])
        ]
        objective = ObjectiveConfig()
        return GLMDataset(sources, SPECIAL, objective, SEQ_LENGTH, 5, stages=self.stages)

    def tokens_of_step(self, seen: int, dp: int, micro_batch_size: int) -> dict[int, np.ndarray]:
        """What all replicas train in the step after `seen` samples, by drawn index, as training gets it."""
        config = Config()
        config.optim.global_batch_size = self.batch_size
        config.optim.total_samples = LAST
        plan = TrainingPlan.from_config(config)
        rows: dict[int, np.ndarray] = {}
        for rank in range(dp):
            topology = Topology(1, 1, dp, rank)
            stream = BatchStream(self.open(), plan, topology, micro_batch_size, self.skipped, seen)
            step = stream.next_step()
            stream.close()
            for batch in step.micro_batches:
                for row, index in enumerate(batch.sample_index.tolist()):
                    assert index not in rows
                    rows[index] = np.stack([batch.tokens[row], batch.targets[row]])
        return rows


@lru_cache(maxsize=1)
def whole_run() -> list[tuple[str, int, int, int, int]]:
    """(source, epoch, number, start, length) of every drawn sample, from the configuration of the last attempt."""
    dataset = Attempt.from_position(LAST).open()
    found = []
    for index in range(NUM_DRAWN):
        source, row = dataset.locate(index)
        found.append((source.name, row.epoch, row.number, row.start, row.length))
    return found


@pytest.mark.parametrize(("dp", "micro_batch_size"), [(1, 4), (2, 3), (3, 2), (8, 6)])
def test_every_layout_and_every_attempt_trains_the_same_samples(dp: int, micro_batch_size: int):
    whole = Attempt.from_position(LAST).open()
    # The edges of every attempt, the stages, the skipped range; and places between, others for each layout.
    starts = [0, 23_424, SKIP_KNOWN_FROM, 30_000, ADDED_KNOWN_FROM - BATCH, ADDED_KNOWN_FROM]
    starts += [49_440 + BATCH, BATCH_CHANGE - BATCH, BATCH_CHANGE, LAST - LARGER_BATCH]
    starts += [BATCH * int(step) for step in np.random.default_rng(dp).integers(1000, size=3)]
    for seen in starts:
        attempt = Attempt.from_position(seen)
        rows = attempt.tokens_of_step(seen, dp, micro_batch_size)
        positions = range(seen, seen + attempt.batch_size)
        assert sorted(rows) == [drawn_index(position, SKIPPED) for position in positions]
        for index, row in rows.items():
            sample = whole[index]
            assert (row == np.stack([sample.tokens, sample.targets])).all()


@pytest.mark.parametrize("dp", [1, 2, 3, 8])
def test_every_position_is_trained_once_whatever_the_layout(dp: int):
    trained: list[int] = []
    seen = 0
    while seen < LAST:
        size = Attempt.from_position(seen).batch_size
        for number in range(size // (2 * dp)):
            for rank in range(dp):
                trained += micro_batch_indices(seen, number, dp, rank, 2)
        seen += size
    assert trained == list(range(LAST))


def test_every_earlier_attempt_would_have_drawn_the_same():
    expected = whole_run()
    for until in (SKIP_KNOWN_FROM, ADDED_KNOWN_FROM):
        dataset = Attempt.from_position(until - BATCH).open()
        for index in range(0, samples_drawn(until, SKIPPED), 7):
            source, row = dataset.locate(index)
            found = (source.name, row.epoch, row.number, row.start, row.length)
            assert found == expected[index]


def test_every_prefix_is_within_one_sample_of_the_weights():
    names = [f"corpus {number}" for number in range(10)]
    is_source = np.array([[name == found[0] for name in names] for found in whole_run()])
    weights = np.zeros((NUM_DRAWN, 10))
    for stage in STAGES:
        weights[stage.first_sample :] = stage.weights
    distance = np.abs(np.cumsum(is_source, axis=0) - np.cumsum(weights, axis=0))
    assert distance.max() < 1
    assert not is_source[:ADDED_AT, 9].any() and is_source[ADDED_AT:, 9].any()


def test_no_token_is_read_twice_in_an_epoch_and_all_before_any_again():
    reads: dict[tuple[str, int], list[tuple[int, int]]] = {}
    last_epoch: dict[str, int] = {}
    for name, epoch, _, start, length in whole_run():
        assert epoch in (last_epoch.get(name, 0), last_epoch.get(name, 0) + 1)
        last_epoch[name] = epoch
        reads.setdefault((name, epoch), []).append((start, start + length))
    for (name, epoch), stretches in reads.items():
        size = SIZES[int(name.split()[1])]
        stretches.sort()
        following = [*stretches[1:], (stretches[0][0] + size, 0)]
        assert all(
            stop <= after for (_, stop), (after, _) in zip(stretches, following, strict=True)
        )
        if epoch < last_epoch[name]:
            assert sum(stop - start for start, stop in stretches) == size
    # A small corpus was read many times, the added one not once.
    assert last_epoch["corpus 8"] > 10 > 0 == last_epoch["corpus 9"]


def test_samples_hold_the_tokens_that_their_place_says():
    dataset = Attempt.from_position(LAST).open()
    for index in (0, 23_457, 50_000, 50_003):
        source, row = dataset.locate(index)
        size = len(source.stream)
        stored = FIRST_TOKEN + np.arange(row.start, row.start + row.length) % size
        tokens = dataset[index].tokens
        assert set(tokens[tokens >= FIRST_TOKEN]) <= set(stored)
