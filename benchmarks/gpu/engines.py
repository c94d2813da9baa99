"""The real engine in a section's process, on its one device."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from benchmarks.live_memory import SPECIAL, CycleStream
from configs.schema import Config
from data_pipeline.batch import collate
from data_pipeline.dataset import GLMDataset, Source
from train.batches import MicroBatch, to_micro_batch
from train.device import start_device
from train.distributed import distributed_session
from train.engine.interface import StepOutcome
from train.engine.pipeline import PipelineEngine
from train.plan import TrainingPlan
from train.session import Session
from train.topology import Topology
from train.world import World

# What the sections train with: rows as the objective draws them, from a corpus that counts up.
COMMON = (
    "optim.batch_ramp=null",
    "optim.warmup_samples=0",
    "optim.total_samples=100000",
    "data.paths=[none]",
)
_TOKENS = 1 << 20


@contextlib.contextmanager
def session_on(device: torch.device, config: Config) -> Iterator[Session]:
    """The process groups of a run of one process: nccl on CUDA."""
    start_device(device)
    topology = Topology.from_config(config.parallel, 0, 1)
    with distributed_session(World(), topology, device) as session:
        yield session


class Trainee:
    """An engine with rows to train on.

    Args:
        config: of a run of one process.
        session: its process groups.
    """

    def __init__(self, config: Config, session: Session) -> None:
        self.engine = PipelineEngine(config, session)
        self._config = config
        self._plan = TrainingPlan.from_config(config)
        self._rows = micro_batches(config, config.optim.global_batch_size)
        self._seen = 0

    def step(self, samples: int | None = None) -> StepOutcome:
        """Train one global batch, the configured one or a smaller one, always on the same rows."""
        size, rows = self._config.optim.micro_batch_size, self._rows
        count = samples or self._config.optim.global_batch_size
        plan = replace(self._plan.step_at(self._seen), num_samples=count)
        self._seen += count
        return self.engine.train_step(plan, rows[: count // size])


def micro_batches(config: Config, samples: int) -> list[MicroBatch]:
    """Micro-batches of so many rows together."""
    model, size = config.model, config.optim.micro_batch_size
    source = Source("cycle", CycleStream(_TOKENS, model.vocab_size))
    dataset = GLMDataset([source], SPECIAL, config.objective, model.seq_length, config.seed)
    weights = np.full(size, 1e-3, dtype=np.float32)
    return [
        to_micro_batch(collate([dataset[start + row] for row in range(size)]), weights)
        for start in range(0, samples, size)
    ]
