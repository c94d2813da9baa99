"""Scores that are counted are those that the attention paths compute."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from configs.load import load_config
from glm import attention_paths, block_attention
from glm.attention_paths import block_mask, reference_attention, sdpa_attention
from glm.attention_work import FLEX_BLOCK, computed_pairs
from glm.row_fields import pack_fields
from glm.row_plan import RowPlan

# Of each segment: context, targets, padding behind it.
Pieces = tuple[tuple[int, int, int], ...]
ROWS: dict[str, list[Pieces]] = {
    "a long row": [((700, 324, 0),)],
    "four windows": [tuple((150, 90, 16) for _ in range(4))],
    "segments across windows": [((300, 50, 0), (10, 200, 40), (200, 180, 44))],
    "context or targets alone": [((128, 0, 0), (0, 500, 12), (384, 0, 0))],
    "nothing but padding": [((0, 0, 1024),)],
    "rows of all kinds": [
        ((700, 324, 0),),
        tuple((150, 90, 16) for _ in range(4)),
        ((300, 50, 0), (10, 200, 40), (200, 180, 44)),
    ],
}


def plan_of(rows: list[Pieces]) -> RowPlan:
    segments, contexts = [], []
    for row in rows:
        ids: list[int] = []
        context: list[bool] = []
        for number, (seen, hidden, padding) in enumerate(row, start=1):
            ids += [number] * (seen + hidden) + [0] * padding
            context += [True] * seen + [False] * (hidden + padding)
        segments.append(ids)
        contexts.append(context)
    ids_of_rows = torch.tensor(segments)
    zeros = torch.zeros_like(ids_of_rows)
    fields = (ids_of_rows, torch.tensor(contexts), zeros, zeros, zeros)
    return RowPlan(pack_fields(*fields, torch.arange(len(rows))))


def pairs(plan: RowPlan, path: str, on_gpu: bool = False) -> int:
    model = load_config([f"model.attention={path}"]).model
    return computed_pairs(plan, model, on_gpu)


@pytest.mark.parametrize("name", ROWS)
def test_on_cpu_what_the_kernels_are_called_with_is_counted(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(ROWS[name])
    called = 0

    def masked(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor) -> Tensor:
        nonlocal called
        called += len(q) * q.shape[2] * k.shape[2]
        return v

    forward = block_attention._forward

    def by_segment(q: Tensor, k: Tensor, v: Tensor, is_causal: bool) -> Any:
        nonlocal called
        queries, keys = q.shape[2], k.shape[2]
        called += queries * (queries + 1) // 2 if is_causal else queries * keys
        return forward(q, k, v, is_causal)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", masked)
    monkeypatch.setattr(block_attention, "_forward", by_segment)
    values = torch.randn(len(plan.fields), 1, 1024, 4)
    sdpa_attention(values, values, values, plan)
    assert pairs(plan, "sdpa") == called


@pytest.mark.parametrize("name", ROWS)
def test_materialised_scores_are_all_pairs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(ROWS[name])
    sizes: list[int] = []
    softmax = attention_paths.masked_softmax
    monkeypatch.setattr(
        attention_paths,
        "masked_softmax",
        lambda scores, *others: (sizes.append(scores.numel()), softmax(scores, *others))[1],
    )
    values = torch.randn(len(plan.fields), 1, 1024, 4)
    reference_attention(values, values, values, plan)
    assert [pairs(plan, "reference")] == sizes == [len(plan.fields) * 1024**2]


@pytest.mark.parametrize("name", ROWS)
def test_flex_attention_computes_its_blocks(name: str) -> None:
    plan = plan_of(ROWS[name])
    mask = block_mask(plan)
    assert mask.full_kv_num_blocks is not None
    blocks = int(mask.kv_num_blocks.sum() + mask.full_kv_num_blocks.sum())
    assert mask.BLOCK_SIZE == (FLEX_BLOCK, FLEX_BLOCK)
    assert pairs(plan, "flex", on_gpu=True) == blocks * FLEX_BLOCK**2


def test_the_masked_kernel_on_cuda_computes_long_rows_whole() -> None:
    plan = plan_of(ROWS["rows of all kinds"])
    # The row of four windows is folded into four.
    assert pairs(plan, "sdpa", on_gpu=True) == 2 * 1024**2 + 1024 * 256


@pytest.mark.parametrize("seed", range(8))
def test_flex_blocks_of_random_rows(seed: int) -> None:
    generator = np.random.default_rng(seed)
    pieces, left = [], 1000
    while left > 0:
        seen, hidden, padding = (int(min(n, left)) for n in generator.integers(0, 220, 3))
        hidden, padding = min(hidden, left - seen), min(padding, max(left - seen - hidden, 0))
        pieces.append((seen, hidden, padding))
        left -= seen + hidden + padding
    plan = plan_of([tuple(pieces)])
    padded = np.pad(plan.attention_mask[0, 0].numpy(), ((0, 24), (0, 24)))
    blocks = padded.reshape(8, 128, 8, 128).any(axis=(1, 3)).sum()
    assert pairs(plan, "flex", on_gpu=True) == blocks * FLEX_BLOCK**2
