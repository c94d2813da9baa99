"""Short attempts of a run in one rank, and a look at its state that does not use the checkpoint code."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from configs import derive
from configs.load import load_config
from configs.schema import Config
from data_pipeline.dataset import GLMDataset, Source
from glm.model import parameter_name
from glm.tensor_parallel import partition_dim
from tests.helpers.corpora import MemoryStream
from tests.helpers.tiny import TRAINED_SPECIAL, UNEVEN_RUN

# Samples of a step of UNEVEN_RUN.
BATCH = 4


class TrainedStep(NamedTuple):
    """A step of the whole run, the same on every rank."""

    loss: float | None
    grad_norm: float
    embedding_norm: float
    """Of the embedding's gradient, before it is clipped."""
    num_samples: int


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
    return load_config([*UNEVEN_RUN, *overrides], world_size)


def allow_fp16() -> None:
    """PyTorch has slow fp16 products on every CPU; DeepSpeed asks for fast ones."""
    from deepspeed.accelerator import get_accelerator

    type(get_accelerator()).is_fp16_supported = lambda self: True


def small_dataset(config: Config) -> GLMDataset:
    """The rows that all of these trainings read, whatever the run's seed."""
    source = Source("phrases", MemoryStream(20_000, config.model.vocab_size))
    return GLMDataset([source], TRAINED_SPECIAL, config.objective, config.model.seq_length, 1234)


def train(
    engine: Any,
    session: Any,
    config: Config,
    first_step: int,
    num_steps: int,
    rows: list[list[bytes]] | None = None,
) -> list[tuple[float | None, float]]:
    """Train as `train_in_detail` does; (loss, gradient norm) of each step."""
    steps = train_in_detail(engine, session, config, first_step, num_steps, rows)
    return [(step.loss, step.grad_norm) for step in steps]


def train_in_detail(
    engine: Any,
    session: Any,
    config: Config,
    first_step: int,
    num_steps: int,
    rows: list[list[bytes]] | None = None,
) -> list[TrainedStep]:
    """Train steps `first_step`, ...; `rows` takes the tokens of every row that this replica trains, step by step."""
    from glm.loss import ObjectiveSums
    from train.batches import BatchStream
    from train.evaluation import share_of
    from train.plan import TrainingPlan

    plan = TrainingPlan.from_config(config)
    seen = first_step * config.optim.global_batch_size
    assert first_step == 0 or plan.step_at(0).num_samples == config.optim.global_batch_size
    micro_batch_size = config.optim.micro_batch_size
    stream = BatchStream(small_dataset(config), plan, session.topology, micro_batch_size, [], seen)
    steps = []
    for _ in range(num_steps):
        step = plan.step_at(seen)
        batches = stream.next_step()
        if rows is not None:
            rows.append([row.tobytes() for b in batches.micro_batches for row in b.tokens])
        outcome = engine.train_step(step, _weighted(batches, config, session, step))
        squares = outcome.embedding_sum_of_squares
        *sums, squares = session.sum([*share_of(outcome.sums, session), squares])
        mean = ObjectiveSums.from_list(sums).mean
        steps.append(TrainedStep(mean, outcome.grad_norm, squares**0.5, step.num_samples))
        seen += step.num_samples
    stream.close()
    return steps


def _weighted(batches: Any, config: Config, session: Any, step: Any) -> Any:
    """A step's micro-batches, weighted as the configuration asks."""
    from train.batches import micro_batches_of

    mean = 0.0
    if derive.counts_tokens(config):
        targets = session.sum_over_replicas([batches.num_targets])[0]
        mean = targets * config.optim.micro_batch_size / step.num_samples
    return micro_batches_of(batches, config.objective.loss_weighting, mean)


def saver_of(engine: Any, session: Any, config: Config, checkpoints: Path, **options: Any) -> Any:
    """What writes this run's checkpoints; `options` go to `Saver`."""
    from train.checkpoint import Saver

    data_state = {"fingerprint": "abc"}
    return Saver(checkpoints, config, data_state, session, engine, {"wandb": "x1"}, **options)


def save_after(
    engine: Any, session: Any, config: Config, checkpoints: Path, first_step: int, num_steps: int
) -> tuple[list[tuple[float | None, float]], Path]:
    """Train as `train` does, then save; what `train` returns, and the checkpoint."""
    steps = train(engine, session, config, first_step, num_steps)
    saver = saver_of(engine, session, config, checkpoints)
    saver.save(progress_after(first_step + num_steps))
    (outcome,) = saver.finish()
    assert outcome.error is None
    return steps, outcome.folder


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
