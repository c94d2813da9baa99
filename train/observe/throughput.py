"""MFU and HFU with attention and head as this run computes them (configs/flops.py), beside those of every step's metrics.

speed/mfu and speed/hfu count as published figures do, so that runs can be compared with others: all pairs of tokens of a
row, and logits for each token. The rows of a step tell how much less was computed.
"""

from typing import Any

import torch

from configs import flops
from configs.flops import Computed
from configs.schema import Config
from data_pipeline.batch import Batch
from glm.attention_work import computed_pairs
from glm.row_fields import pack_fields
from glm.row_plan import RowPlan
from train.batches import StepBatches
from train.device import peak_tflops
from train.observe.interval import IntervalObserver
from train.observe.observers import ObservedStep
from train.session import Session

PAIRS = "attention/computed_fraction"
MFU = "speed/mfu_computed"
HFU = "speed/hfu_computed"


class Throughput(IntervalObserver):
    """Counts what is computed in the steps that are due for a line of details.jsonl.

    Args:
        every_steps: steps between lines of details.jsonl.
        config: of the run.
        session: the open process groups.
    """

    def __init__(self, every_steps: int, config: Config, session: Session) -> None:
        super().__init__(every_steps)
        self._config = config
        self._session = session
        self._batches: list[Batch] = []
        rate = config.cluster.peak_tflops or peak_tflops(session.device, config.precision)
        self._peak = None if rate is None else rate * 1e12 * session.topology.world_size

    def drawn(self, batches: StepBatches) -> None:
        """See Observer."""
        self._batches = batches.micro_batches if self._is_due else []

    def measured(self, step: ObservedStep) -> dict[str, Any]:
        """See IntervalObserver."""
        batches, self._batches = self._batches, []
        model, topology = self._config.model, self._session.topology
        on_gpu = self._session.device.type == "cuda"
        # The first stage's rows are those of all stages and tensor-parallel ranks.
        counts = topology.is_first_stage and topology.tp_rank == 0
        own = sum(pairs_of(batch, self._config, on_gpu) for batch in batches) if counts else 0
        (pairs,) = self._session.sum([float(own)])
        rows = step.plan.num_samples
        every = Computed.dense(model, rows)
        computed = Computed(rows, pairs, step.agreed.target_fraction * every.targets)
        available = None if self._peak is None else self._peak * step.agreed.seconds
        of_model = flops.model_flops(model, computed)
        of_hardware = flops.hardware_flops(model, computed, self._config.parallel.recompute, on_gpu)
        return {
            PAIRS: pairs / every.pairs,
            MFU: None if available is None else of_model / available,
            HFU: None if available is None else of_hardware / available,
        }


def pairs_of(batch: Batch, config: Config, on_gpu: bool) -> int:
    """Pairs of tokens whose score a layer computes for a micro-batch."""
    fields = pack_fields(
        torch.from_numpy(batch.segment_ids),
        torch.from_numpy(batch.is_context),
        torch.from_numpy(batch.position_ids),
        torch.from_numpy(batch.block_position_ids),
        torch.from_numpy(batch.loss_mask),
        torch.from_numpy(batch.sample_index),
    )
    return computed_pairs(RowPlan(fields), config.model, on_gpu)
