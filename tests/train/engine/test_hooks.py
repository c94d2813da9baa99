"""Hooks before the update: they see the gradient's norms, and a veto leaves nothing of the step behind."""

from typing import Any

import numpy as np
import pytest

from tests.helpers.distributed import run_distributed
from tests.helpers.rank_runs import allow_fp16, config_of, held_state, rank_session, train

LAYOUTS = [
    (1, ("precision=fp32", "parallel.zero_stage=0")),
    (1, ("precision=fp32",)),
    (4, ("precision=fp32", "parallel.zero_stage=0", "parallel.tp=2")),
    (4, ("precision=fp32", "parallel.tp=2")),
    (4, ("precision=bf16", "parallel.tp=2", "parallel.pp=2")),
    (2, ("precision=fp16",)),
    (2, ("precision=bf16", "parallel.pp=2", "parallel.schedule=interleaved")),
]


def vetoed_step(rank: int, world_size: int, overrides: tuple[str, ...]) -> dict[str, Any]:
    """Four steps, a fifth that is vetoed, a sixth; and the same without the fifth."""
    from train.engine.pipeline import PipelineEngine

    allow_fp16()
    config = config_of(overrides, world_size)
    with rank_session(rank, world_size, config) as session:
        engine = PipelineEngine(config, session)
        train(engine, session, config, 0, 4)
        before = (held_state(engine, session, config), engine.state.numbers())
        verdicts = ["too large"]
        outcomes: list[Any] = []
        train_step = engine.train_step

        def recorded(*arguments: Any) -> Any:
            outcomes.append(train_step(*arguments))
            return outcomes[-1]

        engine.train_step = recorded
        engine.add_hook(lambda update: [update.veto(verdicts.pop()) for _ in verdicts[:1]])
        train(engine, session, config, 4, 1)
        after = (held_state(engine, session, config), engine.state.numbers())
        kept = getattr(engine.deepspeed.optimizer, "averaged_gradients", {})
        left = [group for group, gradients in kept.items() if gradients is not None]
        sixth = train(engine, session, config, 5, 1)
        last = held_state(engine, session, config)
        engine.close()

        control = PipelineEngine(config, session)
        train(control, session, config, 0, 4)
        expected = train(control, session, config, 5, 1)
        expected_last = held_state(control, session, config)
        control.close()
    return {
        "states": (before[0], after[0]),
        "numbers": (before[1], after[1]),
        "left": left,
        "outcomes": [(outcome.was_skipped, outcome.vetoes) for outcome in outcomes],
        "norm": outcomes[0].grad_norm,
        "sixth": (sixth, expected),
        "last": (last, expected_last),
    }


def assert_equal(one: Any, other: Any) -> None:
    """Bit for bit, arrays in nested plain values."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert_equal(value, other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for value, twin in zip(one, other, strict=True):
            assert_equal(value, twin)
    elif isinstance(one, np.ndarray):
        np.testing.assert_array_equal(one, other)
    else:
        assert one == other


@pytest.mark.parametrize("world_size, overrides", LAYOUTS, ids=str)
def test_a_veto_leaves_everything_as_it_was(world_size: int, overrides: tuple[str, ...]) -> None:
    for result in run_distributed(vetoed_step, world_size, overrides):
        assert_equal(*result["states"])
        before, after = result["numbers"]
        for numbers in (before, after):
            del numbers["counters"]  # the engine has seen a step, and counts it as skipped
        assert before == after and before["step"] == 4.0
        assert not result["left"], "averaged gradients of the vetoed step are still there"
        assert result["outcomes"] == [(True, ("too large",)), (False, ())]
        assert 0 < result["norm"] < np.inf
        # Nor do gradients of the vetoed step reach the next one.
        assert_equal(*result["sixth"])
        assert_equal(*result["last"])


def measured_norms(rank: int, world_size: int, overrides: tuple[str, ...]) -> dict[str, Any]:
    """What a hook sees in each of three steps, and the engine's own figures."""
    from train.engine.pipeline import PipelineEngine

    allow_fp16()
    config = config_of(overrides, world_size)
    seen: list[Any] = []
    squares: list[float] = []
    with rank_session(rank, world_size, config) as session:
        engine = PipelineEngine(config, session)
        engine.add_hook(lambda update: seen.append(update.norms))
        train_step = engine.train_step

        def recorded(*arguments: Any) -> Any:
            outcome = train_step(*arguments)
            squares.append(session.sum([outcome.embedding_sum_of_squares])[0])
            return outcome

        engine.train_step = recorded
        results = train(engine, session, config, 0, 3)
        engine.close()
    return {"seen": seen, "norms": [norm for _, norm in results], "squares": squares}


