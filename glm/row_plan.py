"""What the layers derive from the fields of a batch's rows, computed once per micro-batch.

Attention needs to know where the segments lie, which rows can be folded, the mask, and the rotary tables. All layers
of a stage share one tensor of fields per micro-batch, so the plan is kept beside that tensor, weakly.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from configs.computation import folds
from configs.schema import RopeTables
from glm.rotary import rotary_tables
from glm.row_fields import BLOCK_POSITION, CONTEXT, POSITION, SEGMENT, may_attend

_PLANS: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


@dataclass(frozen=True)
class RowSegment:
    """One segment of a row: tokens [start, stop), context up to `split`."""

    row: int
    start: int
    split: int
    stop: int


@dataclass
class RowPlan:
    """Everything that attention derives from the fields of its rows (batch, 6, seq)."""

    # A reference to the tensor itself would keep the weak key alive; a view of its storage does not.
    fields: Tensor
    _tables: dict[Any, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @classmethod
    def of(cls, fields: Tensor) -> "RowPlan":
        """The plan for a batch's fields, made at the first call.

        Object identity is a safe key: DeepSpeed clones what it receives or loads for every micro-batch, and a recomputed
        layer is given the same tensor again (train/engine/recompute.py).
        """
        plan = _PLANS.get(fields)
        if plan is None:
            plan = cls(fields.detach().view(fields.shape))
            _PLANS[fields] = plan
        return plan

    def rotary(
        self, head_size: int, base: float, is_2d: bool, tables: RopeTables
    ) -> tuple[Tensor, Tensor]:
        """Cosines and sines for a whole head: (batch, 1, seq, head_size) fp32 each."""
        key = (head_size, base, is_2d, tables)
        if key not in self._tables:
            positions = self.fields[:, POSITION]
            if is_2d:
                halves = [
                    rotary_tables(ids, head_size // 2, base, tables)
                    for ids in (positions, self.fields[:, BLOCK_POSITION])
                ]
                cosines, sines = (torch.cat(parts, dim=-1) for parts in zip(*halves, strict=True))
            else:
                cosines, sines = rotary_tables(positions, head_size, base, tables)
            self._tables[key] = (cosines, sines)
        return self._tables[key]

    @cached_property
    def attention_mask(self) -> Tensor:
        """(batch, 1, seq, seq) bool, True = may attend."""
        return may_attend(self.fields)[:, None]

    @cached_property
    def spans(self) -> list[RowSegment]:
        """The segments of all rows; reads the fields back to the host, once."""
        segments = self.fields[:, SEGMENT].cpu().numpy()
        contexts = self.fields[:, CONTEXT].cpu().numpy()
        found = []
        for row, (ids, context) in enumerate(zip(segments, contexts, strict=True)):
            edges = np.flatnonzero(np.diff(ids, prepend=0, append=0))
            for start, stop in zip(edges, edges[1:], strict=False):
                if ids[start] != 0:
                    split = int(start + context[start:stop].sum())
                    found.append(RowSegment(row, int(start), split, int(stop)))
        return found

    @cached_property
    def folded_rows(self) -> dict[int, int]:
        """Rows whose segments each lie within one of several equal windows, with the number of windows: {row: fold}."""
        seq = self.fields.shape[-1]
        by_row: dict[int, list[RowSegment]] = {}
        for span in self.spans:
            by_row.setdefault(span.row, []).append(span)
        found = {}
        for row, spans in by_row.items():
            for fold in folds(seq):
                window = seq // fold
                if seq % fold == 0 and all(
                    span.start // window == (span.stop - 1) // window for span in spans
                ):
                    found[row] = fold
                    break
        return found

    def folded_mask(self, rows: Tensor, fold: int) -> Tensor:
        """Mask of folded rows: (rows * fold, 1, window, window) bool."""
        batch, fields, seq = self.fields[rows].shape
        window = seq // fold
        folded = self.fields[rows].view(batch, fields, fold, window).transpose(1, 2)
        return may_attend(folded.reshape(batch * fold, fields, window))[:, None]
