"""The same training on every layout: losses, gradient norms and parameters agree with one process."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from configs.load import load_config
from configs.schema import Config
from data_pipeline.dataset import GLMDataset, Source
from glm.model import parameter_name
from glm.tensor_parallel import partition_dim
from tests.helpers.corpora import SPECIAL, MemoryStream
from tests.helpers.distributed import run_distributed

CLIP = 0.1
OVERRIDES = (
    "precision=fp32",
    "model.num_layers=4",
    "model.hidden_size=32",
    "model.num_heads=4",
    "model.ffn_size=88",
    "model.vocab_size=128",
    "model.vocab_multiple=8",
    "model.seq_length=128",
    "optim.lr=1e-2",
    "optim.warmup_samples=0",
    f"optim.clip={CLIP}",
    # Adam divides each gradient by its own size: one that is rounding noise (of a key's bias, say, about 1e-7 here) would
    # move its weight by a whole learning rate in the direction of the noise. With this epsilon what is compared is far
    # above the noise of any processor, and the tolerances below hold with a margin of 8 instead of 1.
    "optim.eps=1e-6",
    "optim.micro_batch_size=2",
    "optim.global_batch_size=16",
    "optim.total_samples=76",
    "optim.batch_ramp.start=8",
    "optim.batch_ramp.increment=8",
    "optim.batch_ramp.samples=16",
)
NUM_STEPS = 5
LAYOUTS = [(2, 1, 1), (1, 2, 1), (1, 4, 1), (1, 1, 2), (2, 2, 1), (2, 2, 2)]
VARIANTS = {
    "plain": (),
    "recompute": ("parallel.recompute=true",),
    "dropout": ("model.hidden_dropout=0.1", "model.attention_dropout=0.1"),
    "dropout and recompute": (
        "model.hidden_dropout=0.1",
        "model.attention_dropout=0.1",
        "parallel.recompute=true",
    ),
}


def train_variants(
    rank: int, world_size: int, overrides: tuple[str, ...], variants: list[tuple[str, ...]]
) -> list[dict[str, Any]]:
    """Train a few steps of each variant in this rank; what it saw and what it holds at the end."""
    from train.distributed import distributed_session
    from train.topology import Topology
    from train.world import World, prepare_environment

    config = load_config(list(overrides), world_size)
    world = World(rank, rank, world_size)
    prepare_environment(world, "cpu")
    topology = Topology.from_config(config.parallel, rank, world_size)
    with distributed_session(world, topology, torch.device("cpu")) as session:
        return [
            train_steps(session, load_config([*overrides, *variant], world_size))
            for variant in variants
        ]


def train_steps(session: Any, config: Config) -> dict[str, Any]:
    """Train a few steps from the beginning."""
    from train.batches import BatchStream
    from train.engine.pipeline import PipelineEngine
    from train.plan import TrainingPlan

    topology = session.topology
    engine = PipelineEngine(config, session)
    plan = TrainingPlan.from_config(config)
    stream = BatchStream(
        small_dataset(config), plan, topology, config.optim.micro_batch_size, [], 0
    )
    losses, norms, embedding_norms, sizes, seen = [], [], [], [], 0
    for _ in range(NUM_STEPS):
        step = plan.step_at(seen)
        outcome = engine.train_step(step, prepared(stream, config, session, step))
        sums = outcome.sums.to_list() if topology.tp_rank == 0 else [0.0] * 6
        *sums, squares = session.sum([*sums, outcome.embedding_sum_of_squares])
        losses.append(sum(sums[:3]) / sum(sums[3:]))
        norms.append(outcome.grad_norm)
        embedding_norms.append(squares**0.5)
        sizes.append(step.num_samples)
        seen += step.num_samples
    stream.close()
    held = {
        parameter_name(name, config.model.num_layers): (
            partition_dim(parameter),
            topology.tp_rank,
            parameter.detach().float().numpy().copy(),
        )
        for name, parameter in engine.module.named_parameters()
    }
    engine.close()
    return {
        "losses": losses,
        "norms": norms,
        "embedding_norms": embedding_norms,
        "sizes": sizes,
        "held": held,
    }


def small_dataset(config: Config) -> GLMDataset:
    """The rows that all of these trainings read."""
    stream = MemoryStream(20_000, config.model.vocab_size)
    source = Source("phrases", stream)
    return GLMDataset([source], SPECIAL, config.objective, config.model.seq_length, config.seed)


def prepared(stream, config: Config, session, step):
    """A step's micro-batches, weighted as the configuration asks."""
    from configs import derive
    from train.batches import micro_batches_of

    batches = stream.next_step()
    mean = 0.0
    if derive.counts_tokens(config):
        targets = session.sum_over_replicas([batches.num_targets])[0]
        mean = targets * config.optim.micro_batch_size / step.num_samples
    return micro_batches_of(batches, config.objective.loss_weighting, mean)


