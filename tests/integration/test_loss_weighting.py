"""A global batch has one loss and one gradient, however it is cut into micro-batches and replicas."""

from functools import cache
from typing import Any

import numpy as np
import pytest

from tests.helpers.distributed import run_distributed
from tests.helpers.rank_runs import assemble, config_of, held_state, rank_session, train

OVERRIDES = (
    "optim.global_batch_size=8",
    "optim.clip=0",
    "optim.warmup_samples=0",
    "optim.weight_decay=0",
)


def one_step(rank: int, world_size: int, overrides: tuple[str, ...]) -> dict[str, Any]:
    """Train one global batch of 8; Adam's first moment is then a tenth of the gradient."""
    from train.engine.pipeline import PipelineEngine

    config = config_of(overrides, world_size)
    with rank_session(rank, world_size, config) as session:
        engine = PipelineEngine(config, session)
        ((loss, _),) = train(engine, session, config, 0, 1)
        held = held_state(engine, session, config)
        engine.close()
    return {"loss": loss, **held}


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
