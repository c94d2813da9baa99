"""What a run keeps of its data: the tokenizer in its folder, and the description in its newest checkpoint.

The shards of today may be others than those that the run was trained on. Whoever looks at a run is told so instead of
being shown words that it never saw.
"""

import json
from pathlib import Path
from typing import Any

from configs.errors import DataChangedError, DataError
from data_pipeline.continuity import compare
from data_pipeline.dataset import GLMDataset
from data_pipeline.tokenizer import spec_in


def kept_tokenizer(folder: Path) -> str | None:
    """Spec of the tokenizer that is kept in a run folder; None if the run came to no start."""
    kept = folder / "tokenizer"
    try:
        return spec_in((kept / "spec.txt").read_text().strip(), str(kept))
    except FileNotFoundError:
        return None


def changed_data(folder: Path, training: GLMDataset) -> list[str]:
    """What has changed of the samples that a run has drawn, by its newest checkpoint; without one nothing is known.

    Raises:
        DataError: the newest checkpoint does not describe its data.
    """
    manifests = sorted(folder.glob("checkpoints/step_*/manifest.json"))
    if not manifests:
        return []
    path = manifests[-1]
    try:
        stored: Any = json.loads(path.read_bytes())
        described, drawn = stored["data_state"]["dataset"], stored["progress"]["samples_drawn"]
        return compare(described, training.describe(), drawn).breaks
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} does not say what data it was trained on ({error!r}). Move its folder away to look at an earlier "
            "checkpoint's."
        ) from error


def check_same_data(folder: Path, changes: list[str], overrides: list[str]) -> None:
    """Refuse to show what a run never saw.

    Args:
        folder: of the run.
        changes: since it was trained.
        overrides: of the run's configuration, which may be why.

    Raises:
        DataChangedError: there are changes.
    """
    if changes:
        what = f"With {' '.join(overrides)} the data" if overrides else "The data"
        advice = "Leave that out" if overrides else "Restore them"
        raise DataChangedError(
            f"{what} are not those that {folder} was trained on ({'; '.join(changes)}). {advice}, or look at them all the "
            "same with data.accept_changed=true."
        )
