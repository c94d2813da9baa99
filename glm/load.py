"""A trained model in one process, from a run folder or a checkpoint, whatever layout wrote it.

The run may still be training: if retention deletes the checkpoint while it is read, the newest one left is taken.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from configs import derive
from configs.checkpoint_yaml import from_checkpoint_yaml
from configs.errors import CheckpointError
from configs.load import apply_overrides
from configs.run_checkpoints import committed, is_checkpoint
from configs.run_paths import RunPaths
from configs.schema import Config
from glm.checkpoint.folder import newest_good
from glm.checkpoint.manifest import MASTER
from glm.checkpoint.presence import no_checkpoint
from glm.checkpoint.reader import load_full_tensors, read_manifest
from glm.model import GLMModel
from glm.tensor_parallel import whole_layers

T = TypeVar("T")

# Each try can lose a race against a run that saves and deletes checkpoints, but hardly this many in a row.
_TRIES = 10


def read_checkpoint(path: Path, read: Callable[[Path], T]) -> T:
    """Read the checkpoint at a path; if retention deletes it meanwhile, read the one that is newest by then.

    Args:
        path: a run folder (its newest good checkpoint is taken) or a checkpoint folder.
        read: called with the checkpoint's folder, once for each that is tried.

    Returns:
        What `read` returns.

    Raises:
        CheckpointError: there is no checkpoint, or it is damaged.
    """
    checkpoints = RunPaths(path).checkpoints
    for _ in range(_TRIES - 1):
        before = committed(checkpoints)
        try:
            return read(find_checkpoint(path))
        except (CheckpointError, OSError):
            if set(before) <= set(committed(checkpoints)):
                raise  # nothing was deleted meanwhile
    return read(find_checkpoint(path))


def load_model(path: Path | str) -> GLMModel:
    """Load the weights in fp32, in evaluation mode, for this process alone.

    Args:
        path: a run folder (its newest good checkpoint is taken) or a checkpoint folder.

    Raises:
        CheckpointError: there is no checkpoint, or it is damaged.
    """
    return read_checkpoint(Path(path), lambda folder: load_weights(folder, stored_config(folder)))


def load_weights(folder: Path, config: Config) -> GLMModel:
    """Load a checkpoint's weights into the model that its configuration describes.

    Args:
        folder: checkpoint.
        config: of `stored_config`.

    Raises:
        CheckpointError: it is damaged, or its tensors are of other shapes.
    """
    tensors = load_full_tensors(folder, MASTER)
    with whole_layers(), torch.device("meta"):
        model = GLMModel(config.model, config.seed)
    model.to_empty(device="cpu")
    for name, parameter in model.stable_parameters().items():
        if name not in tensors:
            raise CheckpointError(
                f"{folder} has no tensor {name}: it was written by another program."
            )
        if tensors[name].shape != parameter.shape:
            raise CheckpointError(
                f"{folder} holds {name} of shape {list(tensors[name].shape)}, but its configuration requires "
                f"{list(parameter.shape)}: it was written by another program."
            )
        parameter.data.copy_(tensors[name])
    return model.eval()


def stored_config(folder: Path) -> Config:
    """The configuration that a checkpoint was trained with.

    Raises:
        CheckpointError: the checkpoint is damaged, or the configuration is not that of its tensors: building a model
            from it could take any amount of memory.
        ConfigError: the configuration cannot be read.
    """
    manifest = read_manifest(folder)
    config = apply_overrides(from_checkpoint_yaml(manifest.config), [])
    expected = derive.parameters(config.model)
    if expected != manifest.num_parameters:
        raise CheckpointError(
            f"{folder} has {manifest.num_parameters:,} parameters, but its configuration requires {expected:,}: it was "
            "written by another program."
        )
    return config


def find_checkpoint(path: Path) -> Path:
    """The checkpoint folder that a path stands for.

    Raises:
        CheckpointError: there is none.
    """
    if is_checkpoint(path):
        return path
    checkpoints = RunPaths(path).checkpoints
    good = newest_good([checkpoints], lambda _: None) if committed(checkpoints) else None
    if good is None:
        raise no_checkpoint(path)
    return good
