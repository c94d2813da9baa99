"""The identity of a run: made once, at its first start, and carried by everything that belongs to it.

`runs/NAME/identity.json` holds it; the manifests of the checkpoints, the names of their files, the second copy and the
records of trackers repeat it. So a run recognises the checkpoints of other runs, and two runs never share a second
copy. A run folder that is copied elsewhere is the same run there.

The file also says whether a checkpoint was ever committed: a run that had one does not begin at 0 by itself.
"""

import contextlib
import json
import os
import re
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from configs.errors import CheckpointError, RecordError, RunFolderError
from configs.records import Count, RunId, read_record
from configs.run_checkpoints import committed
from configs.run_files import read_events
from configs.run_paths import IDENTITY, LATEST, MANIFEST, RunPaths
from glm.checkpoint.reader import read_manifest
from train.run_folder import replace_file

FORMAT_VERSION = 1
_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Identity:
    """The contents of identity.json."""

    run_id: RunId
    has_checkpoint: bool = False
    """True once a checkpoint of the run was committed."""
    format_version: Count = FORMAT_VERSION


def settle(run: Path, log: Callable[[str], None] = lambda _: None) -> Identity:
    """Read the identity of a run, or make one; called by the process that holds the run folder.

    A folder without one, because an older program made it or the file was lost, takes that of its checkpoints.

    Args:
        run: run folder.
        log: gets a line if the identity was taken from the checkpoints.

    Raises:
        RunFolderError: the file is damaged or of a newer program, or the checkpoints are those of several runs.
        OSError: the file system failed.
    """
    found = read(run)
    if found is not None:
        return found
    known = _ids_of_checkpoints(run)
    if len(known) > 1:
        raise RunFolderError(
            f"{run} holds checkpoints of {len(known)} runs ({', '.join(sorted(known))}), and no {IDENTITY} that says which run "
            f"it is. Move the checkpoints of the others elsewhere: each {MANIFEST} has their run_id."
        )
    if known:
        log(
            f"{RunPaths(run).identity} is missing: its checkpoints say that this is the run {min(known)}."
        )
    chosen = min(known) if known else new_id()
    create_exclusively(RunPaths(run).identity, _text(Identity(chosen, _has_saved(run))))
    return _read_again(run)


def read(run: Path) -> Identity | None:
    """The identity of a run; None: it has none yet.

    Raises:
        RunFolderError: the file is damaged or of a newer program.
        OSError: the file system failed.
    """
    try:
        found = read_record(RunPaths(run).identity, Identity)
    except FileNotFoundError:
        return None
    except RecordError as error:
        raise RunFolderError(
            f"{error} Move it away: the run's checkpoints also say which run it is."
        ) from error
    if found.format_version > FORMAT_VERSION:
        raise RunFolderError(
            f"{RunPaths(run).identity} has format version {found.format_version}; this program reads up to {FORMAT_VERSION}. Update "
            "it: pip install --upgrade glm-pretraining"
        )
    return found


def record_checkpoint(run: Path, run_id: str) -> None:
    """Record that a checkpoint was committed; called after it.

    Args:
        run: run folder.
        run_id: identity that the checkpoint carries; the run may have been begun anew since.

    Raises:
        OSError: the file cannot be written.
    """
    found = read(run)
    if found is not None and found.run_id == run_id and not found.has_checkpoint:
        replace_file(RunPaths(run).identity, _text(replace(found, has_checkpoint=True)))


def begin_anew(run: Path) -> Identity:
    """Give the run another identity: it begins at 0, and none of its earlier history belongs to it any more.

    Raises:
        OSError: the file cannot be written.
    """
    identity = Identity(new_id())
    replace_file(RunPaths(run).identity, _text(identity))
    return identity


def new_id() -> str:
    """A random identity."""
    return uuid.uuid4().hex[:16]


def create_exclusively(path: Path, text: str) -> bool:
    """Create a file, with its whole text at once, unless it exists already.

    Returns:
        False if it exists.

    Raises:
        OSError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with temporary.open("x") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without links
            try:
                descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            except FileExistsError:
                return False
            with open(descriptor, "w") as file:
                file.write(text)
        return True
    finally:
        temporary.unlink(missing_ok=True)


def _read_again(run: Path) -> Identity:
    found = read(run)
    assert found is not None, "it was just made"
    return found


def _text(identity: Identity) -> str:
    return json.dumps(asdict(identity), indent=1) + "\n"


def _ids_of_checkpoints(run: Path) -> set[str]:
    ids: set[str] = set()
    for folder in committed(RunPaths(run).checkpoints):
        with contextlib.suppress(CheckpointError):  # a damaged one is reported when it is loaded
            found = read_manifest(folder).run_id
            if found is not None and _ID.fullmatch(found):
                ids.add(found)
    return ids


def _has_saved(run: Path) -> bool:
    """True if a run folder without an identity shows that a checkpoint was ever committed."""
    checkpoints = RunPaths(run).checkpoints
    if committed(checkpoints) or (checkpoints / LATEST).exists():
        return True
    with contextlib.suppress(RecordError):
        events = read_events(run, lambda _: None)
        return any(event.event == "checkpoint" for event, _ in events)
    return False
