"""The tokenizer that belongs to the weights with which a run starts: its own, its second copy's, or that of init_from."""

from collections.abc import Callable
from pathlib import Path

from configs.errors import DataChangedError
from configs.run_checkpoints import committed, run_folder_of
from configs.run_paths import RunPaths
from configs.schema import Config
from data_pipeline.tokenizer import kept_tokenizer, load_tokenizer
from train.checkpoint import places_of
from train.run_folder import RunFolder


def own_tokenizer(folder: RunFolder, config: Config) -> str | None:
    """Spec of the tokenizer that belongs to the weights with which a run starts; None: it starts without any.

    Raises:
        RecordError: the spec that is stored there is damaged.
    """
    for place in _folders_of_weights(folder, config):
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
        report: called if the tokenizer of the weights is another one, or unknown.

    Raises:
        DataChangedError: it is another one, and that is not accepted.
    """
    source = config.checkpoint.init_from
    if source is None or _has_trained(folder):
        return
    kept = kept_tokenizer(run_folder_of(Path(source)))
    if kept is None:
        report(
            f"{source} has no tokenizer beside it, so it is not known whether its weights were trained with {spec}."
        )
    elif load_tokenizer(kept).fingerprint != load_tokenizer(spec).fingerprint:
        problem = f"The weights of {source} were trained with the tokenizer {kept}, not with {spec}"
        if not config.data.accept_changed:
            raise DataChangedError(
                f"{problem}: its ids mean other words. Leave data.tokenizer out to use theirs, or take the weights all the "
                "same with data.accept_changed=true."
            )
        report(f"{problem}, as data.accept_changed=true accepts.")


def _folders_of_weights(folder: RunFolder, config: Config) -> list[Path]:
    """Run folders that may keep the tokenizer of the weights to start with, the most likely first."""
    if config.checkpoint.resume not in ("auto", "never"):
        return [run_folder_of(Path(config.checkpoint.resume))]
    folders = [place.checkpoints.parent for place in places_of(config, folder.checkpoints)]
    if _has_trained(folder):
        return folders
    if config.checkpoint.init_from is not None:
        return [run_folder_of(Path(config.checkpoint.init_from))]
    return [each for each in folders[1:] if _holds_checkpoint(each)]


def _has_trained(folder: RunFolder) -> bool:
    """True if the run has trained, even if its checkpoints are lost."""
    has_lines = folder.metrics.is_file() and folder.metrics.stat().st_size > 0
    return has_lines or bool(committed(folder.checkpoints))


def _holds_checkpoint(run: Path) -> bool:
    try:
        return bool(committed(RunPaths(run).checkpoints))
    except OSError:
        return False  # a failing disk is reported when a checkpoint is chosen
