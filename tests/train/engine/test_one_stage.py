"""One stage without a schedule computes the bits of DeepSpeed's pipeline of one stage."""

from typing import Any

import numpy as np
import pytest

from tests.helpers.distributed import run_distributed
from tests.helpers.rank_runs import (
    allow_fp16,
    config_of,
    held_state,
    rank_session,
    small_dataset,
    train,
)

RUNS = [
    (1, ("precision=fp32",)),
    (1, ("precision=bf16", "parallel.recompute=full")),
    (1, ("precision=fp16",)),
    (2, ("precision=fp32",)),
    (2, ("precision=bf16",)),
    (2, ("precision=bf16", "parallel.overlap=true")),
    (2, ("precision=fp16",)),
    (2, ("precision=fp32", "parallel.tp=2", "parallel.sequence=true")),
]


def trained(rank: int, world_size: int, overrides: tuple[str, ...]) -> list[Any]:
    """Losses, held-out sums and state after four steps, by our passes and by DeepSpeed's schedule."""
    from train.engine.one_forward_one_backward import OneForwardOneBackward
    from train.engine.one_stage import OneStage
    from train.engine.pipeline import PipelineEngine
    from train.evaluation import evaluate

    allow_fp16()
    config = config_of((*overrides, "eval.num_samples=8"), world_size)
    found = []
    with rank_session(rank, world_size, config) as session:
        for schedule in (OneStage, OneForwardOneBackward):
            engine = PipelineEngine(config, session)
            if schedule is OneForwardOneBackward:
                engine._schedule = OneForwardOneBackward(engine.deepspeed)
            assert isinstance(engine._schedule, schedule)
            steps = train(engine, session, config, 0, 4)
            size = config.optim.micro_batch_size
            held_out = evaluate(engine, session, small_dataset(config), config.eval, size)
            found.append((steps, held_out.to_list(), held_state(engine, session, config)))
            engine.close()
    return found


@pytest.mark.parametrize(("world_size", "overrides"), RUNS)
def test_it_computes_the_bits_of_a_pipeline_of_one_stage(
    world_size: int, overrides: tuple[str, ...]
) -> None:
    for own, deepspeeds in run_distributed(trained, world_size, overrides):
        assert own[0] == deepspeeds[0]
        assert own[1] == deepspeeds[1]
        np.testing.assert_equal(own[2], deepspeeds[2])
