"""Which checkpoints a run has, and which of them is the newest. Of the standard library alone.

A checkpoint is a folder of `checkpoints/` that has a manifest: it is written last and renamed into place. What stands
in it, and whether it is whole, is for glm/checkpoint/ to say.
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
    assert named is not None, f"{folder} is none of a checkpoint"
    return int(named[1])


def committed(checkpoints: Path) -> list[Path]:
    """Folders that have a manifest, the latest step first.

    Raises:
        OSError: the file system failed.
    """
    return [folder for folder in _step_folders(checkpoints) if (folder / MANIFEST).is_file()]


def unfinished(checkpoints: Path) -> list[Path]:
    """Folders without a manifest: of a save that was killed or is under way, or damaged.

    Raises:
        OSError: the file system failed.
    """
    return [folder for folder in _step_folders(checkpoints) if not (folder / MANIFEST).is_file()]


def newest_first(generations: Mapping[Path, int | None]) -> list[Path]:
    """Sort committed checkpoints; of equals the first one stands first.

    A later start of the run counts for more than a later step: what a process that was cut off wrote after the next one
    had begun belongs to no history.

    Args:
        generations: by folder, the start of the run that wrote it; None: its manifest cannot be read.
    """
    highest = max((known for known in generations.values() if known is not None), default=0)

    def newness(folder: Path) -> tuple[int, int]:
        known = generations[folder]
        return (highest if known is None else known, step_of(folder))

    return sorted(generations, key=newness, reverse=True)


def is_checkpoint(path: Path) -> bool:
    """True of a committed checkpoint's folder, whatever its name."""
    return (path / MANIFEST).is_file()


def run_folder_of(path: Path) -> Path:
    """The run folder that a run folder or a checkpoint's path lies in."""
    return path.parent.parent if is_checkpoint(path) else path


def _step_folders(checkpoints: Path) -> list[Path]:
    if not checkpoints.is_dir():
        return []
    found = [path for path in checkpoints.iterdir() if STEP_FOLDER.fullmatch(path.name)]
    # A link could lead out of the run, and what lies there would be cleaned away.
    folders = [path for path in found if path.is_dir() and not path.is_symlink()]
    return sorted(folders, key=step_of, reverse=True)