def test_hooks_see_the_norms_of_the_whole_model_on_every_layout() -> None:
    (alone,) = run_distributed(measured_norms, 1, LAYOUTS[1][1])
    for world_size, overrides in LAYOUTS:
        rtol = 1e-5 if "precision=fp32" in overrides else 5e-2
        for result in run_distributed(measured_norms, world_size, overrides):
            for norms, expected in zip(result["seen"], alone["seen"], strict=True):
                assert len(norms.layers) == 4
                np.testing.assert_allclose(
                    [norms.total, norms.embedding, *norms.layers],
                    [expected.total, expected.embedding, *expected.layers],
                    rtol=rtol,
                )
                parts = norms.embedding**2 + sum(norm**2 for norm in norms.layers)
                assert parts < norms.total**2, "the final norm has a gradient too"
            totals = [norms.total for norms in result["seen"]]
            np.testing.assert_allclose(totals, result["norms"], rtol=1e-5)
            embedding = [norms.embedding**2 for norms in result["seen"]]
            np.testing.assert_allclose(embedding, result["squares"], rtol=1e-12)


def exchanges_of_steps(rank: int, world_size: int, overrides: tuple[str, ...]) -> dict[str, Any]:
    """Two steps without a hook, then the same two with one that reads: norms, and exchanges within each step."""
    from train.engine.pipeline import PipelineEngine
    from train.session import Session

    allow_fp16()
    config = config_of(overrides, world_size)
    found: dict[str, Any] = {}
    count = 0
    reduce = Session._reduce

    def counted(*arguments: Any) -> list[float]:
        nonlocal count
        count += 1
        return reduce(*arguments)

    Session._reduce = staticmethod(counted)  # type: ignore[method-assign]
    with rank_session(rank, world_size, config) as session:
        for name in ("without", "with"):
            engine = PipelineEngine(config, session)
            seen: list[Any] = []
            if name == "with":
                engine.add_hook(lambda update, seen=seen: seen.append((update.norms, update.norms)))
            steps: list[Any] = []
            train_step = engine.train_step

            def recorded(*arguments: Any, train_step: Any = train_step, steps: Any = steps) -> Any:
                before = count
                outcome = train_step(*arguments)
                steps.append((outcome.norms, outcome.grad_norm, count - before))
                return outcome

            engine.train_step = recorded  # type: ignore[method-assign]
            train(engine, session, config, 0, 2)
            engine.close()
            found[name] = steps
            found["seen"] = seen
    return found


@pytest.mark.parametrize("world_size, overrides", LAYOUTS, ids=str)
def test_each_gradient_is_measured_once_and_reported(
    world_size: int, overrides: tuple[str, ...]
) -> None:
    wrapper_updates = "precision=fp16" in overrides or (
        world_size > 1 and overrides == ("precision=fp32", "parallel.tp=2")
    )
    for result in run_distributed(exchanges_of_steps, world_size, overrides):
        for (norms, norm, exchanges), (with_hook, same_norm, their_exchanges), seen in zip(
            result["without"], result["with"], result["seen"], strict=True
        ):
            assert norm == same_norm
            assert seen == (with_hook, with_hook)
            if wrapper_updates:
                assert norms is None
                # fp32 agrees whether all gradients are finite; what the hook has read tells that as well.
                assert (exchanges, their_exchanges) == (
                    0 if "precision=fp16" in overrides else 1,
                    1,
                )
            else:
                assert norms == with_hook and norms.total == norm
                assert (exchanges, their_exchanges) == (1, 1)


def test_hooks_run_in_the_order_in_which_they_were_added() -> None:
    from types import SimpleNamespace

    from train.engine.update import UpdateGate

    order: list[str] = []
    optimizer = SimpleNamespace()
    gate = UpdateGate(
        optimizer,
        lambda _: order.append("update"),
        lambda: None,  # type: ignore[arg-type]
        lambda _: True,
        lambda _: order.append("observed"),
    )
    gate.add(lambda _: order.append("first"))
    gate.add(lambda _: order.append("second"))
    optimizer.step()
    assert order == ["first", "second", "observed", "update"]
