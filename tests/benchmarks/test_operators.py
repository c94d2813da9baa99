"""What operators cost, counted by hand."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import glm.fused
from benchmarks.counting.counter import counting
from benchmarks.counting.tally import Tally, Work
from glm.fused import Fused


def counted(run: Callable[..., object], *given: object) -> Tally:
    with counting() as counter:
        run(*given)
    return counter.tally


def fp32(*shape: int) -> Tensor:
    return torch.ones(shape)


@pytest.mark.parametrize(
    ("run", "given", "expected"),
    [
        (torch.add, (fp32(2, 8), fp32(2, 8)), Work(1, 128, 64)),
        # A value that is repeated lies in memory once.
        (torch.add, (fp32(2, 8), fp32(8).expand(2, 8)), Work(1, 64 + 32, 64)),
        # The same tensor twice is read once.
        (torch.mul, (x := fp32(4), x), Work(1, 16, 16)),
        (Tensor.add_, (fp32(2, 8), fp32(2, 8)), Work(1, 128, 64)),
        (Tensor.mul_, (fp32(16), 2.0), Work(1, 64, 64)),
        (Tensor.copy_, (fp32(16), torch.ones(16, dtype=torch.bfloat16)), Work(1, 32, 64)),
        (Tensor.zero_, (fp32(16),), Work(1, 0, 64)),
        (Tensor.bfloat16, (fp32(16),), Work(1, 64, 32)),
        (torch.zeros, (16,), Work(1, 0, 64)),
        (torch.empty, (16,), Work()),
        (Tensor.sum, (fp32(2, 8), 0), Work(1, 64, 32)),
        # Views, of a transpose's and a slice's kind.
        (lambda x: x.view(16).view(4, 4).t()[1:, None].expand(3, 5, 4), (fp32(2, 8),), Work()),
        (lambda x: x.chunk(2, dim=-1), (fp32(2, 8),), Work()),
        # A part of a tensor costs its own bytes.
        (lambda x: x[:, :2] + 1, (fp32(2, 8),), Work(1, 16, 16)),
        # x, weight and bias; y, mean and 1 / deviation.
        (
            functional.layer_norm,
            (fp32(2, 8), (8,), fp32(8), fp32(8)),
            Work(1, 64 + 2 * 32, 64 + 2 * 8),
        ),
        # Two of five rows, and their numbers.
        (functional.embedding, (torch.tensor([3, 1]), fp32(5, 8)), Work(1, 64 + 16, 64)),
    ],
)
def test_bytes_and_kernels(
    run: Callable[..., object], given: tuple[object, ...], expected: Work
) -> None:
    tally = counted(run, *given)
    assert tally.other == expected
    assert tally.products == tally.attention == Work()


def test_a_product_with_weights_is_counted_apart() -> None:
    tally = counted(functional.linear, fp32(4, 8), fp32(16, 8), fp32(16))
    assert tally.products == Work(1, 4 * (32 + 128 + 16), 4 * 64, 2 * 4 * 8 * 16)
    assert tally.other == Work()


def test_a_product_of_scores_is_attentions() -> None:
    tally = counted(torch.matmul, fp32(2, 3, 4, 8), fp32(2, 3, 8, 5))
    assert tally.attention == Work(1, 4 * 6 * (32 + 40), 4 * 6 * 20, 2 * 6 * 4 * 8 * 5)


def test_the_backward_pass_is_counted_where_it_runs() -> None:
    values, weight, gradient = fp32(8), fp32(8).requires_grad_(), torch.tensor(1.0)
    with counting() as counter:
        loss = (values * weight).sum()
        assert counter.take().other == Work(2, 64 + 32, 32 + 4)
        loss.backward(gradient)
    # The sum's gradient is a view; x times it is the weight's.
    assert counter.tally.other == Work(1, 32 + 4, 32)


def test_a_fused_function_is_one_kernel_with_the_traffic_of_its_signature() -> None:
    def scaled(values: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        return (values * scale).float().relu(), (values > 0)

    function = Fused(scaled)
    half = torch.ones(2, 8, dtype=torch.bfloat16)
    assert counted(scaled, half, half[0]).other.kernels == 4
    tally = counted(function, half, half[0])
    assert tally.other == Work(1, 32 + 16, 64 + 16)
    assert tally.by_operator == {"fused scaled": tally.other}
    assert glm.fused._observer is None


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (lambda x: float(x.sum()), "a value is read"),
        (lambda x: bool((x > 0).any()), "a value is read"),
        (lambda x: x.tolist(), "a value is read"),
        (lambda x: x.cpu(), "a tensor is copied to the host"),
        (lambda x: x.nonzero(), "a size is read"),
        (lambda x: x[x > 0], "a size is read"),
    ],
)
def test_the_host_waits_for_what_it_reads(run: Callable[[Tensor], object], reason: str) -> None:
    assert counted(run, torch.empty(4, device="meta")).syncs == {reason: 1}


@pytest.mark.parametrize(
    "run",
    [
        lambda x: x[x.long()],
        lambda x: x.masked_fill_(x > 0, 1.0),
        lambda x: x.to(torch.bfloat16),
        lambda x: x.sum() + len(x),
    ],
)
def test_the_host_does_not_wait_for_what_stays_on_the_device(
    run: Callable[[Tensor], object],
) -> None:
    assert not counted(run, torch.empty(4, device="meta")).syncs


def test_a_copy_to_the_device_waits_unless_it_is_asked_not_to() -> None:
    host = torch.ones(4)
    assert counted(host.to, "meta").syncs == {"a tensor is copied to the device": 1}
    assert not counted(lambda: host.to("meta", non_blocking=True)).syncs


def test_counts_add_up() -> None:
    once = counted(lambda x: (x + 1).tolist(), torch.empty(4, device="meta"))
    assert (once + once - once * 2).other == Work()
    assert not (once + once - once * 2).syncs
    assert (once * 3).other == Work(3, 48, 48)
    assert (once * 3).syncs == {"a value is read": 3}
