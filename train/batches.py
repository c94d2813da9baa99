"""Batches of this rank, computed ahead of time from sample indices alone.

Which samples a step trains is arithmetic on the samples seen (data_pipeline/sampler.py), so a background thread can
build the coming steps while the model trains on this one, and a resumed or resized run sees the same samples.
"""

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from configs.schema import LossWeighting
from data_pipeline.batch import Batch, collate
from data_pipeline.dataset import GLMDataset
from data_pipeline.sampler import drawn_index, micro_batch_indices
from glm.loss import Labels
from glm.row_fields import pack_fields
from train.plan import StepPlan, TrainingPlan
from train.topology import Topology

# (tokens, fields) for the first stage, what glm/loss.py needs of the targets for the last.
MicroBatch = tuple[tuple[torch.Tensor, torch.Tensor], Labels]

# Built several at a time: the second step takes half as long as the first, whose code the caches have lost meanwhile.
STEPS_AHEAD = 4


@dataclass(frozen=True)
class StepBatches:
    """What this rank trains in one step."""

    micro_batches: list[Batch]
    checksum: int
    """Checksum over all arrays, in order: equal on all stages and tensor-parallel ranks of one replica."""
    num_targets: int
    """Target tokens in these micro-batches."""
    wait_seconds: float
    """How long training waited for them."""


class BatchStream:
    """The steps of a run from a given position on, in order.

    Args:
        dataset: pure map from sample index to sample.
        plan: gives each step's size.
        topology: this rank's place; ranks of middle stages get empty steps.
        micro_batch_size: samples per forward pass.
        skip_samples: ranges [a, b) of drawn indices that are skipped.
        start: samples seen before the first step.
    """

    def __init__(
        self,
        dataset: GLMDataset,
        plan: TrainingPlan,
        topology: Topology,
        micro_batch_size: int,
        skip_samples: list[list[int]],
        start: int,
    ) -> None:
        self._dataset = dataset
        self._plan = plan
        self._topology = topology
        self._micro_batch_size = micro_batch_size
        self._skip_samples = skip_samples
        self._start = start
        self._ready: queue.Queue[StepBatches | Exception] = queue.Queue(maxsize=STEPS_AHEAD)
        self._has_room = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="batches", daemon=True)
        self._thread.start()

    def next_step(self) -> StepBatches:
        """Wait for the next step's batches.

        Raises:
            DataError: a shard cannot be read.
        """
        started = time.perf_counter()
        batches = self._ready.get()
        if self._ready.qsize() <= STEPS_AHEAD // 2:
            self._has_room.set()
        if isinstance(batches, Exception):
            raise batches
        waited = time.perf_counter() - started
        return StepBatches(batches.micro_batches, batches.checksum, batches.num_targets, waited)

    def close(self) -> None:
        """End the background thread."""
        self._stopping.set()
        while self._thread.is_alive():
            with_nothing_to_do = self._ready.empty()
            if not with_nothing_to_do:
                self._ready.get_nowait()
            self._thread.join(timeout=0.05)

    def _work(self) -> None:
        try:
            samples_seen = self._start
            while not self._plan.is_finished(samples_seen) and not self._stopping.is_set():
                step = self._plan.step_at(samples_seen)
                self._put(self._build(step))
                samples_seen += step.num_samples
        except Exception as error:  # handed to the training thread, which raises it
            self._put(error)

    def _put(self, batches: StepBatches | Exception) -> None:
        while not self._stopping.is_set():
            try:
                self._ready.put_nowait(batches)
                return
            except queue.Full:
                self._has_room.clear()
                self._has_room.wait(timeout=0.1)

    def _build(self, step: StepPlan) -> StepBatches:
        if not self._topology.reads_data:
            return StepBatches([], 0, 0, 0.0)
        micro_batches = [
            collate([self._dataset[index] for index in drawn])
            for drawn in step_indices(
                step, self._topology, self._micro_batch_size, self._skip_samples
            )
        ]
        return StepBatches(
            micro_batches, checksum(micro_batches), count_targets(micro_batches), 0.0
        )


def step_indices(
    step: StepPlan, topology: Topology, micro_batch_size: int, skip_samples: list[list[int]]
) -> list[list[int]]:
    """Drawn indices of one replica's micro-batches in a step, in order."""
    num_micro_batches = step.num_samples // (micro_batch_size * topology.dp)
    return [
        [
            drawn_index(index, skip_samples)
            for index in micro_batch_indices(
                step.samples_seen, number, topology.dp, topology.dp_rank, micro_batch_size
            )
        ]
        for number in range(num_micro_batches)
    ]


def checksum(micro_batches: list[Batch]) -> int:
    """Combine the checksums of several batches, order included."""
    combined = 0
    for batch in micro_batches:
        combined = (combined * 31 + batch.checksum()) % (1 << 32)
    return combined


def count_targets(micro_batches: list[Batch]) -> int:
    """Count target tokens."""
    return sum(int(batch.loss_mask.sum()) for batch in micro_batches)


def row_weights(batch: Batch, weighting: LossWeighting, targets_per_mean: float) -> np.ndarray:
    """Weight of each target token of a row in its micro-batch's loss.

    DeepSpeed averages micro-batch losses with equal weights, so the weights are chosen to make that average the loss
    that was asked for:

    - row: 1 / (micro_batch_size x targets of the row): each row counts its own mean (GLM-130B).
    - token: 1 / targets_per_mean, the targets of the global batch divided by grad_accum x dp.

    Returns:
        (micro_batch_size,) float32; 0 for a row without targets.
    """
    targets = batch.loss_mask.sum(axis=1)
    if weighting is LossWeighting.row:
        weights = 1.0 / (np.maximum(targets, 1) * len(targets))
    else:
        weights = np.full(len(targets), 1.0 / max(targets_per_mean, 1.0))
    return np.where(targets > 0, weights, 0.0).astype(np.float32)


def to_micro_batch(batch: Batch, weights: np.ndarray) -> MicroBatch:
    """Turn a NumPy batch into the engine's ((tokens, fields), labels)."""
    loss_mask = torch.from_numpy(batch.loss_mask)
    fields = pack_fields(
        torch.from_numpy(batch.segment_ids),
        torch.from_numpy(batch.is_context),
        torch.from_numpy(batch.position_ids),
        torch.from_numpy(batch.block_position_ids),
        loss_mask,
        torch.from_numpy(batch.sample_index),
    )
    inputs = (torch.from_numpy(batch.tokens).long(), fields)
    places = np.flatnonzero(batch.loss_mask)
    labels = (
        torch.from_numpy(places),
        torch.from_numpy(batch.targets.reshape(-1)[places]).long(),
        torch.from_numpy(places // batch.loss_mask.shape[1]),
        torch.from_numpy(batch.objectives.reshape(-1)[places]),
        torch.from_numpy(weights),
    )
    return inputs, labels


def micro_batches_of(
    batches: StepBatches, weighting: LossWeighting, targets_per_mean: float
) -> Iterator[MicroBatch]:
    """Yield a step's micro-batches as the engine wants them."""
    for batch in batches.micro_batches:
        yield to_micro_batch(batch, row_weights(batch, weighting, targets_per_mean))
