"""Section: FlexAttention against the reference, numerically and in time, on rows of every kind.

What is compared is bf16 by FlexAttention with fp32 by the reference on the same (bf16) inputs; queries are widened, so
that a softmax that is not computed in fp32 is found out. FlexAttention has no backward pass on CPU: a dry run compares
the forward pass alone.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.gpu.bench import Bench, graphs_so_far, milliseconds
from benchmarks.gpu.rows import KINDS, fields_of
from glm.attention_paths import flex_attention, reference_attention
from glm.fused import observing
from glm.row_fields import may_attend
from glm.row_plan import RowPlan

# Largest difference over the largest value; bf16 keeps 8 bits.
_LIMIT = 0.02
# Of the queries: scores then spread over some 30, and bf16 is off by 0.1 there.
_WIDE = 6.0
# Longer rows would spend the section on the reference.
_TIMED_LENGTH = 2048


@dataclass(frozen=True)
class Shape:
    """Sizes of one compiled kernel."""

    heads: int
    head: int
    length: int


# 130B's heads at tp 4 first; then its width in narrower heads; then long rows, whose reference needs most memory.
_SHAPES = (
    *(Shape(24, 128, 2048), Shape(48, 64, 2048), Shape(96, 32, 2048)),
    *(Shape(8, 128, 8192), Shape(8, 64, 8192), Shape(8, 32, 8192)),
)
_TINY = (Shape(2, 16, 128),)


class Flex:
    """FlexAttention, with a count of the graphs that are compiled for it."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, plan: RowPlan) -> Tensor:
        """Attend."""
        before = graphs_so_far()
        mixed = flex_attention(q, k, v, plan)
        self.graphs += graphs_so_far() - before
        return mixed


def measure(bench: Bench) -> None:
    """Each shape is compiled once, and then runs rows of every kind."""
    for shape in _TINY if bench.is_dry else _SHAPES:
        causal, flex = _causal_ms(shape, bench.device), Flex()
        times = {kind: _compare(bench, flex, shape, kind) for kind in KINDS}
        name = f"{shape.heads} heads of {shape.head}, {shape.length} tokens"
        if not bench.is_dry:  # on CPU it is not compiled for rows of every kind alike
            bench.check(f"one graph: {name}", flex.graphs == 1, graphs=flex.graphs)
        first = times["[gMASK]"]
        bench.record("causal call of sdpa", **vars(shape), both_ms=causal)
        bench.say(
            f"{name}: [gMASK] {first['both_ms']:.2f} ms both passes, {first['tflops']:.0f} TFLOP/s of allowed pairs, "
            f"a causal call {causal:.2f} ms, the reference {first.get('reference_ms', math.nan):.2f} ms"
        )


def _compare(bench: Bench, flex: Flex, shape: Shape, kind: str) -> dict[str, float]:
    """Check one kind of rows, and take its times."""
    device = bench.device
    plan = RowPlan.of(fields_of(kind, shape.length, device))
    is_real = (plan.fields[:, 0] > 0)[:, None, :, None]
    generator = torch.Generator().manual_seed(shape.length + shape.head)
    size = (1, shape.heads, shape.length, shape.head)
    q, k, v, weight = (torch.randn(size, generator=generator).to(device) for _ in range(4))
    inputs = [values.bfloat16() for values in (q * _WIDE, k, v)]
    weight = (weight * is_real).bfloat16()

    has_backward = not bench.is_dry
    found, gradients = _passes(flex, inputs, weight, plan, has_backward)
    wide = [values.float() for values in inputs]
    with observing(
        lambda function, given: function.function(*given)
    ):  # what is exact is not compiled
        exact, exact_gradients = _passes(reference_attention, wide, weight.float(), plan, True)
    rounded = _bf16_softmax(inputs, plan)
    ours, theirs = (_rms((each - exact) * is_real, exact * is_real) for each in (found, rounded))
    pairs = [("output", found * is_real, exact * is_real)]
    names = ("queries", "keys", "values")
    pairs += list(zip(names, gradients, exact_gradients, strict=False))
    differences = {name: _largest(one - other, other) for name, one, other in pairs}
    about = {**vars(shape), "kind": kind}
    bench.check(
        f"flex = reference: {kind}",
        max(differences.values()) <= _LIMIT and bool(found.isfinite().all()),
        **about,
        differences=differences,
        limit=_LIMIT,
    )
    # Only a row of one long segment has softmaxes over many numbers, whatever the sizes.
    if kind == "[gMASK]":
        bench.check("softmax in fp32", ours <= theirs / 2, **about, ours=ours, in_bf16=theirs)
    for gradient in gradients:
        is_zero = bool((gradient * ~is_real == 0).all())
        bench.check(f"padding passes nothing on: {kind}", is_zero, **about)
    return _times(bench, flex, inputs, weight, plan, about)


