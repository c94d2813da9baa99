"""Build ranks for real, one after the other in this process, and write down what they are."""

from collections.abc import Sequence
from typing import Any

import torch

from configs import derive
from configs.schema import Config
from glm.model import parameter_name
from glm.tensor_parallel import partition_dim
from train.batches import step_indices
from train.distributed import Session, fake_session, group_members
from train.dryrun.facts import ParameterShape, RankFacts, StepIndices
from train.engine import build_pipeline
from train.plan import TrainingPlan
from train.topology import Topology


def build_ranks(config: Config, ranks: Sequence[int]) -> list[RankFacts]:
    """Build some ranks of the run that `config` plans.

    Raises:
        DistributedError: the libraries place a rank differently.
    """
    world_size = derive.planned_world_size(config)
    found = []
    for rank in ranks:
        topology = Topology.from_config(config.parallel, rank, world_size)
        with fake_session(topology) as session:
            found.append(_facts(config, session))
    return found


def checked_steps(config: Config) -> list[int]:
    """Samples seen before the steps that are looked at: the run's first and last, and the ends of the batch ramp."""
    levels = derive.ramp_levels(config.optim)
    last = levels[-1]
    middle = levels[len(levels) // 2]
    final = last.first_sample + (last.num_steps - 1) * last.batch_size
    return sorted({0, middle.first_sample, last.first_sample, final})


def _facts(config: Config, session: Session) -> RankFacts:
    topology = session.topology
    with torch.device("meta"):
        module: Any = build_pipeline(config, session, None)
    grid = module._grid
    stage = topology.pp_rank
    neighbours = [
        grid.stage_to_global(stage_id=other) if 0 <= other < topology.pp else None
        for other in (stage - 1, stage + 1)
    ]
    return RankFacts(
        rank=topology.rank,
        tp_rank=topology.tp_rank,
        pp_rank=stage,
        dp_rank=topology.dp_rank,
        groups={
            **{f"megatron {name}": ranks for name, ranks in group_members().items()},
            "deepspeed data": list(grid.dp_group),
            "deepspeed pipeline": list(grid.pp_group),
            "deepspeed tensor": list(grid.slice_group),
        },
        neighbours=(neighbours[0], neighbours[1]),
        bounds=list(module.parts),
        parameters=_parameters(module, config.model.num_layers),
        tied={key: list(tie["ranks"]) for key, tie in module.tied_comms.items()},
        steps=_steps(config, topology) if topology.reads_data else [],
    )


def _parameters(module: torch.nn.Module, num_layers: int) -> dict[str, ParameterShape]:
    return {
        parameter_name(name, num_layers): ParameterShape(
            tuple(parameter.shape),
            partition_dim(parameter),
            bool(getattr(parameter, "ds_pipe_replicated", False)),
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
