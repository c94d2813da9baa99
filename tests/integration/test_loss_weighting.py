"""A global batch has one loss and one gradient, however it is cut into micro-batches and replicas."""

from functools import cache
from typing import Any

import numpy as np
import pytest

from tests.helpers.corpora import SPECIAL, MemoryStream
from tests.helpers.distributed import run_distributed
from tests.helpers.lives import TINY, assemble, held_state, rank_session

OVERRIDES = (
    *TINY,
    "optim.global_batch_size=8",
    "optim.clip=0",
    "optim.warmup_samples=0",
    "optim.weight_decay=0",
)


def one_step(rank: int, world_size: int, overrides: tuple[str, ...]) -> dict[str, Any]:
    """Train one global batch of 8; Adam's first moment is then a tenth of the gradient."""
    from configs.load import load_config
    from data_pipeline.dataset import GLMDataset, Source
    from tests.integration.test_parallel_parity import prepared
    from train.batches import BatchStream
    from train.engine.pipeline import PipelineEngine
    from train.plan import TrainingPlan

    config = load_config(list(overrides), world_size)
    with rank_session(rank, world_size, config) as session:
        engine = PipelineEngine(config, session)
        plan = TrainingPlan.from_config(config)
        source = Source("phrases", MemoryStream(20_000, config.model.vocab_size))
        dataset = GLMDataset([source], SPECIAL, config.objective, config.model.seq_length, 7)
        micro_batch_size = config.optim.micro_batch_size
        stream = BatchStream(dataset, plan, session.topology, micro_batch_size, [], 0)
        step = plan.step_at(0)
        outcome = engine.train_step(step, prepared(stream, config, session, step))
        stream.close()
        sums = session.sum(outcome.sums.to_list())
        held = held_state(engine, session, config)
        held["loss"] = sum(sums[:3]) / sum(sums[3:])
        held["losses"] = [loss / weight for loss, weight in zip(sums[:2], sums[3:5], strict=True)]
        engine.close()
    return held


@cache
def outcome(
    weighting: str, micro_batch_size: int, dp: int, precision: str = "fp32"
) -> tuple[float, dict[str, np.ndarray]]:
    overrides = (
        *OVERRIDES,
        f"precision={precision}",
        f"objective.loss_weighting={weighting}",
        f"optim.micro_batch_size={micro_batch_size}",
    )
    results = run_distributed(one_step, dp, overrides)
    moments = {
        name: values for (name, kind), values in assemble(results).items() if kind == "exp_avg"
    }
    return results[0]["loss"], moments


@pytest.mark.parametrize("weighting", ["row", "token"])
@pytest.mark.parametrize("micro_batch_size, dp", [(2, 1), (4, 1), (1, 2), (2, 2), (4, 2)])
def test_the_cut_of_a_batch_changes_neither_loss_nor_gradient(
    weighting: str, micro_batch_size: int, dp: int
) -> None:
    loss, gradients = outcome(weighting, micro_batch_size, dp)
    expected_loss, expected = outcome(weighting, 1, 1)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-6)
    assert gradients.keys() == expected.keys()
    for name, values in expected.items():
        scale = np.abs(values).max()
        assert scale > 0
        np.testing.assert_allclose(gradients[name], values, rtol=0, atol=1e-6 * scale, err_msg=name)


def test_bf16_gradients_are_summed_over_micro_batches_and_replicas_in_fp32() -> None:
    """The same eight bf16 gradients are added either way; a sum in bf16 would differ by up to 2^-9."""
    _, gradients = outcome("row", 1, 2, "bf16")
    _, expected = outcome("row", 1, 1, "bf16")
    for name, values in expected.items():
        atol = 1e-6 * np.abs(values).max()
        np.testing.assert_allclose(gradients[name], values, rtol=0, atol=atol, err_msg=name)


def test_the_weightings_are_different_losses() -> None:
    by_row, _ = outcome("row", 1, 1)
    by_token, _ = outcome("token", 1, 1)
    assert abs(by_row - by_token) > 1e-4
