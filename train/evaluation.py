"""Held-out loss per objective, on the same engine as training.

The validation rows are the first `eval.num_samples` of the held-out set, the same at every evaluation. Rows that only
fill the last micro-batch have weight zero.
"""

from collections.abc import Iterator

import numpy as np

from configs.schema import EvalConfig, LossWeighting
from data_pipeline.batch import collate
from data_pipeline.dataset import GLMDataset
from data_pipeline.sampler import micro_batch_indices
from glm.loss import ObjectiveSums
from train.batches import MicroBatch, row_weights, to_micro_batch
from train.engine import Engine
from train.session import Session
from train.topology import Topology


def evaluate(
    engine: Engine,
    session: Session,
    dataset: GLMDataset,
    config: EvalConfig,
    micro_batch_size: int,
) -> ObjectiveSums:
    """Evaluate the current weights.

    Args:
        engine: the model.
        session: process groups, to add up the sums of the ranks.
        dataset: held-out rows.
        config: number of rows.
        micro_batch_size: rows per forward pass (the training one: stages exchange tensors of fixed shape).

    Returns:
        Loss sums per objective over all ranks; every row has the same weight.
    """
    rows_per_round = micro_batch_size * session.topology.dp
    num_micro_batches = -(-config.num_samples // rows_per_round)
    batches: Iterator[MicroBatch] = iter(())
    if session.topology.reads_data:
        batches = _micro_batches(dataset, session, config.num_samples, micro_batch_size)
    sums = engine.evaluate(batches, num_micro_batches)
    return ObjectiveSums.from_list(session.sum(share_of(sums, session)))


def share_of(sums: ObjectiveSums, session: Session) -> list[float]:
    """What this rank adds to the total: tensor-parallel ranks hold equal sums, so only the first of them contributes."""
    values = sums.to_list()
    return values if session.topology.tp_rank == 0 else [0.0] * len(values)


def evaluated_indices(num_samples: int, topology: Topology, micro_batch_size: int) -> list[range]:
    """Held-out rows of one replica's micro-batches, in order, modulo `num_samples`; those from there on only fill up."""
    count = -(-num_samples // (micro_batch_size * topology.dp))
    return [
        micro_batch_indices(0, number, topology.dp, topology.dp_rank, micro_batch_size)
        for number in range(count)
    ]


def _micro_batches(
    dataset: GLMDataset, session: Session, num_samples: int, micro_batch_size: int
) -> Iterator[MicroBatch]:
    for positions in evaluated_indices(num_samples, session.topology, micro_batch_size):
        indices = np.asarray(positions)
        batch = collate([dataset[int(index) % num_samples] for index in indices])
        weights = row_weights(batch, LossWeighting.row, 0.0)
        yield to_micro_batch(
            batch, np.where(indices < num_samples, weights, 0.0).astype(np.float32)
        )
