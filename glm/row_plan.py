"""What the layers derive from the fields of a batch's rows, computed once per micro-batch.

Attention needs to know where the segments lie, which rows can be folded, the mask, and the rotary tables. All layers
of a stage share one tensor of fields per micro-batch, so the plan is kept beside that tensor, weakly.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from configs.computation import folds
from configs.schema import RopeTables
from glm.rotary import rotary_tables
from glm.row_fields import BLOCK_POSITION, CONTEXT, POSITION, SAMPLE, SEGMENT, may_attend

_PLANS: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


@dataclass(frozen=True)
class RowSegment:
    """One segment of a row: tokens [start, stop), context up to `split`."""

    row: int
    start: int
    split: int
    stop: int


@dataclass(frozen=True)
class RowRun:
    """Rows [start, stop) that fall into `fold` windows each; None: into no short windows."""

    start: int
    stop: int
    fold: int | None


@dataclass
class RowPlan:
    """Everything that attention derives from the fields of its rows (batch, 6, seq)."""

    # A reference to the tensor itself would keep the weak key alive; a view of its storage does not.
    fields: Tensor
    _tables: dict[Any, tuple[Tensor, Tensor]] = field(default_factory=dict)
    _tokens: dict[tuple[int, int], tuple[Tensor, Tensor]] = field(default_factory=dict)
    _masks: dict[tuple[RowRun, torch.dtype], Tensor] = field(default_factory=dict)

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
        """Cosines and sines of a head's pairs: (tokens, parts, head_size / parts / 2) fp32 each."""
        key = (head_size, base, is_2d, tables)
        if key not in self._tables:
            parts = [POSITION, BLOCK_POSITION] if is_2d else [POSITION]
            ids = torch.stack([self.fields[:, part].reshape(-1) for part in parts], dim=1)
            self._tables[key] = rotary_tables(ids, head_size // len(parts), base, tables)
        return self._tables[key]

    def tokens(self, count: int, part: int) -> tuple[Tensor, Tensor]:
        """Sample and place within it of the tokens [part * count, (part + 1) * count): (count,) int64 each."""
        key = (count, part)
        if key not in self._tokens:
            seq = self.fields.shape[-1]
            first = part * count if count < self.fields[:, SAMPLE].numel() else 0
            mine = torch.arange(first, first + count, device=self.fields.device)
            samples = self.fields[:, SAMPLE].reshape(-1)[first : first + count]
            self._tokens[key] = (samples, mine % seq)
        return self._tokens[key]

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

    @cached_property
    def runs(self) -> list[RowRun]:
        """Neighbouring rows with the same number of windows, in order: each is one view of the batch."""
        found: list[RowRun] = []
        for row in range(len(self.fields)):
            fold = self.folded_rows.get(row)
            if found and found[-1].fold == fold:
                found[-1] = RowRun(found[-1].start, row + 1, fold)
            else:
                found.append(RowRun(row, row + 1, fold))
        return found

    def spans_of(self, run: RowRun) -> list[RowSegment]:
        """The segments of a run's rows, counted from its first row."""
        return [
            replace(span, row=span.row - run.start)
            for span in self.spans
            if run.start <= span.row < run.stop
        ]

    def folded_mask(self, run: RowRun, dtype: torch.dtype) -> Tensor:
        """What is added to the scores of folded rows, 0 or -inf: (rows * fold, 1, window, window)."""
        key = (run, dtype)
        if key not in self._masks:
            assert run.fold is not None
            rows = self.fields[run.start : run.stop]
            batch, fields, seq = rows.shape
            window = seq // run.fold
            folded = rows.view(batch, fields, run.fold, window).transpose(1, 2)
            mask = may_attend(folded.reshape(batch * run.fold, fields, window))[:, None]
            nothing = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
            self._masks[key] = nothing.masked_fill_(~mask, -torch.inf)
        return self._masks[key]
