"""Steps of the real engine on rows that are there already: what teams (benchmarks/teams.py) work on."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from benchmarks.live_memory import cycle_dataset
from benchmarks.sleeping import Sleeper, let_entries_sleep
from configs.load import load_config
from configs.schema import Config
from data_pipeline.batch import collate
from train.batches import StepBatches, checksum, count_targets, micro_batches_of, step_indices
from train.distributed import distributed_session
from train.engine.interface import StepOutcome
from train.engine.pipeline import PipelineEngine
from train.host_memory import keep_freed_memory
from train.plan import StepPlan, TrainingPlan
from train.session import Session
from train.topology import Topology
from train.world import World, prepare_environment


class Stepper:
    """An engine, and rows that it trains again and again.

    Args:
        config: of the run.
        session: the open process groups.
    """

    def __init__(self, config: Config, session: Session) -> None:
        self.engine = PipelineEngine(config, session)
        self._config = config
        self._session = session
        self._dataset = cycle_dataset(config)
        self._rows: dict[int, StepBatches] = {}
        self._passes_ended = 0.0
        self.engine.add_hook(lambda _: self._note_end())

    def passes(self, num_micro_batches: int) -> float:
        """Train a step; seconds until this rank's passes are over and its gradients reduced, without the update."""
        return self._timed(num_micro_batches)[0]

    def step(self, num_micro_batches: int) -> float:
        """Train a step; its seconds."""
        return self._timed(num_micro_batches)[1]

    def train(self, num_micro_batches: int) -> StepOutcome:
        """Train a step of the run's first rows."""
        rows = self.rows(num_micro_batches)
        weighting = self._config.objective.loss_weighting
        return self.engine.train_step(
            self.plan(num_micro_batches), micro_batches_of(rows, weighting, 0.0)
        )

    def plan(self, num_micro_batches: int) -> StepPlan:
        """The run's first step, with so many micro-batches on each replica."""
        first = TrainingPlan.from_config(self._config).step_at(0)
        size = self._config.optim.micro_batch_size * self._session.topology.dp
        return replace(first, num_samples=num_micro_batches * size)

    def rows(self, num_micro_batches: int) -> StepBatches:
        """What this rank trains; built once."""
        if num_micro_batches not in self._rows:
            topology = self._session.topology
            drawn = step_indices(
                self.plan(num_micro_batches), topology, self._config.optim.micro_batch_size, []
            )
            made = [collate([self._dataset[index] for index in each]) for each in drawn]
            made = made if topology.reads_data else []
            self._rows[num_micro_batches] = StepBatches(
                made, checksum(made), count_targets(made), 0.0
            )
        return self._rows[num_micro_batches]

    def _timed(self, num_micro_batches: int) -> tuple[float, float]:
        self.rows(num_micro_batches)
        self._session.barrier()
        started = time.perf_counter()
        self.train(num_micro_batches)
        return self._passes_ended - started, time.perf_counter() - started

    def _note_end(self) -> None:
        self._passes_ended = time.perf_counter()


@contextlib.contextmanager
def opened(world: World, words: list[str]) -> Iterator[tuple[Config, Session]]:
    """A run's configuration and its process groups on CPU."""
    config = load_config(words, world.size)
    prepare_environment(world, "cpu")
    keep_freed_memory()
    topology = Topology.from_config(config.parallel, world.rank, world.size)
    with distributed_session(world, topology, torch.device("cpu")) as session:
        yield config, session


@contextlib.contextmanager
def steps(world: World, words: list[str]) -> Iterator[Callable[[int], float]]:
    """Answers (micro-batches) with the seconds of a step of the run that `words` configure."""
    with opened(world, words) as (config, session):
        stepper = Stepper(config, session)
        yield stepper.step
        stepper.engine.close()


@contextlib.contextmanager
def sleeping_steps(
    world: World, words: list[str], seconds: float
) -> Iterator[Callable[[int], tuple[float, float]]]:
    """Answers (micro-batches) with the seconds of a step's passes, and those that its entries slept.

    Each entry sleeps for `seconds` in a forward pass (benchmarks/sleeping.py).
    """
    with opened(world, words) as (config, session):
        stepper = Stepper(config, session)
        sleeper = Sleeper(seconds)
        let_entries_sleep(stepper.engine.module, session.topology, sleeper)

        def answer(num_micro_batches: int) -> tuple[float, float]:
            before = sleeper.slept
            return stepper.passes(num_micro_batches), sleeper.slept - before

        yield answer
        stepper.engine.close()