def _times(
    bench: Bench,
    flex: Flex,
    inputs: list[Tensor],
    weight: Tensor,
    plan: RowPlan,
    about: dict[str, Any],
) -> dict[str, float]:
    has_backward = not bench.is_dry

    def forward() -> None:
        # With gradients wanted, as in training: without, another graph would be compiled.
        flex(*[values.detach().requires_grad_(has_backward) for values in inputs], plan)

    def both() -> None:
        _passes(flex, inputs, weight, plan, has_backward)

    def reference() -> None:
        _passes(reference_attention, inputs, weight, plan, True)

    allowed = int(may_attend(plan.fields).sum())
    forward_ms, both_ms = (milliseconds(call, bench.device) for call in (forward, both))
    # Two products forward, five backward.
    products = (7 if has_backward else 2) * 2 * allowed * about["heads"] * about["head"]
    times = {"forward_ms": forward_ms, "both_ms": both_ms, "tflops": products / both_ms / 1e9}
    if about["kind"] == "[gMASK]" and about["length"] <= _TIMED_LENGTH:
        times["reference_ms"] = milliseconds(reference, bench.device)
    bench.record("attention", **about, allowed=allowed / about["length"] ** 2, **times)
    return times


def _passes(
    path: Callable[..., Tensor],
    inputs: list[Tensor],
    weight: Tensor,
    plan: RowPlan,
    has_backward: bool,
) -> tuple[Tensor, list[Tensor]]:
    """The output, and the gradients of queries, keys and values where there is a backward pass."""
    leaves = [values.detach().requires_grad_(has_backward) for values in inputs]
    output = path(*leaves, plan)
    if not has_backward:
        return output.detach(), []
    return output.detach(), list(torch.autograd.grad((output * weight).sum(), leaves))


def _bf16_softmax(inputs: list[Tensor], plan: RowPlan) -> Tensor:
    """What attention gives if scores are rounded to bf16 before the softmax."""
    q, k, v = inputs
    scores = (q / q.shape[-1] ** 0.5) @ k.transpose(-1, -2)
    scores = scores.masked_fill(~plan.attention_mask, torch.finfo(scores.dtype).min)
    return scores.softmax(-1) @ v


def _causal_ms(shape: Shape, device: torch.device) -> float:
    size = (1, shape.heads, shape.length, shape.head)
    inputs = [torch.randn(size, device=device).bfloat16().requires_grad_() for _ in range(3)]
    weight = torch.randn(size, device=device).bfloat16()

    def call() -> None:
        output = scaled_dot_product_attention(*inputs, is_causal=True)
        torch.autograd.grad(output, inputs, weight)

    return milliseconds(call, device)


def _largest(difference: Tensor, exact: Tensor) -> float:
    return float(difference.abs().max() / exact.abs().max())


def _rms(difference: Tensor, exact: Tensor) -> float:
    return float(difference.float().pow(2).mean().sqrt() / exact.pow(2).mean().sqrt())
