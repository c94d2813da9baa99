"""What the engine does with gradients, per parameter: the real engine on CPU, at a size where nothing else weighs.

A micro-batch of the engine, less the forward and backward pass of the same layers alone, whose gradients are new each
time, is the handling of gradients. A step, less its micro-batches, is norm, clipping, update and the copies between
masters and weights, and, where there are several replicas, the copies around their reduction; collectives are counted
elsewhere.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from benchmarks.counting.counter import counting
from benchmarks.counting.network import DTYPES
from benchmarks.counting.rows import all_targets
from benchmarks.counting.tally import Tally, Work
from configs import derive
from configs.load import load_config
from configs.objectives import objectives_of
from configs.schema import Config, Precision
from glm.loss import GLMLoss
from glm.model import GLMModel
from train.distributed import distributed_session
from train.engine.pipeline import PipelineEngine
from train.plan import TrainingPlan
from train.session import Session
from train.topology import Topology
from train.world import World, prepare_environment

# 1.6 million parameters and 32 tokens: activations weigh nothing.
_SIZES = (
    "model.num_layers=2",
    "model.hidden_size=256",
    "model.num_heads=4",
    "model.ffn_size=704",
    "model.vocab_size=128",
    "model.seq_length=32",
    "objective.windows_per_row=1",
    "optim.micro_batch_size=1",
    "optim.batch_ramp=null",
    "data.paths=[none]",
)


@dataclass(frozen=True)
class GradientCost:
    """What was counted for all parameters of a small engine."""

    parameters: int
    micro_batch: Work
    step: Work
    """Beside the micro-batches; on CPU, where the optimizer may be another one than on CUDA."""
    syncs_per_micro_batch: int
    """In the whole engine, the layers' own included. On CPU a copy to the host is none, and is not seen."""

    @property
    def bytes_per_micro_batch(self) -> float:
        """Per parameter."""
        return self.micro_batch.moved / self.parameters

    @property
    def bytes_per_step(self) -> float:
        """Per parameter, beside the micro-batches."""
        return self.step.moved / self.parameters

    def of(self, work: Work, parameters: int) -> Work:
        """The same work for another number of parameters; its kernels are not known."""
        scale = parameters / self.parameters
        return Work(0, round(work.read * scale), round(work.written * scale))


def count_gradients(
    precision: Precision, zero_stage: int = 1, world: World | None = None
) -> GradientCost:
    """Count them in this process, which must have no process group open.

    Args:
        precision: of the run.
        zero_stage: of the optimizer's state.
        world: this process among its replicas.
    """
    world = world or World()
    words = [*_SIZES, f"precision={precision.value}", f"parallel.zero_stage={zero_stage}"]
    config = load_config(words)
    topology = Topology.from_config(config.parallel, world.rank, world.size)
    with distributed_session(world, topology, torch.device("cpu")) as session:
        one_more = _step(config, session, 3) - _step(config, session, 2)
        step = _step(config, session, 2) - one_more * 2
        alone = _alone(config)
    return GradientCost(
        derive.parameters(config.model),
        _all(one_more - alone),
        _all(step),
        one_more.syncs.total(),
    )


@contextlib.contextmanager
def counted(world: World, precision: str) -> Iterator[Callable[[], tuple[float, float]]]:
    """Answers with the bytes per parameter of a micro-batch, and of a step beside them (benchmarks/teams.py)."""
    prepare_environment(world, "cpu")

    def answer() -> tuple[float, float]:
        cost = count_gradients(Precision(precision), world=world)
        return cost.bytes_per_micro_batch, cost.bytes_per_step

    yield answer


def _all(tally: Tally) -> Work:
    return tally.products + tally.attention + tally.other


def _step(config: Config, session: Session, num_micro_batches: int) -> Tally:
    """The second step, by which every buffer is there."""
    size = num_micro_batches * session.topology.dp
    optim = replace(config.optim, global_batch_size=size, total_samples=2 * size)
    config = replace(config, optim=optim)
    plan, batches = TrainingPlan.from_config(config), [all_targets(config.model, 1)]
    engine = PipelineEngine(config, session)
    engine.train_step(plan.step_at(0), batches * num_micro_batches)
    with counting() as counter:
        engine.train_step(plan.step_at(size), batches * num_micro_batches)
    engine.close()
    return counter.tally


def _alone(config: Config) -> Tally:
    """Forward and backward pass of one micro-batch without the engine."""
    model = GLMModel(config.model, config.seed).to(DTYPES[config.precision])
    loss = GLMLoss(len(objectives_of(config.objective)))
    loss.embedding = model.embedding
    (tokens, fields), labels = all_targets(config.model, 1)
    with counting() as counter:
        output: Any = loss(model.final_state(tokens, fields)[0], labels)
        output.backward()
    return counter.tally
