"""Starting again: what the same command means for a run folder as it is found.

An unfinished run continues; a finished one says so; a folder of another model is refused; `checkpoint.resume=never`
refuses a folder with checkpoints; nothing is ever deleted here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from configs import derive
from configs.checks.batches import batch_problems
from configs.checks.device import device_problems
from configs.errors import (
    CheckpointError,
    ConfigError,
    DataChangedError,
    DistributedError,
    RecordError,
    RunFolderError,
)
from configs.load import diff, from_yaml
from configs.schema import Config, Precision
from data_pipeline.continuity import Continuity, compare
from data_pipeline.corpus import named_roles
from data_pipeline.dataset import GLMDataset
from data_pipeline.file_changes import changes_since
from data_pipeline.sampler import check_skip_samples
from data_pipeline.tokenizer import kept_tokenizer, load_tokenizer
from glm.checkpoint.folder import committed, step_of
from glm.checkpoint.manifest import Manifest
from glm.checkpoint.reader import read_manifest
from glm.load import run_folder_of
from train.checkpoint import (
    check_same_model,
    newest_good_together,
    places_of,
    verify_together,
)
from train.distributed import Session
from train.generations import History
from train.run_folder import RunFolder
from train.trackers import Trackers, last_step, lines_up_to


@dataclass(frozen=True)
class Found:
    """A run folder before anything is started."""

    stored: Config | None
    """The configuration of the former life."""
    finished_message: str | None
    """Set if there is nothing left to do."""


def look_at(folder: RunFolder, config: Config) -> Found:
    """Read a run folder; changes nothing.

    Raises:
        CheckpointError: it belongs to another model.
        RunFolderError: it has checkpoints although `checkpoint.resume=never`.
    """
    if not folder.config.is_file():
        return Found(None, None)
    stored = from_yaml(folder.config.read_text())
    check_same_model(config, stored, folder.path)
    if config.checkpoint.resume == "never" and committed(folder.checkpoints):
        raise RunFolderError(
            f"{folder.path} has checkpoints and checkpoint.resume is never. Nothing was deleted. Start another run with "
            "run.name=NAME, or continue this one with checkpoint.resume=auto."
        )
    status = folder.read_status() or {}
    seen = int(status.get("samples_seen", 0))
    is_shown = (
        folder.path / "summary.json"
    ).is_file()  # if not, it was killed while it showed what was learnt
    if status.get("state") == "done" and is_shown and seen >= config.optim.total_samples:
        return Found(
            stored,
            f"The run {folder.path} is finished: {seen:,} samples. Go on with "
            f"optim.total_samples={2 * config.optim.total_samples}, start another with run.name=NAME, or use it: "
            f'python -m glm.generate {folder.path} --text "the [MASK] of a list"',
        )
    return Found(stored, None)


def settle_precision(config: Config, stored: Config | None) -> None:
    """Keep the precision that the first start resolved."""
    if stored is not None and config.precision is Precision.auto:
        config.precision = stored.precision


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


def choose_checkpoint(
    folder: RunFolder,
    config: Config,
    stored: Config | None,
    session: Session,
    trackers: Trackers,
) -> tuple[Path, Manifest] | None:
    """Find the checkpoint to continue from, verified by all ranks together; None for a new run.

    A path that was asked for is gone back to once: the same command again continues what it has saved since.

    Raises:
        CheckpointError: the one asked for cannot be used, or all are damaged.
    """
    asked = config.checkpoint.resume
    if asked in ("auto", "never"):
        return _newest(folder, config, session, trackers, beyond=-1)
    path = Path(asked)
    if not path.is_dir():
        raise CheckpointError(
            f"checkpoint.resume ({asked}) is no checkpoint folder. Type auto, never, or a path such as "
            f"{derive.run_dir(config)}/checkpoints/step_00000200."
        )
    manifest = verify_together(path, session)
    check_same_model(config, from_yaml(manifest.config), path)
    if _went_back_before(stored, config, session):
        try:
            since = _newest(folder, config, session, trackers, beyond=manifest.step)
        except CheckpointError as error:
            trackers.say(f"{error} It goes back to {path} once more.")
            since = None
        if since is not None:
            trackers.say(
                f"This command went back to {path} before: it continues what was saved since."
            )
            return since
    return path, manifest


def _went_back_before(stored: Config | None, config: Config, session: Session) -> bool:
    """True if the former life was started by the same command; as rank 0 read it, for another node may read late."""
    is_same = (
        stored is not None
        and stored.checkpoint.resume == config.checkpoint.resume
        and not describe_changes(stored, config)
    )
    return session.sum([float(is_same and session.topology.rank == 0)])[0] > 0


def _newest(
    folder: RunFolder, config: Config, session: Session, trackers: Trackers, beyond: int
) -> tuple[Path, Manifest] | None:
    """The newest good checkpoint of the run's history after step `beyond`.

    Raises:
        CheckpointError: all are damaged.
        RunFolderError: metrics.jsonl lacks lines before each of them.
        DistributedError: there may be one in a second copy that cannot be read.
    """
    own, *copies = [place.checkpoints for place in places_of(config, folder.checkpoints)]
    readable = [copy for copy in copies if _is_readable(copy, trackers)]
    history = History.read(folder.path)
    last_line = last_step(folder.metrics) if session.topology.rank == 0 else 0
    too_late: list[int] = []

    def admits(path: Path, generation: int) -> bool:
        step = step_of(path)
        if step <= beyond:
            return False
        if not history.admits(generation, step):
            trackers.say(f"{path} belongs to a history that the run has left: it is passed over.")
            return False
        if step > last_line:
            trackers.say(f"{path} is passed over: {folder.metrics} ends with step {last_line:,}.")
            too_late.append(step)
            return False
        return True

    path = newest_good_together([own, *readable], session, trackers.say, admits)
    if path is not None:
        return path, read_manifest(path)
    if beyond < 0 and too_late:
        lines_up_to(folder.metrics, min(too_late))  # says what is missing
    if beyond < 0 and len(readable) < len(copies) and history.continues_after:
        raise DistributedError(
            f"{own} has no checkpoint, and whether a second copy has one cannot be known now. Mend checkpoint.copy_to, or "
            "begin again without it: checkpoint.copy_to=null."
        )
    return None


def _is_readable(copy: Path, trackers: Trackers) -> bool:
    """A disk of second copies that fails must not keep a run from its own checkpoints."""
    try:
        committed(copy)
    except OSError as error:
        trackers.say(f"{copy} cannot be read: {error.strerror}. It is passed over.")
        return False
    return True


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


def check_data(manifest: Manifest, dataset: GLMDataset, config: Config) -> list[str]:
    """Compare the data with those that a checkpoint was trained on.

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
    check_skip_samples(config.data.skip_samples, skipped, drawn)
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


