"""Which checkpoints a run has, and which of them is the newest. Imports the standard library only.

A checkpoint is a folder in `checkpoints/` with a manifest, which is written last and renamed into place. glm/checkpoint/
reads its contents and checks whether it is complete.
"""

from collections.abc import Mapping
from pathlib import Path

from configs.run_paths import MANIFEST, STEP, STEP_FOLDER


def step_folder(checkpoints: Path, step: int) -> Path:
    """Folder of one checkpoint."""
    return checkpoints / f"{STEP}{step:08d}"


def step_of(folder: Path) -> int:
    """The step that a checkpoint's folder is named after."""
    named = STEP_FOLDER.fullmatch(folder.name)
    assert named is not None, f"{folder} is not named like a checkpoint"
    return int(named[1])


def committed(checkpoints: Path) -> list[Path]:
    """Folders that have a manifest, the latest step first.

    Raises:
        OSError: the file system failed.
    """
    return [folder for folder in _step_folders(checkpoints) if (folder / MANIFEST).is_file()]


def unfinished(checkpoints: Path) -> list[Path]:
    """Folders without a manifest: damaged ones, and those of saves that were killed or are not finished yet.

    Raises:
        OSError: the file system failed.
    """
    return [folder for folder in _step_folders(checkpoints) if not (folder / MANIFEST).is_file()]


def newest_first(generations: Mapping[Path, int | None]) -> list[Path]:
    """Sort committed checkpoints, newest first; the sort is stable.

    A later attempt counts for more than a later step: checkpoints that a process wrote after a later attempt had begun
    are not part of the run's history.

    Args:
        generations: for each folder, the generation of the attempt that wrote it; None: its manifest cannot be read.
    """
    highest = max((known for known in generations.values() if known is not None), default=0)

    def newness(folder: Path) -> tuple[int, int]:
        known = generations[folder]
        return (highest if known is None else known, step_of(folder))

    return sorted(generations, key=newness, reverse=True)


def is_checkpoint(path: Path) -> bool:
    """True if the path is the folder of a committed checkpoint, whatever its name."""
    return (path / MANIFEST).is_file()


def run_folder_of(path: Path) -> Path:
    """The run folder of a path, which is a run folder itself or a checkpoint in one."""
    return path.parent.parent if is_checkpoint(path) else path


def _step_folders(checkpoints: Path) -> list[Path]:
    if not checkpoints.is_dir():
        return []
    found = [path for path in checkpoints.iterdir() if STEP_FOLDER.fullmatch(path.name)]
    # A link could lead out of the run folder, and retention would delete what it leads to.
    folders = [path for path in found if path.is_dir() and not path.is_symlink()]
    return sorted(folders, key=step_of, reverse=True)
