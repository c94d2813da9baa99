"""What a start does with the run folder that it finds.

An unfinished run continues. For a finished one a message says so. A folder of another model is refused, as is a folder
with checkpoints under `checkpoint.resume=never`. Nothing is ever deleted here.
"""

import copy
import shlex
import textwrap
from dataclasses import dataclass

from configs.checks.batches import batch_problems
from configs.checks.device import device_problems, precision_problems
from configs.errors import (
    CheckpointError,
    ConfigError,
    DataChangedError,
    RecordError,
    RunFolderError,
)
from configs.load import diff
from configs.records import read_text
from configs.run_checkpoints import committed
from configs.schema import Config, Precision
from configs.terminal import visible
from data_pipeline.continuity import Continuity, compare
from data_pipeline.corpus import named_roles
from data_pipeline.dataset import GLMDataset
from data_pipeline.file_changes import changes_since
from data_pipeline.sampler import check_skip_samples
from glm.checkpoint.manifest import Manifest
from train.checkpoint import check_same_model
from train.run_folder import RunFolder
from train.schedule_changes import schedule_changes

_WIDTH = 79


@dataclass(frozen=True)
class FolderState:
    """A run folder before anything is started."""

    stored: Config | None
    """The configuration of the previous attempt."""
    finished_message: str | None
    """Set if there is nothing left to do."""


def inspect_folder(folder: RunFolder, config: Config) -> FolderState:
    """Read a run folder; changes nothing.

    Raises:
        CheckpointError: it belongs to another model.
        RunFolderError: it has checkpoints although `checkpoint.resume=never`, config.yaml cannot be read, or something
            else stands in the place of a file of a run.
    """
    folder.check_kinds()
    if config.checkpoint.resume == "never" and committed(folder.checkpoints):
        raise RunFolderError(
            f"{folder.path} has checkpoints and checkpoint.resume is never. Nothing was deleted. Start another run with "
            "run.name=NAME, or continue this one with checkpoint.resume=auto."
        )
    stored = folder.read_config()
    if stored is None:
        return FolderState(None, None)
    check_same_model(config, stored, folder.path)
    status = folder.status_or_none()
    # Without a summary it was killed while it showed what was learnt.
    is_over = status is not None and status.state == "done" and folder.summary.is_file()
    # One that has lost its checkpoints is of no use any more: what follows refuses it, and says what to do.
    is_over = is_over and bool(committed(folder.checkpoints))
    if status is not None and is_over and status.samples_seen >= config.optim.total_samples:
        return FolderState(stored, _finished(folder, stored, config, status.samples_seen))
    total = config.optim.total_samples
    if status is not None and status.state == "stopped" and status.samples_seen > total:
        return FolderState(
            stored,
            f"The run {folder.path} has seen {status.samples_seen:,} samples, more than optim.total_samples "
            f"({total:,}): nothing is left to do. Its last start was given "
            f"optim.total_samples={stored.optim.total_samples}: type that again, or more.",
        )
    return FolderState(stored, None)


