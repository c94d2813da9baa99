"""Most bytes that the allocator had alive at once on each rank of a real run of two steps.

The count is the CPU allocator's own, event by event (torch's profiler reports every allocation and release, those
inside kernels and of the libraries included), from before the model is built: not resident memory, which also holds
code, caches and pages that were given back.

    torchrun --nproc-per-node 2 -m benchmarks.live_memory '["parallel.tp=2"]'
"""

import json
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.autograd.profiler import profile

from configs.load import load_config
from configs.schema import Config
from data_pipeline.dataset import GLMDataset, Source
from data_pipeline.special_tokens import SpecialTokens
from train.batches import BatchStream, micro_batches_of
from train.distributed import distributed_session
from train.engine.pipeline import PipelineEngine
from train.plan import TrainingPlan
from train.topology import Topology
from train.world import World, prepare_environment

SPECIAL = SpecialTokens(mask=1, gmask=2, sop=3, eop=4, eos=5, pad=0)
_FIRST_WORD = 8


@dataclass(frozen=True)
class CycleStream:
    """A corpus of `size` tokens that counts up through the vocabulary."""

    size: int
    vocab_size: int

    def __len__(self) -> int:
        return self.size

    def read(self, start: int, stop: int) -> np.ndarray:
        """Tokens [start, stop)."""
        return np.arange(start, stop) % (self.vocab_size - _FIRST_WORD) + _FIRST_WORD

    @property
    def fingerprint(self) -> str:
        """It never changes."""
        return "cycle"


def cycle_dataset(config: Config) -> GLMDataset:
    """A corpus in memory, for a run that only has to train."""
    source = Source("cycle", CycleStream(200_000, config.model.vocab_size))
    return GLMDataset([source], SPECIAL, config.objective, config.model.seq_length, config.seed)


def peak_live_bytes(rank: int, world_size: int, overrides: list[str]) -> int:
    """Train two steps in this rank; returns its peak.

    The first step makes the optimizer's moments, the second has everything.
    """
    config = load_config(overrides, world_size)
    world = World(rank, rank, world_size)
    prepare_environment(world, "cpu")
    with profile(profile_memory=True) as recorded:
        _train_two_steps(config, world)
    return _peak(recorded)


def _train_two_steps(config: Config, world: World) -> None:
    topology = Topology.from_config(config.parallel, world.rank, world.size)
    plan = TrainingPlan.from_config(config)
    with distributed_session(world, topology, torch.device("cpu")) as session:
        engine = PipelineEngine(config, session)
        stream = BatchStream(
            cycle_dataset(config), plan, topology, config.optim.micro_batch_size, [], 0
        )
        for number in range(2):
            step = plan.step_at(number * config.optim.global_batch_size)
            batches = micro_batches_of(stream.next_step(), config.objective.loss_weighting, 0.0)
            engine.train_step(step, batches)
        stream.close()
        engine.close()


def _peak(recorded: profile) -> int:
    results: Any = recorded.kineto_results
    events = [event for event in results.events() if event.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


if __name__ == "__main__":
    here = World.from_environment()
    size = peak_live_bytes(here.rank, here.size, json.loads(sys.argv[1]))
    sys.stdout.write(f"peak {here.rank} {size}\n")  # at once: ranks share the terminal
