"""Gradients that are not finite: the weights stay as they were, on every layout and in every precision."""

from typing import Any

import numpy as np
import pytest

from tests.helpers.distributed import run_distributed
from tests.helpers.rank_runs import config_of, rank_session, train


def spoilt_steps(rank: int, world_size: int, overrides: tuple[str, ...]) -> dict[str, Any]:
    """Train a step with a NaN in the last rank's last gradient, then one without it."""
    from train.engine.pipeline import PipelineEngine

    config = config_of(overrides, world_size)
    with rank_session(rank, world_size, config) as session:
        engine = PipelineEngine(config, session)
        parameters = list(engine.module.parameters())
        before = [values.detach().clone() for values in parameters]
        handle = None
        if rank == world_size - 1:
            handle = parameters[-1].register_hook(lambda gradient: gradient * float("nan"))
        spoilt = train(engine, session, config, 0, 1)
        was_kept = all((a == b).all() for a, b in zip(before, parameters, strict=True))
        skipped = engine.deepspeed.skipped_steps
        if handle is not None:
            handle.remove()
        good = train(engine, session, config, 1, 1)
        has_moved = any((a != b).any() for a, b in zip(before, parameters, strict=True))
        is_finite = all(bool(values.isfinite().all()) for values in parameters)
        engine.close()
    return {
        "norms": [spoilt[0][1], good[0][1]],
        "was_kept": was_kept,
        "skipped": [skipped, engine.deepspeed.skipped_steps],
        "ends_well": has_moved and is_finite,
    }


@pytest.mark.parametrize(
    "world_size, overrides",
    [
        (1, ("precision=fp32", "parallel.zero_stage=0")),
        (2, ("precision=fp32", "parallel.zero_stage=0", "parallel.pp=2")),
        (2, ("precision=fp32", "parallel.zero_stage=0")),
        (1, ("precision=fp32",)),
        (1, ("precision=bf16",)),
        # On the last tensor-parallel rank, in a parameter of which all of them hold a copy.
        (4, ("precision=fp32", "parallel.tp=2")),
        (4, ("precision=bf16", "parallel.tp=2", "parallel.pp=2")),
    ],
)
def test_a_step_with_a_nan_is_skipped_by_every_rank(
    world_size: int, overrides: tuple[str, ...]
) -> None:
    for result in run_distributed(spoilt_steps, world_size, overrides):
        assert result["was_kept"]
        assert result["norms"][0] == np.inf
        assert np.isfinite(result["norms"][1])
        assert result["skipped"] == [1, 1]
        assert result["ends_well"]
