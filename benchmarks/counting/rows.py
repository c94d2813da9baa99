"""Rows to run the layers on, and the share of token pairs that an objective's mask allows."""

import numpy as np
import torch

from benchmarks.live_memory import SPECIAL, CycleStream
from configs.schema import Config, ModelConfig
from data_pipeline.batch import Batch, collate
from data_pipeline.dataset import GLMDataset, Source
from glm.row_fields import may_attend
from train.batches import MicroBatch, to_micro_batch

_SAMPLED = 64


def all_targets(model: ModelConfig, micro_batch_size: int) -> MicroBatch:
    """A micro-batch of rows that are all targets, as the longest [gMASK] blank: the head has most to do."""
    shape = (micro_batch_size, model.seq_length)
    ids, ones = np.ones(shape, dtype=np.int64), np.ones(shape, dtype=bool)
    places = np.broadcast_to(np.arange(model.seq_length), shape).astype(np.int64)
    batch = Batch(
        tokens=ids,
        targets=ids,
        loss_mask=ones,
        position_ids=places,
        block_position_ids=places + 1,
        segment_ids=ids,
        is_context=~ones,
        objectives=np.zeros(shape, dtype=np.int64),
        sample_index=np.arange(micro_batch_size),
    )
    return to_micro_batch(batch, np.full(micro_batch_size, 1e-3, dtype=np.float32))


def allowed_share(config: Config) -> float:
    """Share of all pairs of a row's tokens that the mask allows, over rows as the objective draws them."""
    model = config.model
    size = (_SAMPLED + 8) * model.seq_length
    source = Source("cycle", CycleStream(size, model.vocab_size))
    dataset = GLMDataset([source], SPECIAL, config.objective, model.seq_length, config.seed)
    allowed = 0
    for index in range(_SAMPLED):
        batch = collate([dataset[index]])
        (_, fields), _ = to_micro_batch(batch, np.ones(1, dtype=np.float32))
        allowed += int(torch.count_nonzero(may_attend(fields)))
    return allowed / (_SAMPLED * model.seq_length**2)