def assemble(results: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Whole parameters from the ranks' shards, without the checkpoint code."""
    shards: dict[str, dict[int, tuple[int | None, np.ndarray]]] = {}
    for result in results:
        for name, (axis, tp_rank, values) in result["held"].items():
            former = shards.setdefault(name, {}).get(tp_rank)
            if former is not None:  # replicas and the tied copy must be the same
                np.testing.assert_array_equal(former[1], values, err_msg=name)
            shards[name][tp_rank] = (axis, values)
    whole = {}
    for name, parts in shards.items():
        axis = parts[0][0]
        values = [parts[tp_rank][1] for tp_rank in sorted(parts)]
        if axis is None:
            whole[name] = values[0]
        else:
            whole[name] = np.concatenate(values, axis=axis)
    return whole


@cache
def trained(tp: int, pp: int, dp: int, *extra: str) -> dict[str, list[dict[str, Any]]]:
    """Every variant on a layout, in one start of its ranks: what each rank returned."""
    overrides = (*OVERRIDES, f"parallel.tp={tp}", f"parallel.pp={pp}", *extra)
    chosen = ["plain"] if extra else list(VARIANTS)
    words = [VARIANTS[variant] for variant in chosen]
    ranks = run_distributed(train_variants, tp * pp * dp, overrides, words)
    return dict(zip(chosen, map(list, zip(*ranks, strict=True)), strict=True))


def one_process(variant: str) -> dict[str, Any]:
    return trained(1, 1, 1)[variant][0]


@pytest.mark.parametrize("tp, pp, dp", LAYOUTS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_layout_trains_like_one_process(variant: str, tp: int, pp: int, dp: int) -> None:
    check_layout(tp, pp, dp, variant)


@pytest.mark.parametrize("tp, pp, dp", [(1, 2, 1), (2, 2, 1), (1, 1, 2)])
def test_whole_optimizer_states_train_like_sharded_ones(tp: int, pp: int, dp: int) -> None:
    check_layout(tp, pp, dp, "plain", "parallel.zero_stage=0")


def test_bf16_trains_where_a_rank_counts_no_gradient_in_the_norm() -> None:
    """The last of four stages holds no layer: what stands there counts on tp rank 0 and on the first stage."""
    bf16 = ("precision=bf16",)
    reference = trained(1, 1, 1, *bf16)["plain"][0]
    for result in trained(2, 4, 1, *bf16)["plain"]:
        np.testing.assert_allclose(result["losses"], reference["losses"], rtol=1e-3)
        np.testing.assert_allclose(result["norms"], reference["norms"], rtol=2e-2)


def check_layout(tp: int, pp: int, dp: int, variant: str, *extra: str) -> None:
    """Train on a layout what one process trained under ZeRO-1, and compare."""
    reference = one_process(variant)
    results = trained(tp, pp, dp, *extra)[variant]
    assert results[0]["sizes"] == [8, 8, 16, 16, 16]
    np.testing.assert_allclose(results[0]["losses"], reference["losses"], rtol=1e-5)
    np.testing.assert_allclose(results[0]["norms"], reference["norms"], rtol=1e-4)
    np.testing.assert_allclose(
        results[0]["embedding_norms"], reference["embedding_norms"], rtol=1e-4
    )
    whole, expected = assemble(results), assemble([reference])
    assert whole.keys() == expected.keys()
    for name, values in expected.items():
        scale = np.abs(values).max()
        np.testing.assert_allclose(whole[name], values, rtol=1e-4, atol=1e-4 * scale, err_msg=name)


def test_the_learning_rate_is_one_where_the_loss_falls() -> None:
    losses = one_process("plain")["losses"]
    assert losses[0] - losses[-1] > 0.5


def test_every_step_is_clipped() -> None:
    assert min(one_process("plain")["norms"]) > CLIP


def test_recompute_and_repetition_change_no_bit() -> None:
    first = one_process("dropout")
    (ranks,) = run_distributed(train_variants, 1, OVERRIDES, [VARIANTS["dropout"]])
    again = ranks[0]
    recomputed = one_process("dropout and recompute")
    for other in (again, recomputed):
        assert other["losses"] == first["losses"]
        assert other["norms"] == first["norms"]
        for name, (_, _, values) in first["held"].items():
            np.testing.assert_array_equal(other["held"][name][2], values, err_msg=name)
