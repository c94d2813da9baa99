"""Is there a checkpoint at a path? Told without PyTorch, which takes seconds to import: a typing mistake is answered at once."""

import contextlib
import json
from pathlib import Path
from typing import Any, cast

from configs.errors import CheckpointError, RecordError
from configs.files import read_text
from configs.load import from_yaml
from configs.schema import Config

MANIFEST = "manifest.json"
_CHECKPOINTS = "checkpoints/step_*"
_LARGEST_MANIFEST = 2**30


def check_presence(path: Path) -> None:
    """Raise unless a path is a checkpoint, or a run folder that has one, whole or not.

    Raises:
        CheckpointError: there is none.
    """
    if _newest(path) is None:
        raise no_checkpoint(path)


def no_checkpoint(path: Path) -> CheckpointError:
    """What is said of a path without a checkpoint."""
    what = "does not exist" if not path.exists() else "has no checkpoint and is none"
    return CheckpointError(
        f"{path} {what}. Type a run folder, such as runs/default, or one of its checkpoints/step_... folders."
    )


def early_config(path: Path) -> Config | None:
    """The configuration of the newest checkpoint at a path, to check words against; None where it cannot be read.

    Whoever loads the checkpoint reads it again, and says what is wrong with it.
    """
    folder = _newest(path)
    if folder is None:
        return None
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError, RecordError):
        manifest: Any = json.loads(read_text(folder / MANIFEST, _LARGEST_MANIFEST))
        return from_yaml(cast(str, manifest["config"]))
    return None


def _newest(path: Path) -> Path | None:
    """The checkpoint of a path, or the newest one of a run folder; None: there is none."""
    if (path / MANIFEST).is_file():
        return path
    found = sorted(each.parent for each in path.glob(f"{_CHECKPOINTS}/{MANIFEST}"))
    return found[-1] if found else None
