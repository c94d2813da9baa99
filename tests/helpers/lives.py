"""Short lives of a run in one rank, and a look at its state that does not use the checkpoint code."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from configs.load import load_config
from configs.schema import Config
from data_pipeline.dataset import GLMDataset, Source
from glm.model import parameter_name
from glm.tensor_parallel import partition_dim
from tests.helpers.corpora import SPECIAL, MemoryStream

# Sizes at which the borders of data-parallel partitions fall inside rows.
TINY = (
    "model.num_layers=4",
    "model.hidden_size=20",
    "model.num_heads=2",
    "model.ffn_size=28",
    "model.vocab_size=120",
    "model.vocab_multiple=8",
    "model.seq_length=128",
    "optim.lr=1e-2",
    "optim.warmup_samples=16",
    "optim.micro_batch_size=1",
    "optim.global_batch_size=4",
    "optim.total_samples=40",
)
BATCH = 4


@contextlib.contextmanager
def rank_session(rank: int, world_size: int, config: Config) -> Iterator[Any]:
    """The process groups of this rank."""
    from train.distributed import distributed_session
    from train.topology import Topology
    from train.world import World, prepare_environment

    world = World(rank, rank, world_size)
    prepare_environment(world, "cpu")
    topology = Topology.from_config(config.parallel, rank, world_size)
    with distributed_session(world, topology, torch.device("cpu")) as session:
        yield session


def config_of(overrides: tuple[str, ...], world_size: int) -> Config:
    """A small run."""
    return load_config([*TINY, *overrides], world_size)


def allow_fp16() -> None:
    """PyTorch has slow fp16 products on every CPU; DeepSpeed asks for fast ones."""
    from deepspeed.accelerator import get_accelerator

    type(get_accelerator()).is_fp16_supported = lambda self: True


def train(
    engine: Any,
    session: Any,
    config: Config,
    first_step: int,
    num_steps: int,
    rows: list[list[bytes]] | None = None,
) -> list[Any]:
    """Train steps `first_step`, ...; (loss, gradient norm) of each, the same on every rank.

    `rows` takes the tokens of every row that this replica trains, step by step.
    """
    from configs.schema import LossWeighting
    from glm.loss import ObjectiveSums
    from train.batches import BatchStream, micro_batches_of
    from train.evaluation import share_of
    from train.plan import TrainingPlan

    plan = TrainingPlan.from_config(config)
    stream = MemoryStream(20_000, config.model.vocab_size)
    dataset = GLMDataset(
        [Source("phrases", stream)], SPECIAL, config.objective, config.model.seq_length, 1234
    )
    start = first_step * BATCH
    batches = BatchStream(dataset, plan, session.topology, 1, [], start)
    seen, results = start, []
    for _ in range(num_steps):
        step_batches = batches.next_step()
        if rows is not None:
            rows.append([row.tobytes() for b in step_batches.micro_batches for row in b.tokens])
        micro_batches = micro_batches_of(step_batches, LossWeighting.row, 0.0)
        outcome = engine.train_step(plan.step_at(seen), micro_batches)
        sums = ObjectiveSums.from_list(session.sum(share_of(outcome.sums, session)))
        results.append((sums.mean, outcome.grad_norm))
        seen += BATCH
    batches.close()
    return results


def saver_of(engine: Any, session: Any, config: Config, checkpoints: Path) -> Any:
    """What writes this run's checkpoints."""
    from train.checkpoint import Saver

    return Saver(checkpoints, config, {"fingerprint": "abc"}, session, engine, {"wandb": "x1"})


def progress_after(num_steps: int) -> Any:
    """Position after so many steps."""
    from train.progress import Progress

    return Progress(num_steps, num_steps * BATCH, num_steps * BATCH * 128, num_steps * BATCH, 0)


def held_state(engine: Any, session: Any, config: Config) -> dict[str, Any]:
    """What this rank holds: its partition of each parameter group, as DeepSpeed lays it out."""
    wrapper = engine.deepspeed.optimizer
    groups = getattr(wrapper, "bit16_groups", None) or getattr(wrapper, "bf16_groups", None)
    adam = getattr(wrapper, "optimizer", wrapper)
    names = {
        parameter: (parameter_name(name, config.model.num_layers), partition_dim(parameter))
        for name, parameter in engine.module.named_parameters()
    }
    held = []
    for index, group in enumerate(adam.param_groups):
        for flat in group["params"]:
            members = groups[index] if groups else [flat]
            state = adam.state.get(flat) or {key: flat.new_zeros(()) for key in ("step",)}
            held.append(
                {
                    "members": [(*names[p], tuple(p.shape)) for p in members],
                    "step": float(state.get("step", 0.0)),
                    "master": _array(flat),
                    "exp_avg": _array(state.get("exp_avg", torch.zeros_like(flat))),
                    "exp_avg_sq": _array(state.get("exp_avg_sq", torch.zeros_like(flat))),
                }
            )
    topology = session.topology
    return {
        "place": (topology.pp_rank, topology.tp_rank, topology.dp_rank),
        "is_sharded": groups is not None,
        "groups": held,
        "weights": {name: (axis, _array(parameter)) for parameter, (name, axis) in names.items()},
    }


def assemble(results: list[dict[str, Any]]) -> dict[tuple[str, str], np.ndarray]:
    """Whole tensors by (name, kind) from every rank's `held_state`; copies must agree bit for bit."""
    parts: dict[tuple[str, str], dict[int, tuple[int | None, np.ndarray]]] = {}

    def add(name: str, kind: str, tp_rank: int, axis: int | None, values: np.ndarray) -> None:
        known = parts.setdefault((name, kind), {}).get(tp_rank)
        if known is not None:
            np.testing.assert_array_equal(known[1], values, err_msg=f"copies of {name} ({kind})")
        parts[name, kind][tp_rank] = (axis, values)

    by_place = {result["place"]: result for result in results}
    dp = 1 + max(place[2] for place in by_place)
    for (_, tp_rank, dp_rank), result in by_place.items():
        for name, (axis, values) in result["weights"].items():
            add(name, "weights", tp_rank, axis, values)
        if result["is_sharded"] and dp_rank > 0:
            continue
        for index, group in enumerate(result["groups"]):
            for kind in ("master", "exp_avg", "exp_avg_sq"):
                flat = group[kind].reshape(-1)
                if result["is_sharded"]:
                    place = result["place"]
                    shares = [by_place[(*place[:2], r)]["groups"][index][kind] for r in range(dp)]
                    flat = np.concatenate(shares)
                begin = 0
                for name, axis, shape in group["members"]:
                    size = int(np.prod(shape))
                    add(name, kind, tp_rank, axis, flat[begin : begin + size].reshape(shape))
                    begin += size
    whole = {}
    for key, shards in parts.items():
        axis = shards[0][0]
        values = [shards[tp_rank][1] for tp_rank in sorted(shards)]
        if axis is None:
            for other in values[1:]:
                np.testing.assert_array_equal(values[0], other, err_msg=f"replicas of {key}")
        whole[key] = values[0] if axis is None else np.concatenate(values, axis)
    return whole


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().float().numpy().copy()
