"""What observers measure of the layers is the same on every layout, and what a plain model has."""

import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from configs.schema import LossWeighting
from data_pipeline.batch import collate
from glm.checkpoint.reader import load_full_tensors
from glm.model import GLMModel, layer_index
from tests.helpers.distributed import run_distributed
from tests.helpers.rank_runs import (
    BATCH,
    allow_fp16,
    config_of,
    rank_session,
    save_after,
    small_dataset,
    train,
)
from train.batches import row_weights, to_micro_batch
from train.observe.activations import ActivationObserver
from train.observe.memory import MemoryObserver
from train.observe.norms import GradientObserver, WeightObserver
from train.observe.observers import ObservedStep
from train.plan import TrainingPlan
from train.progress import Progress

FP32, BF16 = ("precision=fp32",), ("precision=bf16",)
# Of numbers that are added up in another order.
CLOSE = {FP32: 2e-5, BF16: 2e-2}
LAYOUTS = [
    (1, FP32, ("parallel.recompute=full",)),
    (1, FP32, ("parallel.recompute=selective",)),
    (4, FP32, ("parallel.tp=2", "parallel.pp=2")),
    (4, FP32, ("parallel.tp=2", "parallel.sequence=true", "parallel.zero_stage=0")),
    (4, FP32, ("parallel.tp=2",)),
    (4, FP32, ("parallel.pp=2", "parallel.recompute=full")),
    (2, FP32, ("parallel.pp=2", "parallel.schedule=interleaved", "parallel.chunks=3")),
    (4, BF16, ("parallel.tp=2", "parallel.pp=2", "parallel.sequence=true")),
    (2, BF16, ("parallel.overlap=true",)),
]


def observed(
    rank: int, world_size: int, overrides: tuple[str, ...], every: int, checkpoints: Path
) -> list[dict[str, Any]]:
    """The details of three steps; a checkpoint is written after them."""
    from train.engine.pipeline import PipelineEngine

    allow_fp16()
    config = config_of(overrides, world_size)
    plan = TrainingPlan.from_config(config)
    found: list[dict[str, Any]] = []
    with rank_session(rank, world_size, config) as session:
        engine = PipelineEngine(config, session)
        observers = [
            GradientObserver(every, engine),
            WeightObserver(every, engine, session, config.model.num_layers),
            ActivationObserver(every, engine, session, config),
            MemoryObserver(every, engine, session),
        ]
        for step in range(3):
            for observer in observers:
                observer.begin(step + 1)
            watches = (engine.module.on_layer, engine._on_gradient)
            is_due = (step + 1) % every == 0
            assert [watch is not None for watch in watches][1] == is_due
            assert is_due or watches[0] is None
            train(engine, session, config, step, 1)
            planned = plan.step_at(BATCH * step)
            ended = ObservedStep(planned, Progress(step + 1), cast(Any, None), None)
            found.append({})
            for observer in observers:
                found[-1].update(observer.end(ended))
            assert (engine.module.on_layer, engine._on_gradient) == (None, None)
        save_after(engine, session, config, checkpoints, 3, 0)
        engine.close()
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], Any]:
    """On one rank, by precision: the details, and the checkpoint."""
    found = {}
    for precision in CLOSE:
        folder = tmp_path_factory.mktemp("alone")
        (steps,) = run_distributed(observed, 1, precision, 1, folder)
        found[precision] = (steps, *folder.glob("step_*"))
    return found


def flat(details: dict[str, Any]) -> list[float]:
    """The norms and sizes in one line."""
    layers = [each for key in sorted(details) if key.startswith("layers/") for each in details[key]]
    return [*layers, *details["parts/weight_norm"].values()]


@pytest.mark.parametrize("world_size, precision, overrides", LAYOUTS, ids=str)
def test_layouts_measure_the_same(
    world_size: int,
    precision: tuple[str, ...],
    overrides: tuple[str, ...],
    alone: dict[tuple[str, ...], Any],
    tmp_path: Path,
) -> None:
    ranks = run_distributed(observed, world_size, (*precision, *overrides), 1, tmp_path)
    expected, _ = alone[precision]
    for steps in ranks:
        assert steps == ranks[0], "every rank knows the same"
        for details, alike in zip(steps, expected, strict=True):
            assert len(flat(details)) == 3 * 4 + 2
            np.testing.assert_allclose(flat(details), flat(alike), rtol=CLOSE[precision])


def test_steps_that_are_not_due_have_nothing_and_change_nothing(
    alone: dict[tuple[str, ...], Any], tmp_path: Path
) -> None:
    (steps,) = run_distributed(observed, 1, FP32, 2, tmp_path)
    expected, _ = alone[FP32]
    assert (steps[0], steps[2]) == ({}, {})
    assert flat(steps[1]) == flat(expected[1])


