"""Overlapped reduction and gathering: the training of DeepSpeed's own order, in buckets of any size."""

from typing import Any

import numpy as np
import pytest
import torch.distributed as dist

from configs.errors import ConfigError
from configs.load import load_config
from tests.helpers.distributed import run_distributed
from tests.helpers.rank_runs import (
    assemble,
    config_of,
    held_state,
    rank_session,
    saver_of,
    small_dataset,
    train,
)

OVERLAP = ("parallel.overlap=true",)
BF16 = ("precision=bf16", "model.hidden_dropout=0.1", "optim.clip=0.2", "optim.global_batch_size=8")


def trained(rank: int, world_size: int, overrides: tuple[str, ...], bucket: int) -> dict[str, Any]:
    """Four steps, the third vetoed, an evaluation between; with the norms that a hook sees."""
    from configs.schema import EvalConfig
    from train.engine import overlap
    from train.engine.pipeline import PipelineEngine
    from train.evaluation import evaluate

    defaults = list(overlap.Overlap.__init__.__defaults__)
    overlap.Overlap.__init__.__defaults__ = (bucket, *defaults[1:])
    started: list[str] = []
    reduce, finish = dist.reduce, overlap.Overlap.finish

    def counted(*arguments: Any, **named: Any) -> Any:
        started.append("reduce")
        return reduce(*arguments, **named)

    def finished(self: Any) -> None:
        started.append("finish")
        finish(self)

    dist.reduce, overlap.Overlap.finish = counted, finished  # type: ignore[method-assign]
    config = config_of(overrides, world_size)
    with rank_session(rank, world_size, config) as session:
        engine = PipelineEngine(config, session)
        norms: list[Any] = []
        remove = engine.add_hook(lambda update: norms.append(update.norms))
        steps = train(engine, session, config, 0, 2)
        veto = engine.add_hook(lambda update: update.veto("too large"))
        steps += train(engine, session, config, 2, 1)
        veto()
        held = evaluate(engine, session, small_dataset(config), EvalConfig(num_samples=4), 1)
        steps += train(engine, session, config, 2, 2)
        remove()
        engine.settle()
        state = held_state(engine, session, config)
        engine.close()
    dist.reduce = reduce
    return {"steps": steps, "norms": norms, "held": held, "started": started, **state}


CASES = {
    "two replicas": (2, (), 700),
    "one bucket": (2, (), 10**9),
    "two stages of two replicas": (4, ("parallel.pp=2",), 700),
    "interleaved": (4, ("parallel.pp=2", "parallel.schedule=interleaved"), 700),
    "tokens cut": (4, ("parallel.tp=2", "parallel.sequence=true", "parallel.recompute=full"), 700),
    "embedding norm": (2, ("model.embedding_norm=true", "model.norm=pre"), 700),
    "heads cut": (4, ("parallel.tp=2", "model.embedding_norm=true", "model.qk_norm=true"), 700),
    "embedding norm on the first of two stages": (
        *(4, ("parallel.pp=2", "model.embedding_norm=true", "model.norm=sandwich"), 700),
    ),
}


def order_of_a_step(rank: int, world_size: int, overrides: tuple[str, ...]) -> list[str]:
    """Names of the gradients of one step as they come, and "reduce" where a bucket of matrices starts."""
    from glm.model import parameter_name
    from train.engine import overlap
    from train.engine.pipeline import PipelineEngine

    # A bucket holds a layer's matrices, and the vectors of all layers.
    overlap.Overlap.__init__.__defaults__ = (3_000,)
    add_ready, start = overlap.Overlap.add_ready, overlap.Overlap._start
    seen: list[str] = []
    config = config_of(overrides, world_size)
    with rank_session(rank, world_size, config) as session:

        def ready(self: Any, group: int, index: int) -> None:
            seen.append(names[engine.deepspeed.optimizer.bf16_groups[group][index]])
            add_ready(self, group, index)

        def started(self: Any, bucket: Any) -> None:
            seen.append("reduce")
            start(self, bucket)

        overlap.Overlap.add_ready, overlap.Overlap._start = ready, started  # type: ignore[method-assign]
        engine = PipelineEngine(config, session)
        names = {
            parameter: parameter_name(name, config.model.num_layers)
            for name, parameter in engine.module.named_parameters()
        }
        train(engine, session, config, 0, 1)
        engine.close()
    return seen


