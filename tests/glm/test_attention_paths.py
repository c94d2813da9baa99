"""Every attention path against a naive one: float64, dense mask, written from the definition."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from glm import attention_paths
from glm.attention_paths import flex_attention, reference_attention, sdpa_attention
from glm.row_fields import pack_fields
from glm.row_plan import RowPlan

HEADS, SIZE = 2, 8


class Piece(NamedTuple):
    """One segment: its context, its targets, and the padding behind it."""

    context: int
    targets: int
    padding: int = 0


ROWS = {
    "length 1": [Piece(0, 1)],
    "length 7": [Piece(3, 4)],
    "length 512": [Piece(200, 312)],
    "length 2048": [Piece(1500, 548)],
    "empty prefix": [Piece(1, 63)],
    "context only": [Piece(64, 0)],
    "padding at the end": [Piece(20, 30, 14)],
    "four equal windows": [Piece(90, 30, 8), Piece(96, 32), Piece(50, 10, 68), Piece(100, 20, 8)],
    "four unequal segments": [Piece(5, 9), Piece(70, 33), Piece(1, 50, 3), Piece(60, 12, 13)],
    "two segments in a window": [Piece(20, 8), Piece(20, 8, 8), Piece(50, 14)],
    # [MASK] windows of two and three documents, one of them without a span; and a long [gMASK] row: two documents of
    # context, the one that is cut, two that are all target.
    "isolated documents in windows": [
        Piece(20, 9),
        Piece(15, 6, 14),
        Piece(30, 0),
        Piece(8, 4),
        Piece(10, 5, 7),
    ],
    "isolated documents of a long row": [
        Piece(130, 0),
        Piece(1, 0),
        Piece(97, 300),
        Piece(0, 80),
        Piece(0, 1, 3),
    ],
    "nothing but padding": [Piece(0, 0, 32)],
    "four unequal segments of a long row": [
        Piece(50, 90),
        Piece(400, 130),
        Piece(1, 250, 30),
        Piece(100, 60, 33),
    ],
}


def layout_of(*rows: list[Piece]) -> Tensor:
    """Fields (batch, 6, seq) of rows of equal length."""
    segments, contexts = [], []
    for row in rows:
        segment: list[int] = []
        context: list[bool] = []
        for number, piece in enumerate(row, start=1):
            segment += [number] * (piece.context + piece.targets) + [0] * piece.padding
            context += [True] * piece.context + [False] * (piece.targets + piece.padding)
        segments.append(segment)
        contexts.append(context)
    ids = torch.tensor(segments)
    zeros = torch.zeros_like(ids)
    return pack_fields(ids, torch.tensor(contexts), zeros, zeros, zeros, torch.arange(len(rows)))


def naive(q: Tensor, k: Tensor, v: Tensor, row: list[Piece]) -> Tensor:
    """One row (heads, seq, size) in float64 with a dense mask written from the definition; padding gives zeros."""
    seq = q.shape[1]
    mask = torch.eye(seq, dtype=torch.bool)
    is_real = torch.zeros(seq, 1)
    start = 0
    for piece in row:
        split, stop = start + piece.context, start + piece.context + piece.targets
        mask[start:split, start:split] = True
        for query in range(split, stop):
            mask[query, start : query + 1] = True
        is_real[start:stop] = 1
        start = stop + piece.padding
    scores = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).masked_fill(~mask, float("-inf"))
    return scores.softmax(-1) @ v * is_real


def dense_attention(q: Tensor, k: Tensor, v: Tensor, plan: RowPlan) -> Tensor:
    """The sdpa path of long rows on CUDA."""
    return attention_paths._folded(q, k, v, plan.attention_mask, 1)


PATHS = {"reference": reference_attention, "sdpa": sdpa_attention, "dense": dense_attention}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ROWS)
def test_forward_and_gradients_are_those_of_the_definition(path: str, name: str) -> None:
    check_forward_and_gradients(PATHS[path], ROWS[name], SIZE, "cpu", 1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: FlexAttention's kernels")
@pytest.mark.parametrize("name", ROWS)
def test_flex_attention_computes_forward_and_gradients_in_its_kernels(name: str) -> None:
    # Each length is compiled: after eight of them PyTorch would fall back to what the CPU computes.
    torch.compiler.reset()
    check_forward_and_gradients(flex_attention, ROWS[name], 16, "cuda", 1e-4)


def check_forward_and_gradients(
    path: Callable[[Tensor, Tensor, Tensor, RowPlan], Tensor],
    row: list[Piece],
    size: int,
    device: str,
    tolerance: float,
) -> None:
    """Compare a path on a device with the definition in float64; padding must pass no gradient on."""
    fields = layout_of(row)
    generator = torch.Generator().manual_seed(fields.shape[-1])
    shape = (1, HEADS, fields.shape[-1], size)
    inputs = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(3)]
    weight = torch.randn(shape, generator=generator, dtype=torch.float64)
    is_real = (fields[:, 0] > 0)[:, None, :, None]

    exact = [values.clone().requires_grad_() for values in inputs]
    expected = naive(*(values[0] for values in exact), row)[None]
    (expected * weight * is_real).sum().backward()

    tested = [values.float().to(device).requires_grad_() for values in inputs]
    q, k, v = tested
    on_device = path(q, k, v, RowPlan.of(fields.to(device)))
    nothing = sum((0 * values).sum() for values in tested)  # padding alone has no graph
    ((on_device * (weight.float() * is_real).to(device)).sum() + nothing).backward()
    outcome = on_device.detach().cpu()

    assert outcome.isfinite().all()
    assert_close(outcome * is_real, expected, tolerance)
    zeros = torch.zeros(shape)
    gradients = [zeros if values.grad is None else values.grad.cpu() for values in tested]
    exact_gradients = [zeros if values.grad is None else values.grad for values in exact]
    # One scale for all three: with a single token the gradients of queries and keys are exactly zero.
    exact_gradient = torch.stack([each.double() for each in exact_gradients])
    assert_close(torch.stack(gradients), exact_gradient, tolerance)
    for gradient in gradients:
        padding = gradient.masked_select(~is_real.expand(shape))
        assert (padding == 0).all(), "padding passes no gradient on"


def assert_close(tested: Tensor, exact: Tensor, tolerance: float = 1e-5) -> None:
    """Largest difference at most this part of the largest value."""
    largest = exact.abs().max()
    assert (tested.double() - exact).abs().max() <= tolerance * largest


BATCHES = {
    "short rows": [
        [Piece(90, 38)],
        ROWS["two segments in a window"],
        [Piece(20, 12), Piece(10, 22)] * 2,
        [Piece(5, 9), Piece(70, 30), Piece(1, 13)],
    ],
    "rows with and without a mask": [
        [Piece(300, 180, 32)],
        ROWS["four equal windows"],
        [Piece(0, 12), Piece(300, 200)],
        [Piece(500, 0), Piece(1, 11)],
    ],
}


@pytest.mark.parametrize("name", BATCHES)
def test_rows_of_a_batch_do_not_mix_whatever_path_each_takes(name: str) -> None:
    rows = BATCHES[name]
    fields = layout_of(*rows)
    generator = torch.Generator().manual_seed(0)
    shape = (len(rows), HEADS, fields.shape[-1], SIZE)
    inputs = [torch.randn(shape, generator=generator).requires_grad_() for _ in range(3)]
    exact = [values.detach().double().requires_grad_() for values in inputs]
    together = sdpa_attention(*inputs, RowPlan.of(fields))
    weight = torch.randn(shape, generator=generator)
    for index, row in enumerate(rows):
        alone = naive(*(values[index] for values in exact), row)
        is_real = (fields[index, 0] > 0)[:, None]
        assert_close(together[index] * is_real, alone)
        (alone * weight[index]).sum().backward()
    is_real = (fields[:, 0] > 0)[:, None, :, None]
    (together * weight * is_real).sum().backward()
    for values, wanted in zip(inputs, exact, strict=True):
        assert values.grad is not None and wanted.grad is not None
        assert_close(values.grad, wanted.grad)


def test_short_windows_are_folded_short_rows_are_whole_and_others_are_not_masked() -> None:
    assert RowPlan.of(layout_of(ROWS["four equal windows"])).folded_rows == {0: 4}
    assert RowPlan.of(layout_of([Piece(200, 56)])).folded_rows == {0: 1}
    assert RowPlan.of(layout_of([Piece(200, 57)])).folded_rows == {}
    assert RowPlan.of(layout_of(ROWS["four unequal segments of a long row"])).folded_rows == {}


def test_query_key_scaling_changes_nothing_but_the_range() -> None:
    fields = layout_of(ROWS["length 7"])
    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(1, HEADS, 7, SIZE, generator=generator) for _ in range(3))
    plan = RowPlan.of(fields)
    plain = reference_attention(q, k, v, plan)
    scaled = reference_attention(q, k, v, plan, scale_factor=70.0)
    torch.testing.assert_close(scaled, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ROWS)
def test_flex_attention_computes_the_forward_of_the_definition(name: str) -> None:
    # Its kernels, and its gradient, exist on CUDA only; what is tested here is the mask.
    fields = layout_of(ROWS[name])
    generator = torch.Generator().manual_seed(2)
    shape = (HEADS, fields.shape[-1], SIZE)
    q, k, v = (torch.randn(shape, generator=generator) for _ in range(3))
    is_real = (fields[0, 0] > 0)[:, None]
    flex = flex_attention(q[None], k[None], v[None], RowPlan.of(fields))[0]
    assert flex.isfinite().all()
    assert_close(flex * is_real, naive(q.double(), k.double(), v.double(), ROWS[name]))


def softmax_in(dtype: torch.dtype, scores: Tensor, v: Tensor) -> Tensor:
    """Attention whose exponentials, sum and weights are rounded to `dtype`; the rest is exact."""
    exponentials = (scores - scores.amax(-1, keepdim=True)).exp().to(dtype)
    total = torch.zeros_like(exponentials[..., :1])
    for key in range(scores.shape[-1]):
        total = total + exponentials[..., key : key + 1]
    return (exponentials / total).double() @ v.double()


def check_softmax_is_fp32(device: str) -> None:
    """300 equal scores: a sum in bf16 stops growing at 256, which makes every output 17 % too large."""
    row = [Piece(300, 20)]
    fields = layout_of(row).to(device)
    q = torch.zeros(1, HEADS, 320, 16, dtype=torch.bfloat16, device=device)
    v = torch.ones_like(q)
    found = flex_attention(q, q.clone(), v, RowPlan.of(fields))[0, :, :300]
    assert found.dtype is torch.bfloat16
    # The weights are rounded to bf16 for their product with the values.
    assert_close(found, torch.ones_like(found), 2**-8)
    # The measure is one that bf16 would fail.
    scores, ones = torch.zeros(1, 300, dtype=torch.float64), torch.ones(300, 1)
    assert softmax_in(torch.float32, scores, ones).item() == pytest.approx(1, abs=1e-6)
    assert softmax_in(torch.bfloat16, scores, ones).item() > 1.1


def test_flex_attention_keeps_its_softmax_in_fp32_for_bf16() -> None:
    check_softmax_is_fp32("cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: FlexAttention's kernels")
def test_flex_attentions_kernels_keep_their_softmax_in_fp32_for_bf16() -> None:
    check_softmax_is_fp32("cuda")


def test_flex_attention_does_not_mix_the_rows_of_a_batch() -> None:
    rows = [[Piece(90, 38)], ROWS["two segments in a window"], [Piece(0, 100, 28)]]
    fields = layout_of(*rows)
    generator = torch.Generator().manual_seed(3)
    q, k, v = (torch.randn(len(rows), HEADS, 128, SIZE, generator=generator) for _ in range(3))
    together = flex_attention(q, k, v, RowPlan.of(fields))
    for index, row in enumerate(rows):
        alone = naive(q[index].double(), k[index].double(), v[index].double(), row)
        assert_close(together[index] * (fields[index, 0] > 0)[:, None], alone)


def test_the_plan_is_made_once_per_layout_and_dies_with_it() -> None:
    fields = layout_of(ROWS["length 7"])
    assert RowPlan.of(fields) is RowPlan.of(fields)
    assert RowPlan.of(fields.clone()) is not RowPlan.of(fields)