def test_weight_norms_are_those_of_the_stored_weights(alone: dict[tuple[str, ...], Any]) -> None:
    for steps, checkpoint in alone.values():
        tensors = load_full_tensors(checkpoint)

        def norm(tensors: list[torch.Tensor]) -> float:
            return float(torch.cat([each.double().reshape(-1) for each in tensors]).norm())

        layers = [
            norm([each for name, each in tensors.items() if layer_index(name) == layer])
            for layer in range(4)
        ]
        final = [tensors["final_norm.weight"], tensors["final_norm.bias"]]
        details = steps[-1]
        assert details["layers/weight_norm"] == pytest.approx(layers, rel=1e-12)
        assert details["parts/weight_norm"] == pytest.approx(
            {
                "embedding": norm([tensors["word_embeddings.weight"]]),
                "final_norm": norm(final),
            },
            rel=1e-12,
        )


def test_the_first_step_has_the_activations_and_gradients_of_a_plain_model(
    alone: dict[tuple[str, ...], Any],
) -> None:
    config = config_of(FP32, 1)
    dataset, model = small_dataset(config), GLMModel(config.model, config.seed)
    squares, losses = [0.0] * 4, torch.zeros(())
    for index in range(BATCH):
        batch = collate([dataset[index]])
        (tokens, fields), labels = to_micro_batch(batch, row_weights(batch, LossWeighting.row, 0))
        state = model.embedding((tokens, fields))
        for layer, module in enumerate(model.layers):
            state = module(state)
            squares[layer] += float(state[0].detach().double().square().sum())
        hidden, _ = model.final(state)
        logits = hidden[labels[0]] @ model.embedding.weight.t()
        losses = losses + torch.nn.functional.cross_entropy(logits, labels[1]) / BATCH
    losses.backward()
    count = BATCH * config.model.seq_length * config.model.hidden_size
    details = alone[FP32][0][0]
    expected = [math.sqrt(each / count) for each in squares]
    assert details["layers/activation_rms"] == pytest.approx(expected, rel=1e-6)
    norms = [
        math.sqrt(sum(float(p.grad.double().square().sum()) for p in module.parameters()))  # type: ignore[union-attr]
        for module in model.layers
    ]
    assert details["layers/gradient_norm"] == pytest.approx(norms, rel=1e-5)


def test_fp16_has_the_norms_of_gradients_that_only_the_observer_asks_for(
    alone: dict[tuple[str, ...], Any], tmp_path: Path
) -> None:
    words = ("precision=fp16", "stability.initial_loss_scale=256")
    for steps in run_distributed(observed, 2, words, 1, tmp_path):
        expected, _ = alone[FP32]
        np.testing.assert_allclose(
            steps[0]["layers/gradient_norm"], expected[0]["layers/gradient_norm"], rtol=2e-2
        )
        assert np.isfinite(flat(steps[0])).all()


def largest_gradients(rank: int, world_size: int, overrides: tuple[str, ...]) -> dict[str, Any]:
    """What an engine says that it holds, and its parameters; and the most that `grad` of all of them has held."""
    from train.engine.pipeline import PipelineEngine

    config = config_of(overrides, world_size)
    most, held = 0, []
    with rank_session(rank, world_size, config) as session:
        engine = PipelineEngine(config, session)
        parameters = list(engine.module.parameters())

        def look(_: torch.Tensor) -> None:
            nonlocal most
            now = sum(p.grad.untyped_storage().nbytes() for p in parameters if p.grad is not None)
            most = max(most, now)

        for parameter in parameters:
            parameter.register_post_accumulate_grad_hook(look)
        engine.add_hook(lambda _: held.append(engine.held_bytes()))
        train(engine, session, config, 0, 2)
        engine.close()
    count = sum(parameter.numel() for parameter in parameters)
    return {"held": held, "count": count, "most": most}


# Bytes of a parameter: weights, gradients, and on two replicas' share the optimizer's.
@pytest.mark.parametrize(
    "world_size, overrides, bytes_each",
    [
        (1, FP32, (4, 4, 8)),
        (2, (*FP32, "parallel.zero_stage=0"), (4, 4, 8)),
        (2, FP32, (4, 4, 12 / 2)),
        (1, BF16, (2, 4, 12)),
        (2, BF16, (2, 4, 12 / 2)),
        (2, (*BF16, "parallel.tp=2"), (2, 4, 12)),
    ],
    ids=str,
)
def test_memory_is_that_of_the_tensors(
    world_size: int, overrides: tuple[str, ...], bytes_each: tuple[float, float, float]
) -> None:
    for result in run_distributed(largest_gradients, world_size, overrides):
        _, held = result["held"]
        parts = (held.weights, held.gradients, held.optimizer)
        # Flat buffers end in a little padding; Adam counts its steps.
        for part, each in zip(parts, bytes_each, strict=True):
            assert part == pytest.approx(each * result["count"], rel=0.01)
        if overrides == FP32:
            assert held.gradients == result["most"]