def test_a_layers_gradients_are_reduced_before_those_of_the_layers_below_it_come() -> None:
    words = (*BF16, *OVERLAP)
    for seen in run_distributed(order_of_a_step, 2, words):
        first = seen.index("reduce")
        last_layer = "layers.3."
        assert seen[first - 1].startswith(last_layer)
        following = [name for name in seen[first:] if name != "reduce"]
        assert any(name.startswith("layers.0.") for name in following)
        # Between any two layers' gradients of the last micro-batch a bucket starts.
        for layer in (2, 1, 0):
            own = [
                number for number, name in enumerate(seen) if name.startswith(f"layers.{layer}.")
            ]
            assert "reduce" in seen[first : own[-1]], layer


@pytest.mark.parametrize("case", CASES)
def test_it_trains_as_without_it(case: str) -> None:
    world_size, layout, bucket = CASES[case]
    plain = run_distributed(trained, world_size, (*BF16, *layout), bucket)
    own = run_distributed(trained, world_size, (*BF16, *layout, *OVERLAP), bucket)
    assert not plain[0]["started"]
    for one, other in zip(own, plain, strict=True):
        np.testing.assert_allclose(one["steps"], other["steps"], rtol=2e-6)
        for norms, their_norms in zip(one["norms"], other["norms"], strict=True):
            np.testing.assert_allclose(norms.total, their_norms.total, rtol=1e-6)
            np.testing.assert_allclose(norms.embedding, their_norms.embedding, rtol=1e-6)
            np.testing.assert_allclose(norms.layers, their_norms.layers, rtol=1e-6)
        np.testing.assert_allclose(one["held"].losses, other["held"].losses, rtol=1e-5)
        if case == "two replicas":
            before = one["started"].index("finish")
            assert before > 5, "buckets are reduced while passes run"
    whole, expected = assemble(own), assemble(plain)
    assert whole.keys() == expected.keys()
    for key, values in expected.items():
        if key[1] == "weights":
            continue  # the masters, rounded to bf16: now and then to the neighbouring number
        scale = np.abs(values).max()
        np.testing.assert_allclose(whole[key], values, atol=1e-5 * scale, rtol=1e-4, err_msg=key)


def set_back(rank: int, world_size: int, overrides: tuple[str, ...], folder: Any) -> list[Any]:
    """Two steps, a save, two more; back to the save at once, and the two steps again."""
    from tests.helpers.rank_runs import progress_after
    from train.checkpoint import restore, verify_together
    from train.engine.pipeline import PipelineEngine

    config = config_of(overrides, world_size)
    with rank_session(rank, world_size, config) as session:
        engine = PipelineEngine(config, session)
        train(engine, session, config, 0, 2)
        saver = saver_of(engine, session, config, folder)
        saver.save(progress_after(2))
        first = train(engine, session, config, 2, 2)
        (outcome,) = saver.finish()
        restore(engine, outcome.folder, verify_together(outcome.folder, session))
        second = train(engine, session, config, 2, 2)
        engine.close()
    return [first, second]


def test_a_run_set_back_while_weights_travel_repeats_its_bits(tmp_path: Any) -> None:
    words = (*BF16[:3], "optim.global_batch_size=4", *OVERLAP)
    for first, second in run_distributed(set_back, 2, words, tmp_path):
        assert first == second


@pytest.mark.parametrize("words", [("precision=fp32",), ("precision=auto",)])
def test_it_is_for_bf16(words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"Try parallel\.overlap=false, or precision=bf16"):
        load_config([*OVERLAP, *words])


def not_finite(rank: int, world_size: int, overrides: tuple[str, ...]) -> tuple[Any, Any, int]:
    """Two steps, then one in which the last replica's own part of the gradients holds a NaN."""
    from train.engine.pipeline import PipelineEngine

    config = config_of(overrides, world_size)
    with rank_session(rank, world_size, config) as session:
        engine = PipelineEngine(config, session)
        train(engine, session, config, 0, 2)
        engine.settle()
        before = held_state(engine, session, config)

        def spoil(_: Any) -> None:
            if rank == world_size - 1:
                engine.deepspeed.optimizer.fp32_groups_gradient_flat_partition[0][0] = float("nan")

        remove = engine.add_hook(spoil)
        train(engine, session, config, 2, 1)
        remove()
        after = held_state(engine, session, config)
        train(engine, session, config, 2, 1)
        skipped = engine.deepspeed.skipped_steps
        engine.close()
    return before, after, skipped


def test_a_gradient_that_is_not_finite_on_one_replica_skips_the_step_on_all() -> None:
    ranks = run_distributed(not_finite, 2, (*BF16, *OVERLAP))
    held_before, held_after, skipped = (list(each) for each in zip(*ranks, strict=True))
    assert skipped == [1, 1]
    before, after = assemble(held_before), assemble(held_after)
    for key, values in before.items():
        np.testing.assert_array_equal(after[key], values, err_msg=str(key))
