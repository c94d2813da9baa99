"""Resuming: which checkpoint to continue from, and loading its state into the engine.

All ranks share the work of verification, so that a checkpoint of terabytes is checked as fast as it was written.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch.distributed as dist

from configs import derive
from configs.checkpoint_yaml import from_checkpoint_yaml
from configs.errors import CheckpointError
from configs.load import flatten
from configs.run_checkpoints import is_checkpoint
from configs.run_paths import EXAMPLE_CHECKPOINT, RunPaths
from configs.schema import Config
from glm.checkpoint.folder import candidates, newest_good
from glm.checkpoint.manifest import Manifest
from glm.checkpoint.reader import Reader, read_manifest, verify_files
from train.engine import Engine
from train.progress import Progress
from train.session import Session

# Keys under model.* that may change while the model counts as the same one.
_FREE_MODEL_KEYS = {
    *("model.hidden_dropout", "model.attention_dropout"),
    *("model.attention", "model.softmax_fp32"),
}
# Further keys that do not matter for a new run that takes trained weights: no parameter depends on them.
_KEYS_WITHOUT_WEIGHTS = {"model.seq_length", "model.embedding_init_std"}


def newest_good_together(
    places: Sequence[Path],
    session: Session,
    report: Callable[[str], None],
    admits: Callable[[Path, Manifest], bool] = lambda folder, manifest: True,
) -> Path | None:
    """Find the newest complete checkpoint, verified by all ranks together; every rank gets the same answer.

    Args:
        places: folders that hold checkpoints: the run's own, then that of the second copy.
        session: process groups.
        report: called on rank 0 with a message about each checkpoint that cannot be used.
        admits: called on rank 0; returns whether a checkpoint belongs to the run and its history.

    Raises:
        CheckpointError: there are checkpoints, but none is complete; or a newer version of the program wrote the newest.
    """
    is_main = session.topology.rank == 0
    found = [candidates(places, admits) if is_main else []]
    dist.broadcast_object_list(found, src=0, group=session.control_group)
    return newest_good(
        places,
        report if is_main else lambda _: None,
        check=lambda folder: verify_together(folder, session),
        tried=found[0],
    )


def verify_together(folder: Path, session: Session) -> Manifest:
    """Verify every byte of a checkpoint; each rank checks a share of the files.

    Raises:
        DamagedCheckpointError: on every rank, naming the damaged file and tensor.
        CheckpointError: a newer version of the program wrote it.
    """
    topology = session.topology
    manifest, error = None, None
    try:
        manifest = read_manifest(folder)
        share = sorted(manifest.files)[topology.rank :: topology.world_size]
        verify_files(folder, manifest, share)
    except CheckpointError as problem:
        error = problem
    gathered: list[Any] = [None] * topology.world_size
    dist.all_gather_object(gathered, error, group=session.control_group)
    for problem in gathered:
        if problem is not None:
            raise problem
    assert manifest is not None, "no error, so it was read"
    return manifest


def restore(engine: Engine, folder: Path, manifest: Manifest) -> Progress:
    """Load a checkpoint's state into the engine; the checkpoint may come from any layout.

    Args:
        engine: a freshly built engine, or one between two steps.
        folder: a verified checkpoint.
        manifest: the checkpoint's manifest.

    Returns:
        The position of the run at the checkpoint.

    Raises:
        CheckpointError: the checkpoint holds weights only, or another program wrote it.
    """
    if not manifest.optimizer:
        raise CheckpointError(
            f"{folder} holds weights without an optimizer's state, so a run cannot be resumed from it. Start a new run "
            f"from the weights: checkpoint.init_from={folder}"
        )
    try:
        progress = Progress.from_dict(manifest.progress)
    except TypeError as error:
        raise CheckpointError(f"{folder} was written by another program: {error}.") from error
    engine.state.load(Reader(folder, manifest))
    return progress


def initialise_from(
    engine: Engine, path: Path, config: Config, session: Session, report: Callable[[str], None]
) -> Path:
    """Start a new run from a checkpoint's weights.

    Args:
        engine: a freshly built engine.
        path: a checkpoint, or a run folder, whose newest complete checkpoint is taken on every rank.
        config: configuration of the new run.
        session: process groups.
        report: called on rank 0 with a message about each damaged checkpoint that is skipped.

    Returns:
        The checkpoint whose weights were taken.

    Raises:
        CheckpointError: there is no checkpoint, it is damaged, or its weights do not fit this model.
    """
    folder: Path | None = path
    checkpoints = RunPaths(path).checkpoints
    if not is_checkpoint(path) and checkpoints.is_dir():
        folder = newest_good_together([checkpoints], session, report)
    if folder is None or not folder.is_dir():
        raise CheckpointError(
            f"checkpoint.init_from ({path}) is neither a checkpoint nor a run folder with one. Type a path such as "
            f"checkpoint.init_from=runs/NAME/{EXAMPLE_CHECKPOINT}."
        )
    manifest = verify_together(folder, session)
    check_weights_fit(config, from_checkpoint_yaml(manifest.config), folder)
    engine.state.load_weights(Reader(folder, manifest))
    return folder


def check_same_model(config: Config, stored: Config, where: Path) -> None:
    """Refuse to continue a run of another model.

    Raises:
        CheckpointError: naming each key that differs.
    """
    differing = _differing(config, stored, _FREE_MODEL_KEYS)
    if differing:
        raise CheckpointError(
            f"{where} holds another model: {'; '.join(differing)}. Start another run with run.name=NAME, or use the "
            f"model of {derive.run_dir(stored)}."
        )


def check_weights_fit(config: Config, stored: Config, where: Path) -> None:
    """Refuse weights of another model; keys on which no parameter depends may differ.

    Raises:
        CheckpointError: naming each key that differs, and what to type.
    """
    free = _FREE_MODEL_KEYS | _KEYS_WITHOUT_WEIGHTS
    if derive.padded_vocab_size(config.model) == derive.padded_vocab_size(stored.model):
        free |= {"model.vocab_size", "model.vocab_multiple"}
    differing = _differing(config, stored, free)
    if differing:
        then = flatten(stored)
        keys = [text.partition(" ")[0] for text in differing]
        typed = " ".join(f"{key}={_typed(then[key])}" for key in keys)
        raise CheckpointError(
            f"The weights of checkpoint.init_from ({where}) are of another model: {'; '.join(differing)}. To start from "
            f"them: {typed}. For a new model leave checkpoint.init_from out."
        )


def _differing(config: Config, stored: Config, free: set[str]) -> list[str]:
    now, then = flatten(config), flatten(stored)
    return [
        f"{key} is {then.get(key)} there and {now[key]} now"
        for key in now
        if key.startswith("model.") and key not in free and now[key] != then.get(key)
    ]


def _typed(value: object) -> str:
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else str(value)
