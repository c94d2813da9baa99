"""Is there a checkpoint at a path? Found out without importing PyTorch, which takes seconds."""

import contextlib
from pathlib import Path
from typing import Any, cast

from configs.checkpoint_yaml import from_checkpoint_yaml
from configs.errors import CheckpointError, RecordError
from configs.files import read_text
from configs.nearby import did_you_mean, runs_near
from configs.run_checkpoints import committed, is_checkpoint, newest_first
from configs.run_lines import json_object
from configs.run_paths import CHECKPOINTS, MANIFEST, STEP, RunPaths
from configs.schema import Config

_LARGEST_MANIFEST = 2**30


def check_presence(path: Path) -> None:
    """Raise unless a path is a checkpoint, or a run folder that has one, whole or not.

    Raises:
        CheckpointError: there is none.
    """
    if not _found(path):
        raise no_checkpoint(path)


def no_checkpoint(path: Path) -> CheckpointError:
    """The message for a path without a checkpoint."""
    what = "does not exist" if not path.exists() else "is not a checkpoint, and contains none"
    advice = did_you_mean([name for name in runs_near(path) if _found(Path(name))]) or (
        f"Type a run folder, such as runs/default, or one of its {CHECKPOINTS}/{STEP}... folders."
    )
    return CheckpointError(f"{path} {what}. {advice}")


def early_config(path: Path) -> Config | None:
    """The configuration of the newest checkpoint at a path, to check arguments against; None if it cannot be read.

    The code that loads the checkpoint reads it again, and reports what is wrong with it.
    """
    manifests = {folder: _manifest(folder) for folder in _found(path)}
    if len(manifests) == 1:
        return _config(*manifests.values())
    newest = newest_first({folder: _generation(found) for folder, found in manifests.items()})
    return _config(manifests[newest[0]]) if newest else None


def _found(path: Path) -> list[Path]:
    """The checkpoint at a path, or the checkpoints of a run folder."""
    return [path] if is_checkpoint(path) else committed(RunPaths(path).checkpoints)


def _manifest(folder: Path) -> dict[str, Any]:
    """Content of a manifest; empty if it cannot be read."""
    with contextlib.suppress(OSError, RecordError):
        path = folder / MANIFEST
        return json_object(read_text(path, _LARGEST_MANIFEST), str(path))
    return {}


def _generation(manifest: dict[str, Any]) -> int | None:
    generation = manifest.get("generation")
    return generation if isinstance(generation, int) else None


def _config(manifest: dict[str, Any]) -> Config | None:
    with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
        return from_checkpoint_yaml(cast(str, manifest["config"]))
    return None
