"""Attention on CPU against its ideal:  python -m benchmarks attention

Forward and backward pass of one layer's attention over a row of each kind, in fp32 on one thread, beside a causal call
of PyTorch's scaled_dot_product_attention of the same block length. Ideal is the time of the pairs that the row's mask
allows at the causal call's rate. Both take turns; medians and ranges of the ratio. The last line is JSON.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.report import Record
from benchmarks.trees import summary
from glm.attention_paths import sdpa_attention
from glm.row_fields import may_attend, pack_fields
from glm.row_plan import RowPlan

ROUNDS = 5
LENGTHS = (512, 2048, 8192)
NUM_HEADS, HEAD_SIZE = 8, 64


@dataclass(frozen=True)
class Kind:
    """Rows of one kind."""

    name: str
    windows: int
    """Segments of equal length."""
    targets: float
    """Share of a segment's tokens that are targets."""


KINDS = (
    Kind("[gMASK], 25 % targets", 1, 0.25),
    Kind("[gMASK], 60 % targets", 1, 0.6),
    Kind("[MASK], 4 windows, 15 % targets", 4, 0.15),
)


def run() -> None:
    """Print a table."""
    torch.set_num_threads(1)
    record: dict[str, list[float]] = {}
    made = Record("attention")
    print(f"{'':34}{'length':>7}  time / ideal")
    for kind in KINDS:
        for length in LENGTHS:
            ratios = measured(kind, length)
            record[f"{kind.name}, {length}"] = ratios
            print(f"{kind.name:34}{length:7}{summary(ratios)}", flush=True)
    print(made.text(ratios=record))


def measured(kind: Kind, length: int) -> list[float]:
    """Time over ideal time, in each round."""
    plan = RowPlan(row(kind, length))
    block = length // kind.windows
    allowed = float(may_attend(plan.fields).sum())
    causal = block * (block + 1) / 2
    ours, theirs = heads(length), heads(block)

    def by_plan() -> Tensor:
        return sdpa_attention(*ours, plan)

    def causal_call() -> Tensor:
        return scaled_dot_product_attention(*theirs, is_causal=True)

    for call in (by_plan, causal_call):
        seconds(call)
    ratios = []
    for _ in range(ROUNDS):
        ideal = seconds(causal_call) * allowed / causal
        ratios.append(seconds(by_plan) / ideal)
    return ratios


def row(kind: Kind, length: int) -> Tensor:
    """Fields of one row of a kind."""
    place = torch.arange(length)
    window = length // kind.windows
    is_context = place % window < round(window * (1 - kind.targets))
    numbers = (place // window + 1)[None]
    nothing = torch.zeros_like(numbers)
    return pack_fields(
        numbers, is_context[None], place[None], nothing, ~is_context[None], torch.tensor([0])
    )


def heads(length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values as a layer has them: the heads of a token lie together."""
    made = (torch.randn(1, length, NUM_HEADS, HEAD_SIZE) for _ in range(3))
    q, k, v = (values.transpose(1, 2).requires_grad_() for values in made)
    return q, k, v


def seconds(call: Callable[[], Tensor]) -> float:
    """CPU seconds of both passes: the median of a few."""
    found = []
    for _ in range(3):
        started = time.thread_time()
        call().sum().backward()
        found.append(time.thread_time() - started)
    return statistics.median(found)