def own_tokenizer(folder: RunFolder, config: Config) -> str | None:
    """Spec of the tokenizer that belongs to the weights with which a run starts; None: it starts without any.

    Raises:
        RecordError: what is kept there names no tokenizer.
    """
    for place in _homes_of_weights(folder, config):
        kept = kept_tokenizer(place)
        if kept is not None:
            return kept
    return None


def check_tokenizer(
    folder: RunFolder, config: Config, spec: str, report: Callable[[str], None]
) -> None:
    """Compare the tokenizer of a run with that of the weights from which it is initialised.

    Args:
        folder: of the run.
        config: of the run.
        spec: of its tokenizer.
        report: told if the weights' tokenizer is another one, or not known.

    Raises:
        DataChangedError: it is another one, and that is not accepted.
    """
    source = config.checkpoint.init_from
    if source is None or _has_trained(folder):
        return
    kept = kept_tokenizer(run_folder_of(Path(source)))
    if kept is None:
        report(
            f"{source} has no tokenizer beside it: whether its weights were trained with {spec} is not known."
        )
    elif load_tokenizer(kept).fingerprint != load_tokenizer(spec).fingerprint:
        problem = f"The weights of {source} were trained with the tokenizer {kept}, not with {spec}"
        if not config.data.accept_changed:
            raise DataChangedError(
                f"{problem}: its ids mean other words. Leave data.tokenizer out to use theirs, or take the weights all the "
                "same with data.accept_changed=true."
            )
        report(f"{problem}, as data.accept_changed=true accepts.")


def _homes_of_weights(folder: RunFolder, config: Config) -> list[Path]:
    """Run folders that may keep the tokenizer of the weights to start with, the likeliest first."""
    if config.checkpoint.resume not in ("auto", "never"):
        return [run_folder_of(Path(config.checkpoint.resume))]
    homes = [place.checkpoints.parent for place in places_of(config, folder.checkpoints)]
    if _has_trained(folder):
        return homes
    if config.checkpoint.init_from is not None:
        return [run_folder_of(Path(config.checkpoint.init_from))]
    return [home for home in homes[1:] if _holds_checkpoint(home)]


def _has_trained(folder: RunFolder) -> bool:
    """True if there are steps to continue, or to be looked for."""
    has_lines = folder.metrics.is_file() and folder.metrics.stat().st_size > 0
    return has_lines or bool(committed(folder.checkpoints))


def _holds_checkpoint(home: Path) -> bool:
    try:
        return bool(committed(home / "checkpoints"))
    except OSError:
        return False  # a disk of second copies that fails is told of when a checkpoint is chosen


def describe_changes(stored: Config | None, config: Config) -> list[str]:
    """Configuration keys that differ from the former life's, as far as they mean something."""
    if stored is None:
        return []
    ignored = ("run.dir", "run.stop_after_samples", "checkpoint.resume", "data.accept_changed")
    return [change for change in diff(stored, config) if not change.startswith(ignored)]
