"""Recompute none, selective and full: the same bits, one plan a micro-batch, and ever less memory."""

import gc
from typing import Any

import numpy as np
import pytest
import torch
from torch.autograd.profiler import profile
from torch.utils.checkpoint import set_checkpoint_early_stop

from configs.load import load_config
from configs.schema import Recompute
from glm.layer import GLMLayer
from glm.row_fields import pack_fields
from glm.tensor_parallel import ensure_initialised
from tests.helpers.distributed import run_distributed
from tests.helpers.operators import called_operators
from tests.helpers.rank_runs import config_of, held_state, rank_session, train
from train.engine.recompute import checkpoint_function, kept_operators

MODES = [mode.value for mode in Recompute]


def trained(rank: int, world_size: int, overrides: tuple[str, ...]) -> dict[str, Any]:
    """Two steps of four micro-batches in each mode, and the plans that they made."""
    from glm import row_plan
    from train.engine.pipeline import PipelineEngine

    made = []
    plan_init = row_plan.RowPlan.__init__

    def counted(self: Any, *args: Any, **kwargs: Any) -> None:
        made.append(self)
        plan_init(self, *args, **kwargs)

    row_plan.RowPlan.__init__ = counted  # type: ignore[method-assign]
    results = {}
    with rank_session(rank, world_size, config_of(overrides, world_size)) as session:
        for mode in MODES:
            config = config_of((*overrides, f"parallel.recompute={mode}"), world_size)
            engine = PipelineEngine(config, session)
            made.clear()
            steps = train(engine, session, config, 0, 2)
            results[mode] = (steps, held_state(engine, session, config), len(made))
            engine.close()
    return results


@pytest.mark.parametrize(
    "world_size, overrides",
    [
        (1, ("precision=fp32", "model.hidden_dropout=0.1")),
        (1, ("precision=bf16", "model.attention=reference")),
        (4, ("precision=fp32", "parallel.tp=2", "parallel.pp=2")),
        (
            1,
            (
                "precision=fp32",
                "model.norm=sandwich",
                "model.qk_norm=true",
                "model.hidden_dropout=0.1",
            ),
        ),
        (1, ("precision=bf16", "model.norm=pre", "model.softmax_fp32=false")),
    ],
    ids=str,
)
def test_the_modes_differ_in_no_bit(world_size: int, overrides: tuple[str, ...]) -> None:
    for result in run_distributed(trained, world_size, overrides):
        steps, state, num_plans = result["none"]
        assert num_plans == 2 * 4, "one plan a micro-batch, on every stage"
        for mode in MODES[1:]:
            other_steps, other, other_plans = result[mode]
            assert other_steps == steps
            assert other_plans == num_plans, f"{mode}: the second pass makes no plan of its own"
            for group, twin in zip(state["groups"], other["groups"], strict=True):
                for kind in ("master", "exp_avg", "exp_avg_sq"):
                    np.testing.assert_array_equal(group[kind], twin[kind], err_msg=mode)


def one_layer(attention: str) -> tuple[GLMLayer, torch.Tensor, torch.Tensor]:
    ensure_initialised()
    words = ["model.hidden_size=64", "model.num_heads=4", "model.ffn_size=192", "precision=fp32"]
    model = load_config([*words, f"model.attention={attention}", "model.seq_length=128"]).model
    torch.manual_seed(1)
    hidden = torch.randn(2 * 128, 64, requires_grad=True)
    return GLMLayer(model, 0, seed=1), hidden, two_rows()


def two_rows() -> torch.Tensor:
    """Fields of two rows of one segment each, half of it targets."""
    place = torch.arange(128).expand(2, 128)
    is_context = place < 64
    numbers = torch.tensor([3, 4])
    return pack_fields(torch.ones_like(place), is_context, place, place, ~is_context, numbers)


def run_layer(mode: str, layer: GLMLayer, hidden: torch.Tensor, fields: torch.Tensor) -> Any:
    def call(hidden: torch.Tensor, fields: torch.Tensor) -> Any:
        return layer((hidden, fields))

    if mode == "none":
        return call(hidden, fields)
    return checkpoint_function(Recompute(mode))(call, hidden, fields)


@pytest.mark.parametrize("attention", ["sdpa", "reference"])
def test_each_mode_keeps_less(attention: str) -> None:
    """Bytes that the allocator has alive between the passes beyond those before, event by event."""
    layer, hidden, fields = one_layer(attention)
    run_layer("none", layer, hidden, fields)  # the plan is there from now on
    kept = {}
    for mode in MODES:
        gc.collect()
        with profile(profile_memory=True) as recorded:
            outputs = run_layer(mode, layer, hidden, fields)
        events: Any = recorded.kineto_results
        kept[mode] = sum(each.nbytes() for each in events.events() if each.name() == "[memory]")
        del outputs
    one = hidden.numel() * 4
    # The reference path keeps its scores' weights either way.
    assert kept["none"] > 1.15 * kept["selective"] and kept["selective"] > 2 * kept["full"]
    assert one <= kept["full"] < 1.5 * one, "the output; the input was there before"


def test_selective_repeats_no_product_and_no_attention() -> None:
    layer, hidden, fields = one_layer("sdpa")
    expensive = {str(operator).rpartition(".")[0] for operator in kept_operators()}
    counts = {}
    for mode in MODES:
        with called_operators() as names:
            output, _ = run_layer(mode, layer, hidden, fields)
            output.sum().backward()
        found = [name.replace("::", ".") for name in names]
        counts[mode] = sum(name in expensive for name in found)
        counts[f"{mode}, norms"] = found.count("aten.native_layer_norm")
    assert counts["none"] == counts["selective"] < counts["full"]
    assert counts["none, norms"] < counts["selective, norms"] == counts["full, norms"]


def test_the_second_pass_stops_early() -> None:
    """What follows the last tensor that the backward pass needs is not computed again."""
    layer, hidden, fields = one_layer("sdpa")
    run_layer("none", layer, hidden, fields)  # the plan is there from now on
    counts = {}
    for stops in (True, False):
        with set_checkpoint_early_stop(stops), called_operators() as names:
            output, _ = run_layer("full", layer, hidden, fields)
            output.sum().backward()
        counts[stops] = len(names)
    assert counts[True] < counts[False]
