"""A step that is not finite is left out as if a hook had vetoed it: on all ranks, and nothing of it reaches later steps.

One run has something injected in every second step, on one rank; the control run is told to leave these steps out. From
then on both hold the same bytes.
"""

import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
import torch

from tests.helpers.distributed import run_distributed
from tests.helpers.rank_runs import allow_fp16, config_of, held_state, rank_session, train


class Injection(NamedTuple):
    """What is injected in a step."""

    where: str
    value: float
    hook: str = ""
    """What a hook does in the step: `reads` whether it is finite, or `vetoes` it as well."""


INJECTIONS = (
    Injection("activation", math.nan),
    Injection("cut gradient", math.inf),
    Injection("copied gradient", math.nan, hook="reads"),
    Injection("loss", math.inf),
    Injection("tied gradient", -math.inf, hook="vetoes"),
    Injection("loss", math.nan, hook="reads"),
)


@contextmanager
def injected(engine: Any, injection: Injection) -> Iterator[None]:
    """Inject on this rank, in one micro-batch of the step."""
    from glm.layer import GLMLayer
    from glm.model import EMBEDDING_NAME
    from glm.tensor_parallel import partition_dim

    parameters = dict(engine.module.named_parameters())
    cut = {name: each for name, each in parameters.items() if partition_dim(each) is not None}
    tied = next((name for name in cut if name.endswith(EMBEDDING_NAME)), None)
    if injection.where == "activation":
        layer = next(each for each in engine.module.modules() if isinstance(each, GLMLayer))
        undo = _spoil_output(layer, injection.value)
    elif injection.where == "loss":
        undo = _spoil_loss(engine._loss, injection.value)
    elif injection.where == "tied gradient":
        assert tied is not None, "the last stage has the head"
        undo = _spoil_gradient(parameters[tied], injection.value)
    elif injection.where == "cut gradient":
        name = [name for name in cut if name != tied][-1]
        undo = _spoil_gradient(parameters[name], injection.value)
    else:
        name = [name for name in parameters if name not in cut][-1]
        undo = _spoil_gradient(parameters[name], injection.value)
    try:
        yield
    finally:
        undo()


def _spoil_output(module: Any, value: float) -> Callable[[], None]:
    """In the second micro-batch."""
    calls = []

    def spoil(_: Any, __: Any, outputs: Any) -> Any:
        calls.append(1)
        if len(calls) != 2:
            return outputs
        hidden, *rest = outputs
        wrong = torch.zeros_like(hidden)
        wrong[0, 0] = value
        return (hidden + wrong, *rest)

    return module.register_forward_hook(spoil).remove


def _spoil_loss(loss: Any, value: float) -> Callable[[], None]:
    """In the first micro-batch; what the backward pass gets is not changed."""
    record = loss._record

    def spoil(losses: torch.Tensor, *others: Any) -> None:
        del loss._record
        losses = losses.clone()
        losses[0] = value
        record(losses, *others)

    loss._record = spoil
    return lambda: vars(loss).pop("_record", None)


def _spoil_gradient(parameter: Any, value: float) -> Callable[[], None]:
    """What this rank alone has, before it is added up with that of others."""
    from glm.weight_gradient import GRAD_READY, MAIN_GRAD

    if not hasattr(parameter, MAIN_GRAD):
        return parameter.register_hook(lambda gradient: _with(gradient, value)).remove
    ready = getattr(parameter, GRAD_READY)

    def spoil() -> None:
        total = getattr(parameter, MAIN_GRAD)
        total.copy_(_with(total, value))
        ready()

    setattr(parameter, GRAD_READY, spoil)
    return lambda: setattr(parameter, GRAD_READY, ready)


def _with(gradient: torch.Tensor, value: float) -> torch.Tensor:
    spoilt = gradient.detach().clone()
    spoilt.view(-1)[-1] = value
    return spoilt


class Run(NamedTuple):
    """What one rank has seen of a run, step by step."""

    skipped: list[bool]
    states: list[Any]
    """Digest of weights, masters and moments, and the numbers of the optimizer, engine and loss scaler."""
    results: list[Any]
    """Loss, gradient norms and loss scale of each step that was not left out."""
    finite: list[bool]
    """Whether all of the state, and all memory of gradients, is finite."""
    told: list[bool]
    """What hooks have read of `is_finite`."""


