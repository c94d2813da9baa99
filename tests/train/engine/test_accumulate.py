"""Gradients of bf16 weights, added up in fp32 as they come: the bits are those of DeepSpeed's own way."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from glm.weight_gradient import add_product, add_weight_gradient, has_wide_product
from tests.helpers.distributed import run_distributed
from tests.helpers.operators import called_operators
from tests.helpers.rank_runs import config_of, held_state, rank_session, train
from train.engine.accumulate import Accumulation

THREE_MICRO_BATCHES = ("precision=bf16", "optim.global_batch_size=6", "optim.micro_batch_size=2")


class SumsAlone(Accumulation):
    """In place of Accumulation: what functions add to the sums themselves, while autograd's gradients take DeepSpeed's way."""

    def __init__(self, optimizer: Any, on_ready: Any) -> None:
        super().__init__(optimizer, on_ready)
        for hook in self._hooks:
            hook.remove()


def trained(rank: int, world_size: int, overrides: tuple[str, ...], is_own: bool) -> dict[str, Any]:
    """Three steps, one of them vetoed."""
    from train.engine import pipeline
    from train.engine.one_forward_one_backward import OneForwardOneBackward

    if not is_own:
        pipeline.Accumulation = SumsAlone  # type: ignore[misc, assignment]
    config = config_of(overrides, world_size)
    with rank_session(rank, world_size, config) as session:
        engine = pipeline.PipelineEngine(config, session)
        if not is_own:  # DeepSpeed's own passes collect what its own way takes
            engine._schedule = OneForwardOneBackward(engine.deepspeed)
        steps = train(engine, session, config, 0, 2)
        engine.add_hook(lambda update: update.veto("too large"))
        steps += train(engine, session, config, 2, 1)
        sums = engine.deepspeed.optimizer.fp32_groups_gradients_flat
        left = [float(flat.abs().sum()) for flat in sums]
        gradients = [p for p in engine.module.parameters() if p.grad is not None]
        state = held_state(engine, session, config)
        engine.close()
        hooks = [p for p in engine.module.parameters() if hasattr(p, "main_grad")]
    return {
        "steps": steps,
        "left": left,
        "held": len(gradients),
        "state": state,
        "kept": len(hooks),
    }


@pytest.mark.parametrize(
    "world_size, layout",
    [
        (1, ()),
        (2, ("parallel.tp=2",)),
        (2, ("parallel.pp=2",)),  # the tied matrix lies on two ranks
    ],
    ids=str,
)
def test_the_bits_are_those_of_deepspeeds_own_way(world_size: int, layout: tuple[str, ...]) -> None:
    overrides = (*THREE_MICRO_BATCHES, *layout)
    own = run_distributed(trained, world_size, overrides, True)
    other = run_distributed(trained, world_size, overrides, False)
    for one, theirs in zip(own, other, strict=True):
        assert one["steps"] == theirs["steps"]
        for group, twin in zip(one["state"]["groups"], theirs["state"]["groups"], strict=True):
            for kind in ("master", "exp_avg", "exp_avg_sq"):
                np.testing.assert_array_equal(group[kind], twin[kind])
        assert one["left"] == [0.0, 0.0], "a vetoed step leaves nothing in the sums"
        assert one["held"] == 0, "no bf16 gradient is kept from one pass to the next"
        assert one["kept"] == 0, "a closed engine lets go of its parameters"


def toy_optimizer(parameters: list[nn.Parameter]) -> Any:
    """What Accumulation needs of BF16_Optimizer."""
    return SimpleNamespace(
        bf16_groups=[parameters],
        fp32_groups_gradients=[[torch.zeros(p.numel()) for p in parameters]],
        fp32_groups_has_gradients=[[False] * len(parameters)],
    )


def test_a_gradient_is_added_without_a_temporary_and_let_go() -> None:
    weight = nn.Parameter(torch.randn(3, 4, dtype=torch.bfloat16))
    optimizer = toy_optimizer([weight])
    Accumulation(optimizer)
    for operator in ("aten::copy_", "aten::add_"):  # the first one need not be added to zeros
        with called_operators() as names:
            (weight * torch.full((3, 4), 0.5, dtype=torch.bfloat16)).sum().backward()
        backward = names[names.index("aten::ones_like") :]
        assert backward[-1] == operator and "aten::_to_copy" not in backward
    (total,) = optimizer.fp32_groups_gradients[0]
    assert torch.equal(total, torch.ones(12)) and weight.grad is None
    assert optimizer.fp32_groups_has_gradients == [[True]]


def test_a_layer_may_add_its_product_itself() -> None:
    weight = nn.Parameter(torch.zeros(3, 4, dtype=torch.bfloat16))
    generator = torch.Generator().manual_seed(1)
    outputs = torch.randn(5, 3, generator=generator).bfloat16()
    inputs = torch.randn(5, 4, generator=generator).bfloat16()
    product = outputs.t() @ inputs
    plain = add_weight_gradient(weight, outputs, inputs)
    assert plain is not None and torch.equal(plain, product)
    optimizer = toy_optimizer([weight])
    accumulation = Accumulation(optimizer)
    for _ in range(2):
        assert add_weight_gradient(weight, outputs, inputs) is None
    (total,) = optimizer.fp32_groups_gradients[0]
    assert torch.equal(total.view(3, 4), product.float() + product.float())
    assert optimizer.fp32_groups_has_gradients == [[True]] and weight.grad is None
    accumulation.close()
    assert add_weight_gradient(weight, outputs, inputs) is not None


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, weight: nn.Parameter) -> torch.Tensor:
        ctx.weight = weight
        ctx.save_for_backward(inputs)
        return inputs @ weight.t()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return None, add_weight_gradient(ctx.weight, gradients[0], *ctx.saved_tensors)


def test_a_function_that_has_added_its_product_returns_nothing_to_autograd() -> None:
    weight = nn.Parameter(torch.zeros(3, 4, dtype=torch.bfloat16))
    optimizer = toy_optimizer([weight])
    Accumulation(optimizer)
    inputs = torch.ones(5, 4, dtype=torch.bfloat16)
    for _ in range(2):
        output: Any = _Product.apply(inputs, weight)
        output.sum().backward()
    assert torch.equal(optimizer.fp32_groups_gradients[0][0], torch.full((12,), 10.0))
    assert weight.grad is None and optimizer.fp32_groups_has_gradients == [[True]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_a_product_is_added_in_place(dtype: torch.dtype, beta: float) -> None:
    generator = torch.Generator().manual_seed(1)
    left = torch.randn(3, 5, generator=generator).to(dtype)
    right = torch.randn(5, 4, generator=generator).to(dtype)
    total = torch.full((3, 4), float("nan") if beta == 0.0 else 2.0)
    expected = 0.25 * (left @ right).float() + (2.0 if beta else 0.0)
    add_product(total, left, right, alpha=0.25, beta=beta)
    torch.testing.assert_close(total, expected, rtol=1e-6, atol=1e-6)


def test_no_cpu_is_taken_for_one_with_wide_products() -> None:
    assert not has_wide_product(torch.device("cpu"), torch.bfloat16)
