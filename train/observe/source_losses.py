"""The loss of each source of the data, in training and on held-out rows.

A source may be so rare that most steps have no row of it. So training's losses are means over all steps since the last
line of details.jsonl, and held-out ones those of the newest evaluation since then. Checkpoints keep the sums: a resumed
run writes the lines of the undisturbed one.

Which source a row is from follows from its index. So the passes give the sums of each row, and need not know of sources.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from data_pipeline.dataset import GLMDataset
from train.batches import step_indices
from train.engine import Engine
from train.evaluation import evaluated_indices
from train.metrics import to_json_value
from train.observe.observers import ObservedStep, Observer
from train.session import Session

ENTRY = "source_losses"
"""Name of the sums in a checkpoint."""

_TRAIN, _VALID = "train", "valid"


class SourceSums:
    """Sums of weighted losses and of weights, by name of the source.

    Args:
        names: of all sources, in order.
        stored: what `state` returned, of the same sources or others; sums of zero where it is anything else.
    """

    def __init__(self, names: Sequence[str], stored: object = None) -> None:
        self._sums = {name: (0.0, 0.0) for name in names}
        if isinstance(stored, Mapping):
            for name in self._sums.keys() & stored.keys():
                with contextlib.suppress(TypeError, ValueError):
                    losses, weights = stored[name]
                    self._sums[name] = (float(losses), float(weights))

    def add(self, name: str, losses: float, weights: float) -> None:
        """Add a row's, or several rows'."""
        before = self._sums[name]
        self._sums[name] = (before[0] + losses, before[1] + weights)

    def to_list(self) -> list[float]:
        """Flat values, to be added up over ranks."""
        return [value for pair in self._sums.values() for value in pair]

    def add_list(self, values: Sequence[float]) -> None:
        """Add what `to_list` of the same sources has returned."""
        for name, losses, weights in zip(self._sums, values[::2], values[1::2], strict=True):
            self.add(name, losses, weights)

    def means(self, prefix: str) -> dict[str, float | None]:
        """Mean loss of each source, by `prefix` and name; None: it had no target."""
        return {
            f"{prefix}{name}": losses / weights if weights else None
            for name, (losses, weights) in self._sums.items()
        }

    def state(self) -> dict[str, list[float | str]]:
        """Plain values for a checkpoint, which give the same numbers bit for bit."""
        return {name: [to_json_value(each) for each in pair] for name, pair in self._sums.items()}


class SourceObserver(Observer):
    """`train/loss_source/NAME` and `valid/loss_source/NAME`, for each source that a run reads.

    Every row weighs as in `train/loss` (objective.loss_weighting) and `valid/loss`.

    Args:
        every_steps: steps between two lines.
        engine: of this rank.
        session: the open process groups.
        training: the rows that are trained.
        validation: the held-out rows.
        micro_batch_size: rows of a forward pass.
        skip_samples: ranges of the data stream that are left out.
        num_evaluated: held-out rows of an evaluation.
        stored: entry of the checkpoint that the run continues from; None: it has none. Rank 0's counts.
    """

    def __init__(
        self,
        every_steps: int,
        engine: Engine,
        session: Session,
        training: GLMDataset,
        validation: GLMDataset,
        micro_batch_size: int,
        skip_samples: list[list[int]],
        num_evaluated: int,
        stored: object,
    ) -> None:
        self._every_steps = every_steps
        self._engine = engine
        self._session = session
        self._training = training
        self._validation = validation
        self._micro_batch_size = micro_batch_size
        self._skip_samples = skip_samples
        self._num_evaluated = num_evaluated
        known = stored if isinstance(stored, Mapping) else {}
        self._train = self._sums_of(training, known.get(_TRAIN))
        self._valid = self._sums_of(validation, known.get(_VALID))
        topology = session.topology
        # Tensor-parallel ranks have equal losses.
        self._is_counted = topology.is_last_stage and topology.tp_rank == 0
        self._rows: list[Tensor] = []
        if self._is_counted:
            engine.watch_rows(self._rows.append)

    def begin(self, step: int) -> None:
        """See Observer."""
        self._rows.clear()

    def end(self, step: ObservedStep) -> dict[str, Any]:
        """See Observer; in every step one exchange, because the sums are part of each checkpoint."""
        train, valid = self._sums_of(self._training), self._sums_of(self._validation)
        if self._is_counted:
            self._read_rows(step, train, valid)
        values = self._session.sum([*train.to_list(), *valid.to_list()])
        size = len(train.to_list())
        self._train.add_list(values[:size])
        if step.valid is not None:
            self._valid = self._sums_of(self._validation)
            self._valid.add_list(values[size:])
        if step.progress.step % self._every_steps:
            return {}
        line = {
            **self._train.means("train/loss_source/"),
            **self._valid.means("valid/loss_source/"),
        }
        self._train, self._valid = self._sums_of(self._training), self._sums_of(self._validation)
        return line

    def state(self) -> dict[str, Any]:
        """See Observer."""
        return {ENTRY: {_TRAIN: self._train.state(), _VALID: self._valid.state()}}

    def close(self) -> None:
        """See Observer."""
        self._engine.watch_rows(None)

    @staticmethod
    def _sums_of(dataset: GLMDataset, stored: object = None) -> SourceSums:
        return SourceSums([source.name for source in dataset.sources], stored)

    def _read_rows(self, step: ObservedStep, train: SourceSums, valid: SourceSums) -> None:
        """Add what the passes of this rank have shown, in their order: those of the step, then those of its evaluation."""
        rows: Iterator[tuple[float, float]] = iter(())
        if self._rows:
            rows = zip(*torch.cat(self._rows, dim=1).tolist(), strict=True)
            self._rows.clear()
        topology, size = self._session.topology, self._micro_batch_size
        for indices in step_indices(step.plan, topology, size, self._skip_samples):
            for index in indices:
                train.add(self._training.source_of(index), *next(rows))
        if step.valid is not None:
            for indices in evaluated_indices(self._num_evaluated, topology, size):
                for index in indices:
                    row = int(index) % self._num_evaluated
                    valid.add(self._validation.source_of(row), *next(rows))
        assert next(rows, None) is None, "the passes have the rows of the step and its evaluation"
