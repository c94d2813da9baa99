"""Which run the files of a checkpoint belong to: a run deletes what it wrote itself, and nothing else.

A run's identity (train/identity.py) is stored in the manifests of its checkpoints, and its first digits are part of the
names of their files, so that files left by a killed save can be assigned to their run as well:

    rank00003-9f3c21aa-1b2c3d4e.safetensors    rank, mark of the run, save attempt

Checkpoints written before runs had identities have none, and their file names have no mark.
"""

import contextlib
import re
from pathlib import Path

from configs.errors import CheckpointError
from glm.checkpoint.manifest import HIDDEN, MANIFEST, Manifest
from glm.checkpoint.reader import read_manifest

_MARK_DIGITS = 8
_MARKED = re.compile(r"rank\d{5}-([0-9a-f]{8})-[0-9a-f]{8}\.(safetensors|json)(\.part)?")
_TEMPORARY = re.compile(r"[0-9a-f]{8}-.+\.part")


def mark_of(run_id: str | None) -> str:
    """Mark in the names of a run's files; "" for a run without identity, whose files have no mark."""
    return "" if run_id is None else run_id[:_MARK_DIGITS]


def rank_file_name(rank: int, mark: str, attempt: str) -> str:
    """Name of the file that a rank writes in one save attempt."""
    return (
        f"rank{rank:05d}-{mark}-{attempt}.safetensors"
        if mark
        else f"rank{rank:05d}-{attempt}.safetensors"
    )


def written_by(folder: Path, mark: str) -> bool:
    """True if a committed checkpoint is of the run with this mark, or was written before runs had identities."""
    manifest = _manifest(folder)
    if manifest is not None:
        return not mark or manifest.run_id is None or mark_of(manifest.run_id) == mark
    marks = {found[1] for found in map(_MARKED.fullmatch, _names(folder)) if found}
    return not mark or marks <= {mark}


def left_by(folder: Path, mark: str) -> bool:
    """True if a folder without a manifest was left by a killed save or removal of this run, or is empty."""
    names = _names(folder)
    if HIDDEN in names:
        return written_by(folder, mark)
    return not names or any(_is_rank_file(name, mark) for name in names)


def own_files(folder: Path, mark: str) -> list[Path]:
    """Files that the run wrote into a checkpoint's folder, except the manifest."""
    manifest = _manifest(folder)
    named = set() if manifest is None else set(manifest.files)
    return [
        folder / name
        for name in _names(folder)
        if name in named or _is_rank_file(name, mark) or _TEMPORARY.fullmatch(name)
    ]


def _is_rank_file(name: str, mark: str) -> bool:
    return (
        re.fullmatch(rf"rank\d{{5}}-{mark}[0-9a-f\-]*\.(safetensors|json)(\.part)?", name)
        is not None
    )


def _names(folder: Path) -> list[str]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return [path.name for path in folder.iterdir()]
    return []


def _manifest(folder: Path) -> Manifest | None:
    """The manifest, or the one that was hidden when the checkpoint was given up."""
    for name in (MANIFEST, HIDDEN):
        with contextlib.suppress(CheckpointError):
            return read_manifest(folder, name)
    return None
