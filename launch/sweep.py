"""Sweeps: the same run with every combination of some values, in one job array, with one run folder per combination.

python -m launch slurm experiment=default --sweep optim.lr=1e-4,2e-4 --sweep seed=1,2 --submit
python -m launch sweep experiment=default --sweep optim.lr=1e-4,2e-4 --sweep seed=1,2 --local
python -m launch sweep experiment=default --sweep optim.lr=1e-4,2e-4 --sweep seed=1,2 --table
"""

import itertools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from configs import derive
from configs.errors import ConfigError, RecordError
from configs.load import load_config
from configs.run_files import number, read_metrics
from configs.run_state import shown_state
from configs.run_status import read_status
from configs.schema import Config

_KEY = re.compile(r"[\w.]+")


@dataclass(frozen=True)
class Variant:
    """One run of a sweep.

    Attributes:
        overrides: the overrides of the run, `run.name` included.
        values: the swept keys and their values in this run.
        config: the checked configuration of the run.
    """

    overrides: list[str]
    values: dict[str, str]
    config: Config

    @property
    def folder(self) -> str:
        """The run folder."""
        return derive.run_dir(self.config)


def variants(overrides: Sequence[str], axes: Sequence[str]) -> list[Variant]:
    """Every combination of the axes' values, the last axis varying fastest.

    Args:
        overrides: the overrides that all runs share.
        axes: `key=value,value,...`; a list in brackets is one value.

    Raises:
        ConfigError: a combination cannot run; the message lists every problem of every combination.
    """
    found = [
        f"--sweep {axis} is not of the form key=value,value, with no value empty and each bracket closed. "
        "Try --sweep optim.lr=1e-4,2e-4."
        for axis in axes
        if not _is_axis(axis)
    ]
    if any(word.startswith("run.dir=") for word in overrides):
        found.append(
            "run.dir would be the folder of every run of the sweep. Try run.name=NAME: the combination is added to it."
        )
    if found:
        raise ConfigError(found)
    split = [[(key, value) for value in values] for key, values in map(_taken_apart, axes)]
    base = derive.run_name(load_config(list(overrides)))
    made = list[Variant]()
    for combination in itertools.product(*split):
        words = [f"{key}={value}" for key, value in combination]
        name = "-".join([base, *(re.sub(r"[^\w.+=-]", "_", word) for word in words)])
        run = [*overrides, *words, f"run.name={name}"]
        try:
            made.append(Variant(run, dict(combination), load_config(run)))
        except ConfigError as error:
            found += [f"{' '.join(words)}: {problem}" for problem in error.problems]
    found += _shared_folders(made)
    if found:
        raise ConfigError(found)
    return made


def table(made: Sequence[Variant]) -> str:
    """The result of each run of a sweep, read from its folder.

    Returns:
        A line for each run: its values, state, samples seen, last training loss and last held-out loss; then the best.
    """
    rows = [["run", *made[0].values, "state", "samples", "train/loss", "valid/loss"]]
    held_out: dict[str, float] = {}
    remarks = list[str]()
    for index, variant in enumerate(made):
        outcome = _Outcome.of(Path(variant.folder), remarks.append)
        rows.append(
            [
                str(index),
                *variant.values.values(),
                outcome.state,
                f"{outcome.samples_seen:,}",
                _loss(outcome.train_loss),
                _loss(outcome.valid_loss),
            ]
        )
        if outcome.valid_loss is not None and math.isfinite(outcome.valid_loss):
            held_out[variant.folder] = outcome.valid_loss
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    if held_out:
        best = min(held_out, key=held_out.__getitem__)
        lines.append(f"\nLowest held-out loss: {held_out[best]:.4f} in {best}")
    lines += [f"\n{remark}" for remark in remarks]
    return "\n".join(lines)


def is_finished(run: Variant) -> bool:
    """True if a run has nothing left to do."""
    try:
        status = read_status(Path(run.folder))
    except RecordError:
        return False  # training reports what is wrong with it
    if status is None or status.state != "done":
        return False
    return status.samples_seen >= run.config.optim.total_samples


def _taken_apart(axis: str) -> tuple[str, list[str]]:
    """Split an axis into its key and values, at commas outside of brackets."""
    key, _, text = axis.partition("=")
    values, depth = [""], 0
    for character in text:
        depth += (character in "[{") - (character in "]}")
        if character == "," and depth == 0:
            values.append("")
        else:
            values[-1] += character
    return key, [value.strip() for value in values]


def _is_axis(axis: str) -> bool:
    key, values = _taken_apart(axis)
    closes = all(sum(map(value.count, "[{")) == sum(map(value.count, "]}")) for value in values)
    return _KEY.fullmatch(key) is not None and all(values) and closes


def _shared_folders(made: Sequence[Variant]) -> list[str]:
    folders = [variant.folder for variant in made]
    twice = sorted({folder for folder in folders if folders.count(folder) > 1})
    return [
        f"Two runs of the sweep would share the folder {folder}. Name each value once."
        for folder in twice
    ]


@dataclass(frozen=True)
class _Outcome:
    """The results of a run so far."""

    state: str = "not started"
    samples_seen: int = 0
    train_loss: float | None = None
    """Training loss of the last step."""
    valid_loss: float | None = None
    """The last held-out loss."""

    @classmethod
    def of(cls, folder: Path, report: Callable[[str], None]) -> "_Outcome":
        """Read a run folder; what cannot be read is passed to `report`, and the rest is shown."""
        try:
            status = read_status(folder)
            state = "not started" if status is None else shown_state(folder)
            lines = read_metrics(folder, report)
        except RecordError as error:
            report(str(error))
            return cls("unreadable")
        train = [number(line.get("train/loss")) for line in lines[-1:]]
        valid = [number(line["valid/loss"]) for line in lines if line.get("valid/loss") is not None]
        seen = 0 if status is None else status.samples_seen
        return cls(state, seen, train[0] if train else None, valid[-1] if valid else None)


def _loss(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
