"""What the report knows of a run: read once, from its folder alone. What cannot be read is remarked on, and left out."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from configs.at_work import generation_lines, generation_numbers, generation_path
from configs.errors import RecordError
from configs.interventions import Interventions, read_interventions
from configs.nearby import without_lines
from configs.records import read_text
from configs.run_files import (
    Event,
    MetricsLine,
    read_cut_metrics,
    read_details,
    read_events,
    read_metrics,
    read_samples,
)
from configs.run_paths import CONFIG, METRICS, RunPaths
from configs.run_state import shown_state
from configs.run_status import Status, read_status
from configs.terminal import visible
from configs.yaml_text import parse_yaml
from train.report.columns import Columns
from train.report.event_fields import amount, count
from train.report.goodput import Goodput, goodput
from train.report.positions import Placed, exact_positions, placed

T = TypeVar("T")


@dataclass(frozen=True)
class RunData:
    """One run."""

    folder: Path
    name: str
    """Of its folder."""
    state: str
    """As configs.run_state.shown_state says it."""
    status: Status | None
    metrics: Columns
    """metrics.jsonl by columns."""
    cut: tuple[Columns, ...]
    """What rollbacks have cut off the metrics, oldest first."""
    details: list[dict[str, Any]]
    """Lines of details.jsonl."""
    samples: list[dict[str, Any]]
    """Lines of samples.jsonl."""
    events: list[tuple[Event, dict[str, Any]]]
    """Each with its details."""
    interventions: Interventions
    config_text: str
    """config.yaml as it is; "" without one."""
    config: dict[str, Any] = field(default_factory=dict[str, Any])
    """The same as nested mappings; empty if it cannot be read."""
    overrides: str = ""
    """overrides.txt as it is."""
    process_times: tuple[float, ...] = ()
    """When processes took hold of the run, in seconds since the epoch: from its generations."""
    remarks: tuple[str, ...] = ()
    """A sentence about each file that could not be read as a whole."""

    @cached_property
    def detail_columns(self) -> Columns:
        """The numbers of details.jsonl by columns; lists and objects are left out."""
        return Columns(self.details)

    @cached_property
    def placed_events(self) -> list[Placed]:
        """The events with their positions on the samples axis."""
        return placed(self.events, self.metrics)

    @cached_property
    def exact_positions(self) -> list[float]:
        """Positions around which curves keep all rows."""
        return exact_positions(self.placed_events)

    @cached_property
    def goodput(self) -> Goodput | None:
        """What its wall time was spent on; None if it has no event of a start."""
        return goodput(self.events, self.metrics, self.process_times)

    @property
    def total_samples(self) -> int | None:
        """Samples at which it ends; None if its configuration does not say."""
        return count(self.setting("optim.total_samples"))

    def setting(self, key: str) -> Any:
        """A value of the configuration by its dotted key; None if it has none."""
        found: Any = self.config
        for part in key.split("."):
            if not isinstance(found, dict) or part not in found:
                return None
            found = found[part]
        return found


def read_run(folder: Path, report: Callable[[str], None] = lambda _: None) -> RunData:
    """Read a run folder.

    Args:
        folder: run folder.
        report: called with a message about each file that cannot be read; `remarks` has them, too.

    Raises:
        RecordError: the metrics cannot be read.
        RunFolderError: the folder has no metrics.
        OSError: the file system failed.
    """
    remarks = list[str]()

    def remark(text: str) -> None:
        remarks.append(text)
        report(text)

    paths = RunPaths(folder)
    lines = read_metrics(folder, remark)
    if not lines:
        raise without_lines(folder, METRICS, "python -m train.report runs/default")
    text = _or_none(lambda: read_text(paths.config), remark) or ""
    return RunData(
        folder=folder,
        name=folder.resolve().name,
        state=_or_none(lambda: shown_state(folder), remark) or "unknown",
        status=_or_none(lambda: read_status(folder), lambda _: None),
        metrics=Columns(lines),
        cut=tuple(Columns(lines) for lines in _cut(paths, remark) if lines),
        details=_or_none(lambda: read_details(folder, remark), remark) or [],
        samples=_or_none(lambda: read_samples(folder, remark), remark) or [],
        events=_or_none(lambda: read_events(folder, remark), remark) or [],
        interventions=_or_none(lambda: read_interventions(folder), remark) or Interventions(),
        config_text=text,
        config=_parsed(text, remark),
        overrides=_or_none(lambda: read_text(paths.overrides), remark) or "",
        process_times=_or_none(lambda: _process_times(folder), remark) or (),
        # The last one: all others may add to it.
        remarks=tuple(remarks),
    )


def with_own_names(runs: Sequence[RunData]) -> list[RunData]:
    """Runs whose names differ, as they can be shown.

    Those of one name are called by their folders, and numbered if these are the same.
    """
    found = list[RunData]()
    for run in runs:
        is_alone = sum(other.name == run.name for other in runs) == 1
        name = visible(run.name if is_alone else str(run.folder), keep="")
        again = sum(each.folder == run.folder for each in found)
        found.append(replace(run, name=f"{name} ({again + 1})" if again else name))
    return found


def end_of_axis(run: RunData) -> float:
    """Where the axis of a run's curves ends: at the last of its steps, of those that were cut off, and of its events.

    What an event says counts only as far as the run can have come: to its end, or ten times as far as its steps if that
    is not known.
    """
    known = [each.last("samples_seen") or 0.0 for each in (run.metrics, *run.cut)]
    most = max([*known, run.total_samples or 10 * max(known)])
    places = [place for event in run.placed_events for place in (event.at, event.until)]
    return max([*known, *(place for place in places if place is not None and place <= most)])


def _or_none(read: Callable[[], T], remark: Callable[[str], None]) -> T | None:
    """What `read` returns; None if the file is missing, or cannot be read, which is then remarked on."""
    try:
        return read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except RecordError as error:
        remark(str(error))
    except OSError as error:
        remark(f"{error.filename or 'A file'} cannot be read: {error.strerror}.")
    return None


def _parsed(text: str, remark: Callable[[str], None]) -> dict[str, Any]:
    if not text:
        return {}
    try:
        return parse_yaml(text)
    except ValueError as error:
        remark(f"{CONFIG} cannot be read: {error}. It is shown as it is.")
        return {}


def _cut(paths: RunPaths, remark: Callable[[str], None]) -> list[list[MetricsLine]]:
    """The lines that each rollback has cut off, by the number of the rollback."""
    found: list[tuple[int, Path]] = []
    for path in paths.rolled_back.glob(f"rollback_*_{METRICS}"):
        with contextlib.suppress(ValueError):
            found.append((int(path.name.split("_")[1]), path))
    return [
        _or_none(lambda path=path: read_cut_metrics(path, remark), remark) or []
        for _, path in sorted(found)
    ]


def _process_times(folder: Path) -> tuple[float, ...]:
    """When each process began that took hold of the run."""
    times = list[float]()
    for place in generation_numbers(folder):
        for line in generation_lines(generation_path(folder, place))[:1]:
            time = amount(line.get("time"))
            times += [] if time is None else [time]
    return tuple(times)