def _finished(folder: RunFolder, stored: Config, config: Config, seen: int) -> str:
    """The message for a finished run: how to train further, and how that would change its schedules."""
    longer = copy.deepcopy(config)
    longer.optim.total_samples = 2 * max(seen, config.optim.total_samples)
    path = shlex.quote(str(folder.path))
    effects = [
        textwrap.fill(
            effect,
            _WIDTH,
            initial_indent="    ",
            subsequent_indent="      ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for effect in schedule_changes(stored, longer, seen)
    ]
    return "\n".join(
        [
            f"The run {folder.path} is finished: {seen:,} samples.",
            "Fill blanks with it:",
            f'  python -m glm.generate {path} --text "the [MASK] of a list"',
            "See its curves:",
            f"  python -m train.report {path}",
            "Train it further: type the same command with, for example,",
            f"  optim.total_samples={longer.optim.total_samples}",
            *effects,
            "Train another: type the same command with",
            "  run.name=NAME",
        ]
    )


def forgotten_words(folder: RunFolder, overrides: list[str], changes: list[str]) -> list[str]:
    """Words of the previous command line that are missing in this one, as far as that changes something.

    Args:
        folder: of the run, before this start has written its overrides.
        overrides: words of this command line.
        changes: keys that differ ("key: old -> new").
    """
    try:
        previous = read_text(folder.overrides).splitlines()
    except (OSError, RecordError):
        return []
    typed = {_key(word) for word in overrides}
    missing = [
        word
        for word in previous
        if _key(word) not in typed
        and any(change.startswith((f"{_key(word)}:", f"{_key(word)}.")) for change in changes)
    ]
    if not missing:
        return []
    return [
        f"The last start was given {visible(' '.join(missing), '')} as well. If that was forgotten: stop now "
        "(Ctrl-C) and type it again."
    ]


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+~")


def settle_precision(config: Config, stored: Config | None) -> str | None:
    """Keep the precision that the first start resolved; returns why it is that one, None if nothing was settled."""
    if stored is None or config.precision is not Precision.auto:
        return None
    config.precision = stored.precision
    return "as at the first start"


def check_device(config: Config, device_type: str) -> None:
    """Check that the device can do what is asked of it.

    Args:
        config: of the run; `precision` is settled.
        device_type: "cpu" or "cuda".

    Raises:
        ConfigError: it cannot.
    """
    found = device_problems(config, device_type)
    if found:
        raise ConfigError(found)


def check_precision(config: Config, resolved: Precision) -> None:
    """Check that what is asked for fits the precision.

    Args:
        config: of the run; `precision` may still be auto.
        resolved: the precision that it trains in.

    Raises:
        ConfigError: it does not.
    """
    found = precision_problems(config, resolved)
    if found:
        raise ConfigError(found)


def check_batches(samples_seen: int, config: Config, world_size: int) -> None:
    """Check that the batches still to come divide among the replicas: those of a ramp that is over need not.

    Args:
        samples_seen: of the checkpoint to continue from; 0: a new run.
        config: of the run.
        world_size: number of ranks.

    Raises:
        ConfigError: they do not.
    """
    found = batch_problems(config, world_size, samples_seen)
    if found:
        raise ConfigError(found)


def check_data(
    manifest: Manifest, dataset: GLMDataset, config: Config, skip_samples: list[list[int]]
) -> list[str]:
    """Compare the data with those that a checkpoint was trained on.

    Args:
        manifest: of the checkpoint.
        dataset: the data now.
        config: of the run.
        skip_samples: ranges that the run leaves out from now on, by its configuration and its rollbacks.

    Returns:
        What changed: ahead of the position of the data stream, or before it if the user accepted that.

    Raises:
        CheckpointError: the checkpoint does not describe its data.
        DataChangedError: samples already drawn would be others, and the user has not accepted it.
        DataError: skip ranges reach into what is already trained.
    """
    try:
        stored, drawn = manifest.data_state, manifest.progress["samples_drawn"]
        skipped = [[int(start), int(stop)] for start, stop in stored.get("skip_samples", [])]
        found = compare(stored["dataset"], dataset.describe(), drawn)
    except (KeyError, TypeError, ValueError, AttributeError, RecordError) as error:
        raise CheckpointError(
            f"The checkpoint of step {manifest.step:,} was written by another program: it does not say what data it was "
            f"trained on ({error!r})."
        ) from error
    check_skip_samples(skip_samples, skipped, drawn)
    if found.breaks and not config.data.accept_changed:
        advice = [found.advice, _tokenizer_advice(found, config)]
        raise DataChangedError(
            f"The data are not those of the checkpoint ({'; '.join(found.breaks)}). The samples to come would be "
            f"others. {''.join(f'{each}. ' for each in advice if each)}Restore them, or continue all the same with "
            "data.accept_changed=true."
        )
    files = changes_since(stored["dataset"], dataset)
    if files.damage and not config.data.accept_changed:
        raise DataChangedError(
            f"The data are not those of the checkpoint: {'; '.join(files.damage)}. See all of the damage with "
            "python -m data_pipeline verify PREFIX and restore the files, or continue all the same with "
            "data.accept_changed=true."
        )
    accepted = [*found.breaks, *files.damage]
    return [
        *([f"data accepted: {'; '.join(accepted)}"] if accepted else []),
        *found.ahead,
        *files.notes,
    ]


def _tokenizer_advice(found: Continuity, config: Config) -> str:
    """What keeps the tokens as they were where another tokenizer is named."""
    is_named = config.data.tokenizer is not None or bool(named_roles(config.data))
    if not is_named or not found.has_new_tokens:
        return ""
    return "The run uses its own tokenizer if data.tokenizer and data.special_tokens are left out"


def describe_changes(stored: Config | None, config: Config) -> list[str]:
    """Configuration keys that differ from the previous attempt's, as far as they mean something for what is trained."""
    if stored is None:
        return []
    ignored = (
        "run.dir",
        "run.stop_after_samples",
        "checkpoint.resume",
        "data.accept_changed",
        "cluster.",
    )
    return [change for change in diff(stored, config) if not change.startswith(ignored)]
