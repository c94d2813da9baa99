"""Build ranks with the code of a real run, one after the other in this process, and record facts about each."""

from collections.abc import Sequence

import torch

from configs import derive
from configs.schema import Config
from glm.model import parameter_name
from glm.tensor_parallel import partition_dim
from train.batches import step_indices
from train.distributed import fake_session, group_members
from train.dryrun.facts import ParameterShape, RankFacts, StepIndices
from train.engine import build_pipeline, is_tied_copy
from train.plan import TrainingPlan
from train.session import Session
from train.topology import Topology


def build_ranks(config: Config, ranks: Sequence[int]) -> list[RankFacts]:
    """Build some of the ranks of a run.

    Raises:
        DistributedError: the libraries disagree on the coordinates of a rank.
    """
    world_size = derive.planned_world_size(config)
    found = []
    for rank in ranks:
        topology = Topology.from_config(config.parallel, rank, world_size)
        with fake_session(topology) as session:
            found.append(_facts(config, session))
    return found


def checked_steps(config: Config) -> list[int]:
    """Samples seen before the steps that are checked: the first and last of the run, and two of the batch ramp."""
    levels = derive.ramp_levels(config.optim)
    last = levels[-1]
    middle = levels[len(levels) // 2]
    final = last.first_sample + (last.num_steps - 1) * last.batch_size
    return sorted({0, middle.first_sample, last.first_sample, final})


def _facts(config: Config, session: Session) -> RankFacts:
    topology = session.topology
    module = build_pipeline(config, session, None)
    stage = topology.pp_rank
    neighbours = [
        module.rank_of_stage(other) if 0 <= other < topology.pp else None
        for other in (stage - 1, stage + 1)
    ]
    return RankFacts(
        rank=topology.rank,
        tp_rank=topology.tp_rank,
        pp_rank=stage,
        dp_rank=topology.dp_rank,
        groups={
            **{f"megatron {name}": ranks for name, ranks in group_members().items()},
            **{f"deepspeed {name}": ranks for name, ranks in module.groups.items()},
        },
        neighbours=(neighbours[0], neighbours[1]),
        chunks=module.chunks,
        parameters=_shapes(module, config.model.num_layers),
        tied=module.tied_ranks,
        steps=_steps(config, topology) if topology.reads_data else [],
    )


def _shapes(module: torch.nn.Module, num_layers: int) -> dict[str, ParameterShape]:
    return {
        parameter_name(name, num_layers): ParameterShape(
            tuple(parameter.shape),
            partition_dim(parameter),
            is_tied_copy(parameter),
        )
        for name, parameter in module.named_parameters()
    }


def _steps(config: Config, topology: Topology) -> list[StepIndices]:
    plan = TrainingPlan.from_config(config)
    found = []
    for samples_seen in checked_steps(config):
        step = plan.step_at(samples_seen)
        indices = step_indices(
            step, topology, config.optim.micro_batch_size, config.data.skip_samples
        )
        found.append(StepIndices(step.samples_seen, step.num_samples, indices))
    return found
