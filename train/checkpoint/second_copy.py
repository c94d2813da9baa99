"""The folder of a run's second copy: which run it belongs to, and the small files that it needs beside checkpoints.

    COPY_TO/NAME/second_copy.json    the run whose copy it is

This mark is created exclusively, before anything else in the folder, and checked before every save. So two runs of the
same name never write into the same folder or delete each other's copies: the later run is refused.
"""

import contextlib
import json
import os
import shutil
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from configs.errors import CheckpointError, RecordError, RunFolderError
from configs.records import Count, RunId, ShortText, read_record
from configs.run_checkpoints import committed
from configs.run_lines import whole_lines
from configs.run_paths import (
    CONFIG,
    COPY_MARK,
    EVENTS,
    GENERATIONS,
    IDENTITY,
    INTERVENTIONS,
    METRICS,
    OVERRIDES,
    SOURCE,
    TOKENIZER_SPEC,
    RunPaths,
)
from glm.checkpoint.disk import sync_to_disk
from glm.checkpoint.reader import read_manifest
from train import identity
from train.run_folder import replace_file

_CARRIED = (CONFIG, OVERRIDES, SOURCE, INTERVENTIONS, METRICS, EVENTS, IDENTITY)
_OTHERWISE = (
    "name this one with run.name=NAME, or choose another folder with checkpoint.copy_to=PATH."
)


@dataclass(frozen=True)
class CopyMark:
    """Whose second copy a folder is."""

    run_id: RunId
    run: ShortText
    """Path of the run folder on the machine that trains it. A copied run folder has the same identity, but another path."""
    format_version: Count = 1


def claim(copy: Path, run: Path, run_id: str) -> str | None:
    """Mark a folder as the second copy of a run, or check that it is already marked so.

    Args:
        copy: folder of the second copy; need not exist.
        run: run folder.
        run_id: identity of the run.

    Returns:
        Why the folder cannot be used, and what to type; None if it can.

    Raises:
        OSError: the file system failed.
    """
    here = os.path.realpath(run)
    if os.path.realpath(copy) == here:
        return f"{copy} is the run folder itself, not a place for its second copy: {_OTHERWISE}"
    mine = CopyMark(run_id, here)
    try:
        found = read_mark(copy)
        if found is None:
            refusal = _refusal_of_unmarked(copy, run, run_id)
            if refusal is not None:
                return refusal
            copy.mkdir(parents=True, exist_ok=True)
            if identity.create_exclusively(copy / COPY_MARK, _text(mine)):
                return None
            found = read_mark(copy)
    except RecordError as error:
        return f"{error} It should say whose second copy this is: restore it, or {_OTHERWISE}"
    if found == mine:
        return None
    if found is not None and found.run_id == run_id and not _is_run(Path(found.run), run_id):
        replace_file(copy / COPY_MARK, _text(mine))  # the run folder was moved
        return None
    return _refusal(copy, run, found)


def read_mark(copy: Path) -> CopyMark | None:
    """Read which run a folder is the second copy of; None if it has no mark.

    Raises:
        RecordError: the mark is damaged.
        OSError: the file system failed.
    """
    try:
        return read_record(copy / COPY_MARK, CopyMark)
    except (FileNotFoundError, NotADirectoryError):
        return None


def become_a_run(folder: Path) -> None:
    """Turn a second copy into a run folder by deleting its mark, so that no other run writes into it any more."""
    with contextlib.suppress(
        RecordError
    ):  # not ours to delete; no run takes the folder for its copy with that, either
        if read_mark(folder) is not None:
            (folder / COPY_MARK).unlink()


def carry(run: Path, copy: Path, folder: Path) -> None:
    """Copy the files that a run needs, beside a checkpoint, for resuming, reports and generation.

    Args:
        run: run folder.
        copy: folder of the second copy.
        folder: folder of the checkpoint that is about to be committed there. Files are written into it first, so that
            what a killed process leaves is deleted with other leftovers.

    Raises:
        OSError: the file system failed.
    """
    for name in _CARRIED:
        if (run / name).is_file():
            _carry(run / name, copy / name, folder)
    # A tokenizer does not change. spec.txt is copied last: once it is there, the tokenizer is complete.
    files = [path for path in RunPaths(run).tokenizer.rglob("*") if path.is_file()]
    for path in sorted(files, key=lambda path: (path.name == TOKENIZER_SPEC, path)):
        target = copy / path.relative_to(run)
        if not target.is_file() or target.stat().st_size != path.stat().st_size:
            target.parent.mkdir(parents=True, exist_ok=True)
            _carry(path, target, folder)


def _carry(path: Path, target: Path, folder: Path) -> None:
    attempt = uuid.uuid4().hex[:8]  # keeps the file apart from that of another attempt
    partial = folder / f"{attempt}-{target.name}.part"
    shutil.copyfile(path, partial)
    sync_to_disk(partial)
    os.replace(partial, target)


def _refusal(copy: Path, run: Path, found: CopyMark | None) -> str:
    other = "another run" if found is None else f"the run {found.run}"
    if found is not None and found.run == os.path.realpath(run):
        other = "an earlier run in this folder"
    return (
        f"{copy} holds the second copy of {other}: two runs would delete each other's checkpoints. To keep both, "
        f"{_OTHERWISE} If it is this run, whose folder was lost: cp -r {copy}/. {run}, and type the same command again."
    )


def _refusal_of_unmarked(copy: Path, run: Path, run_id: str) -> str | None:
    """Why a folder without a mark cannot be used: it may be a copy by an older version, or a folder of the user's."""
    try:
        names = set(os.listdir(copy))
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        return f"{copy} is a file: {_OTHERWISE}"
    if GENERATIONS in names:
        return f"{copy} is a run folder itself, not a second copy: {_OTHERWISE}"
    ids: set[str | None] = set()
    for folder in committed(RunPaths(copy).checkpoints):
        with contextlib.suppress(CheckpointError):
            ids.add(read_manifest(folder).run_id)
    if ids - {None, run_id}:
        return _refusal(copy, run, None)
    is_of_this_run = run_id in ids or _begins_alike(copy / METRICS, run / METRICS)
    if is_of_this_run or (not ids and not names & set(_CARRIED)):
        return None
    return f"{copy} does not say whose second copy it is, and holds files that one would replace: {_OTHERWISE}"


def _begins_alike(one: Path, other: Path) -> bool:
    """True if two files have the same first line. It contains times in full precision, so it identifies a run."""
    first, second = (whole_lines(path)[:1] for path in (one, other))
    return bool(first) and first == second


def _is_run(folder: Path, run_id: str) -> bool:
    with contextlib.suppress(RunFolderError, OSError):
        found = identity.read(folder)
        return found is not None and found.run_id == run_id
    return False


def _text(mark: CopyMark) -> str:
    return json.dumps(asdict(mark), indent=1) + "\n"