def run_of(engine: Any, session: Any, config: Any, is_control: bool) -> Run:
    """Train a step, then for each injection the step with it and one after it."""
    run = Run([], [], [], [], [])
    is_last = session.topology.rank == session.topology.world_size - 1
    outcomes: list[Any] = []
    train_step = engine.train_step
    engine.train_step = lambda *given: outcomes.append(train_step(*given)) or outcomes[-1]

    def step(number: int) -> None:
        ((loss, norm),) = train(engine, session, config, number, 1)
        outcome = outcomes.pop()
        run.skipped.append(outcome.was_skipped)
        if outcome.was_skipped and is_control and config.precision == "fp16":
            engine.deepspeed.optimizer.loss_scaler.update_scale(True)
        held = held_state(engine, session, config)
        engine.settle()
        digest, is_finite = _digest(held)
        run.states.append((digest, engine.state.numbers()))
        run.finite.append(is_finite and _gradients_are_finite(engine))
        if not outcome.was_skipped:
            run.results.append((loss, norm, outcome.norms, outcome.loss_scale))

    step(0)
    for number, injection in enumerate(INJECTIONS):
        remove = engine.add_hook(_hook("vetoes" if is_control else injection.hook, run.told))
        if is_last and not is_control:
            with injected(engine, injection):
                step(2 * number + 1)
        else:
            step(2 * number + 1)
        remove()
        step(2 * number + 2)
    return run


def _hook(does: str, told: list[bool]) -> Callable[[Any], None]:
    def hook(update: Any) -> None:
        if does:
            told.append(update.is_finite)
        if does == "vetoes":
            update.veto("left out")

    return hook


def _digest(held: Any) -> tuple[str, bool]:
    digest, is_finite = hashlib.sha256(), True
    arrays = [values for _, values in held["weights"].values()]
    for group in held["groups"]:
        digest.update(repr(group["step"]).encode())
        arrays += [group[kind] for kind in ("master", "exp_avg", "exp_avg_sq")]
    for values in arrays:
        digest.update(values.tobytes())
        is_finite = is_finite and bool(torch.from_numpy(values).isfinite().all())
    return digest.hexdigest(), is_finite


def _gradients_are_finite(engine: Any) -> bool:
    optimizer = engine.deepspeed.optimizer
    held = [each.grad for each in engine.module.parameters() if each.grad is not None]
    held += getattr(optimizer, "fp32_groups_gradients_flat", [])
    for group in getattr(optimizer, "averaged_gradients", {}).values():
        held += group or []
    return all(bool(each.isfinite().all()) for each in held)


def both_runs(rank: int, world_size: int, overrides: tuple[str, ...]) -> list[Run]:
    """The run with injections, and the control."""
    from train.engine.pipeline import PipelineEngine

    allow_fp16()
    config = config_of((*overrides, "optim.total_samples=80"), world_size)
    runs = []
    with rank_session(rank, world_size, config) as session:
        for is_control in (False, True):
            engine = PipelineEngine(config, session)
            runs.append(run_of(engine, session, config, is_control))
            engine.close()
    return runs


TP_DP = ("parallel.tp=2",)
TP_PP = ("parallel.tp=2", "parallel.pp=2")


@pytest.mark.parametrize(
    "world_size, overrides",
    [
        (1, ("precision=fp32",)),
        (4, ("precision=fp32", "parallel.zero_stage=0", *TP_DP)),
        (4, ("precision=fp32", *TP_DP)),
        (4, ("precision=fp32", *TP_PP)),
        (1, ("precision=bf16",)),
        (4, ("precision=bf16", *TP_DP)),
        (4, ("precision=bf16", *TP_PP)),
        (1, ("precision=fp16",)),
        (4, ("precision=fp16", *TP_DP)),
        (4, ("precision=fp16", *TP_PP)),
        (4, ("precision=bf16", *TP_DP, "parallel.overlap=true")),
        (4, ("precision=bf16", *TP_DP, "parallel.sequence=true")),
        (4, ("precision=bf16", "parallel.pp=2", "parallel.schedule=interleaved")),
    ],
    ids=str,
)
def test_a_step_that_is_not_finite_leaves_nothing_behind(
    world_size: int, overrides: tuple[str, ...]
) -> None:
    expected = [False] + [True, False] * len(INJECTIONS)
    for spoilt, control in run_distributed(both_runs, world_size, overrides):
        assert control.skipped == expected
        assert spoilt.skipped == expected
        assert all(spoilt.finite), "NaN or inf in weights, moments or memory of gradients"
        assert spoilt.told == [False] * sum(each.hook != "" for each in INJECTIONS)
        assert control.told == [True] * len(INJECTIONS)
        assert spoilt.states == control.states
        assert spoilt.results == control.results
        assert len(set(digest for digest, _ in spoilt.states)) == 1 + len(INJECTIONS)
