"""Checks of a start before the libraries are loaded, which takes seconds: whether the named files and folders exist."""

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

from configs import derive
from configs.errors import CheckpointError, RecordError, RunFolderError
from configs.nearby import did_you_mean, runs_near
from configs.run_paths import EXAMPLE_CHECKPOINT, RunPaths
from configs.run_status import read_status
from configs.schema import Config
from train.wandb_account import resolve_mode
from train.world import World, is_on_one_node

_CORPORA = ("data.paths=", "data.valid_paths=", "data.instructions=")
_TENSORBOARD = "tensorboardX"


def check_names(config: Config, overrides: Sequence[str], world: World) -> None:
    """Refuse corpora and checkpoints that are not there, before anything is made.

    Args:
        config: of the run.
        overrides: the words of the command line.
        world: ranks of several nodes meet first, so that one of them reports what all have found.

    Raises:
        DataError: a corpus is not there, or has no held-out part.
        CheckpointError: there is no such folder.
        RunFolderError: see `check_trackers`.
    """
    is_node_of_torchrun = world.launcher == "torchrun" and is_on_one_node(world)
    if world.size > 1 and not is_node_of_torchrun:
        return
    run = RunPaths(Path(derive.run_dir(config)))
    is_new = not run.config.exists()
    if not is_new and _may_be_finished(run):
        return  # it may need nothing of all this
    check_trackers(config)
    check_resume(config)
    if is_new:
        check_init_from(config)
    if is_new or any(word.startswith(_CORPORA) for word in overrides):
        from data_pipeline.corpus import check_paths

        check_paths(config.data)


def check_trackers(config: Config) -> None:
    """Refuse trackers that cannot be reported to.

    Raises:
        RunFolderError: wandb was asked for online, but there is no key, or TensorBoard's library is missing.
    """
    resolve_mode(config.log.wandb)
    if config.log.tensorboard and importlib.util.find_spec(_TENSORBOARD) is None:
        raise RunFolderError(
            f"log.tensorboard (true) needs {_TENSORBOARD}. Type pip install 'glm-pretraining[tensorboard]', or "
            "log.tensorboard=false."
        )


def check_resume(config: Config) -> None:
    """Refuse a `checkpoint.resume` that names no folder.

    Raises:
        CheckpointError: the message names runs like it, if there are some.
    """
    asked = config.checkpoint.resume
    own = derive.run_dir(config)
    if asked in ("auto", "never") or os.path.realpath(asked) == os.path.realpath(own):
        return
    if not Path(asked).is_dir():
        meant = did_you_mean(runs_near(asked))
        example = f"Type auto, never, or a path such as {own}/{EXAMPLE_CHECKPOINT}."
        raise CheckpointError(
            f"checkpoint.resume ({asked}) is not a checkpoint folder. {meant or example}"
        )


def check_init_from(config: Config) -> None:
    """Refuse a `checkpoint.init_from` that names no folder.

    Raises:
        CheckpointError: the message names runs like it, if there are some.
    """
    path = config.checkpoint.init_from
    if path is not None and not Path(path).is_dir():
        meant = did_you_mean(runs_near(path))
        example = f"Type a path such as checkpoint.init_from=runs/NAME/{EXAMPLE_CHECKPOINT}."
        raise CheckpointError(
            f"checkpoint.init_from ({path}) is neither a checkpoint nor a run folder with one. {meant or example}"
        )


def _may_be_finished(run: RunPaths) -> bool:
    """True if status.json says so, or cannot be read: later checks then report what is wrong."""
    try:
        status = read_status(run.path)
    except (RecordError, OSError):
        return True
    return status is None or status.state == "done"
