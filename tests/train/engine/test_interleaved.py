"""The interleaved schedule: Megatron-core's arithmetic is that of configs/pipeline.py, and what it leaves to us."""

import warnings
from typing import Any

import pytest

from configs import pipeline
from tests.helpers.distributed import run_distributed
from tests.helpers.rank_runs import config_of, rank_session, small_dataset, train

INTERLEAVED = ("parallel.schedule=interleaved",)
TWO_STAGES = ("parallel.pp=2", "precision=fp32", "model.hidden_dropout=0.1")


@pytest.mark.parametrize("pp, chunks", [(2, 2), (3, 2), (4, 3)])
def test_megatron_runs_passes_in_the_order_that_is_calculated_with(pp: int, chunks: int) -> None:
    from megatron.core.pipeline_parallel.schedules import get_schedule_table

    for count in range(pp, 4 * pp):
        group = pipeline.group_size(pp, count)
        table = get_schedule_table(count, chunks, group)
        assert table == list(pipeline.forward_order(count, chunks, group))


def test_megatron_warms_up_as_it_is_calculated_with(monkeypatch: pytest.MonkeyPatch) -> None:
    from megatron.core import parallel_state
    from megatron.core.pipeline_parallel.schedules import get_pp_rank_microbatches

    for pp, stage, count, chunks in [(2, 0, 2, 2), (2, 1, 5, 3), (4, 0, 9, 2), (4, 3, 9, 2)]:
        sizes = {
            "get_pipeline_model_parallel_world_size": pp,
            "get_pipeline_model_parallel_rank": stage,
            "get_virtual_pipeline_model_parallel_world_size": chunks,
        }
        for name, size in sizes.items():
            monkeypatch.setattr(parallel_state, name, lambda size=size: size)
        _, _, warm_up, _ = get_pp_rank_microbatches(count, chunks, pipeline.group_size(pp, count))
        assert warm_up == pipeline.warm_up_passes(pp, stage, count, chunks)


def evaluated(rank: int, world_size: int, overrides: tuple[str, ...]) -> list[Any]:
    """Held-out losses of 1, 4 and 5 micro-batches, in the middle of a training of three steps; and its steps."""
    from configs.schema import EvalConfig
    from train.engine.pipeline import PipelineEngine
    from train.evaluation import evaluate

    config = config_of(overrides, world_size)
    with rank_session(rank, world_size, config) as session:
        engine = PipelineEngine(config, session)
        dataset = small_dataset(config)
        steps = train(engine, session, config, 0, 2)
        sums = [
            evaluate(engine, session, dataset, EvalConfig(num_samples=count), 1).to_list()
            for count in (1, 4, 5)
        ]
        steps += train(engine, session, config, 2, 1)
        engine.close()
    return [sums, steps]


def test_evaluation_has_the_sums_of_the_default_schedule_with_any_number_of_rows() -> None:
    expected = run_distributed(evaluated, 2, TWO_STAGES)
    found = run_distributed(evaluated, 2, (*TWO_STAGES, *INTERLEAVED, "parallel.chunks=3"))
    for (sums, steps), (their_sums, their_steps) in zip(found, expected, strict=True):
        assert sums == their_sums
        assert [sum(each) for each in sums] == sorted(sum(each) for each in sums)
        assert [loss for loss, _ in steps] == [loss for loss, _ in their_steps]


def recomputed(rank: int, world_size: int, overrides: tuple[str, ...]) -> list[str]:
    """The layers that run, forward and again, in one step."""
    from glm.layer import GLMLayer
    from train.engine.pipeline import PipelineEngine

    ran: list[str] = []
    config = config_of(overrides, world_size)
    with rank_session(rank, world_size, config) as session:
        engine = PipelineEngine(config, session)
        for name, module in engine.module.named_modules():
            if isinstance(module, GLMLayer):
                module.register_forward_pre_hook(lambda *_, name=name: ran.append(name))
        train(engine, session, config, 0, 1)
        engine.close()
    return ran


def test_what_is_computed_again_is_the_chunk_of_the_backward_pass() -> None:
    """Another chunk is active by then. Each layer runs twice for each of four micro-batches."""
    words = (*TWO_STAGES, *INTERLEAVED, "parallel.recompute=full")
    for ran in run_distributed(recomputed, 2, words):
        assert {name: ran.count(name) for name in set(ran)} == dict.fromkeys(set(ran), 8)


def warned(rank: int, world_size: int, overrides: tuple[str, ...]) -> list[str]:
    """What PyTorch warns of while a first step is trained."""
    from train.engine.pipeline import PipelineEngine

    config = config_of(overrides, world_size)
    with (
        rank_session(rank, world_size, config) as session,
        warnings.catch_warnings(record=True) as found,
    ):
        warnings.simplefilter("always")
        engine = PipelineEngine(config, session)
        train(engine, session, config, 0, 1)
        engine.close()
    return [str(warning.message) for warning in found if "c10d" in str(warning.message)]


@pytest.mark.parametrize("schedule", [(), INTERLEAVED], ids=["1f1b", "interleaved"])
def test_no_rank_is_warned_of_transfers_that_pytorch_cannot_differentiate(
    schedule: tuple[str, ...],
) -> None:
    assert run_distributed(warned, 2, (*TWO_STAGES, *schedule)) == [[], []]
