"""What a run keeps of its data: the tokenizer in its folder, and the description in its newest checkpoint.

The shards may have changed since the run was trained. Commands that look at a run report this instead of showing text
that the run was never trained on.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import ConfigError, DataChangedError, DataError, RecordError
from configs.files import read_text
from configs.load import from_yaml
from configs.records import Count, decode, read_record
from configs.run_checkpoints import committed, newest_first
from configs.run_lines import whole_lines
from configs.run_paths import MANIFEST, RunPaths
from configs.schema import Config
from data_pipeline.continuity import compare
from data_pipeline.dataset import GLMDataset
from data_pipeline.file_changes import changes_since
from data_pipeline.storage.open_files import readable, require_file

# Largest manifest to read: that of the largest model on a thousand ranks.
_LARGEST_MANIFEST = 2**30


@dataclass(frozen=True)
class _DataState:
    dataset: dict[str, Any]


@dataclass(frozen=True)
class _Progress:
    samples_drawn: Count


@dataclass(frozen=True)
class _Manifest:
    """What is needed of a checkpoint's table of contents."""

    data_state: _DataState
    progress: _Progress
    generation: Count = 0


@dataclass(frozen=True)
class _Line:
    """What is needed of a line of metrics.jsonl."""

    step: Count
    samples_seen: Count


def stored_config(folder: Path) -> Config:
    """Read the configuration of a run.

    Raises:
        DataError: there is none.
        RecordError: config.yaml is not a text file.
        ConfigError: it is not a configuration.
    """
    path = RunPaths(folder).config
    try:
        return from_yaml(read_text(path))
    except FileNotFoundError as error:
        raise DataError(f"{path} no longer exists. Type the command again.") from error
    except ConfigError as error:
        raise ConfigError([f"{path}: {problem}" for problem in error.problems]) from error


def changed_data(folder: Path, training: GLMDataset) -> list[str]:
    """What has changed of the samples that a run has drawn, by its newest checkpoint; without one nothing is known.

    Raises:
        DataError: the newest checkpoint does not describe its data.
    """
    newest = _newest(RunPaths(folder).checkpoints)
    if newest is None:
        return []
    path, stored = newest
    if isinstance(stored, RecordError):
        raise DataError(
            f"{path / MANIFEST} does not say what data it was trained on ({str(stored).rstrip('.')}). Move its folder "
            "away to look at an earlier checkpoint's."
        ) from stored
    found = compare(stored.data_state.dataset, training.describe(), stored.progress.samples_drawn)
    return [*found.breaks, *changes_since(stored.data_state.dataset, training).damage]


def step_of(folder: Path, position: int) -> str:
    """Say in which step a position was trained, by the run's own record; "" if there is none."""
    path = RunPaths(folder).metrics
    if not os.path.lexists(path):
        return ""
    require_file(str(path), "The link leads nowhere.")
    seen = 0
    with readable(path):
        lines = whole_lines(path)
    for number, line in enumerate(lines, start=1):
        try:
            found = decode(line, _Line, f"{path}:{number}")
        except RecordError:
            found = None
        if found is None or found.samples_seen <= seen:
            return f"in a step that is not known: line {number:,} of {path.name} is damaged"
        seen = found.samples_seen
        if seen > position:
            return f"in step {found.step:,}"
    return f"not reached yet: the run is at {seen:,}"


def _newest(checkpoints: Path) -> tuple[Path, _Manifest | RecordError] | None:
    """The checkpoint that the run would continue from, with its record or what is wrong with it; None: it has none."""
    while True:
        listed = committed(checkpoints)
        found: dict[Path, _Manifest | RecordError] = {}
        for folder in listed:
            try:
                found[folder] = read_record(folder / MANIFEST, _Manifest, _LARGEST_MANIFEST)
            except FileNotFoundError:
                continue  # retention has deleted it meanwhile
            except RecordError as error:
                found[folder] = error
        if found or not listed:
            break  # otherwise others have appeared before one was read
    by = {
        folder: None if isinstance(stored, RecordError) else stored.generation
        for folder, stored in found.items()
    }
    return next(((folder, found[folder]) for folder in newest_first(by)), None)


def check_same_data(folder: Path, changes: list[str], overrides: list[str]) -> None:
    """Refuse to show data that a run was not trained on.

    Args:
        folder: run folder.
        changes: changes of the data since the run was trained.
        overrides: overrides of the run's configuration, which may be the cause.

    Raises:
        DataChangedError: there are changes.
    """
    if changes:
        what = f"With {' '.join(overrides)} the data" if overrides else "The data"
        advice = "Leave that out" if overrides else "Restore them"
        raise DataChangedError(
            f"{what} are not those that {folder} was trained on ({'; '.join(changes)}). {advice}, or inspect them anyway "
            "with data.accept_changed=true."
        )
