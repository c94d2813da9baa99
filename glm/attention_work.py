"""How many scores attention computes for rows, by the path that computes them (glm/attention_paths.py)."""

import numpy as np

from configs.computation import attention_path
from configs.schema import AttentionPath, ModelConfig
from glm.row_plan import RowPlan, RowSegment

FLEX_BLOCK = 128
"""Tokens along each side of the blocks that FlexAttention computes or leaves out."""


def computed_pairs(plan: RowPlan, model: ModelConfig, on_gpu: bool) -> int:
    """Pairs of tokens whose score a layer computes, over all rows.

    The causal kernel on CPU computes whole blocks at the diagonal; here it counts for what it keeps of them.

    Args:
        plan: of the rows, on the host.
        model: sizes and attention path.
        on_gpu: the layer runs on CUDA.
    """
    path, _ = attention_path(model, on_gpu)
    rows, _, seq = plan.fields.shape
    if path is AttentionPath.reference:
        return rows * seq * seq
    if path is AttentionPath.flex:
        return FLEX_BLOCK**2 * sum(_blocks(plan, row) for row in range(rows))
    pairs = 0
    for run in plan.runs:
        count = run.stop - run.start
        if run.fold is not None:
            pairs += count * seq * (seq // run.fold)
        elif on_gpu:
            pairs += count * seq * seq
        else:
            pairs += sum(map(_allowed, plan.spans_of(run)))
    return pairs


def _allowed(span: RowSegment) -> int:
    """All tokens attend to the context, targets also to the targets up to themselves."""
    targets = span.stop - span.split
    return (span.stop - span.start) * (span.split - span.start) + targets * (targets + 1) // 2


def _blocks(plan: RowPlan, row: int) -> int:
    """Blocks of a row's mask in which any pair may attend."""
    seq = plan.fields.shape[-1]
    spans = [span for span in plan.spans if span.row == row]
    ends = [0, *(span.stop for span in spans)]
    starts = [*(span.start for span in spans), seq]
    gaps = [(end, start) for end, start in zip(ends, starts, strict=True) if start > end]
    size = -(-seq // FLEX_BLOCK)
    found = np.zeros((size, size), dtype=np.bool_)

    def attend(queries: tuple[int, int], keys: tuple[int, int], is_causal: bool) -> None:
        """Tokens [a, b) to tokens [c, d), or to those of them up to themselves."""
        if min(queries[1] - queries[0], keys[1] - keys[0]) <= 0:
            return
        first, last = keys[0] // FLEX_BLOCK, (keys[1] - 1) // FLEX_BLOCK
        for block in range(queries[0] // FLEX_BLOCK, (queries[1] - 1) // FLEX_BLOCK + 1):
            found[block, first : (min(block, last) if is_causal else last) + 1] = True

    for span in spans:
        attend((span.start, span.stop), (span.start, span.split), False)
        attend((span.split, span.stop), (span.split, span.stop), True)
    # Padding attends to all padding before it.
    for number, gap in enumerate(gaps):
        for earlier in gaps[: number + 1]:
            attend(gap, earlier, True)
    return int(found.sum())
