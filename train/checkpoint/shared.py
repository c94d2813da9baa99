"""The check, at the start, that all ranks see the same folder for second copies.

Rank 0 commits a copy from the files that all ranks have written, so a node's local disk works only for a run on one
node. Without this check the first save would fail only after a long timeout.
"""

import contextlib
import time
import uuid
from pathlib import Path

import torch.distributed as dist

from configs.errors import CheckpointError
from train.session import Session

# The client of a network file system may cache a folder's old contents for this long.
_PATIENCE_SECONDS, _POLL_SECONDS = 60.0, 0.5


def check_copy_is_shared(copy_to: str | None, session: Session) -> None:
    """Refuse a folder for second copies that is not the same on all nodes; every rank calls this function.

    A folder that cannot be written at all is not refused: the run's own checkpoints do not need it, and each save
    reports the error.

    Args:
        copy_to: `checkpoint.copy_to`.
        session: process groups.

    Raises:
        CheckpointError: some ranks do not see the folder of rank 0; the same error on every rank.
    """
    if copy_to is None:
        return
    topology = session.topology
    name = [_put_file(Path(copy_to)) if topology.rank == 0 else None]
    dist.broadcast_object_list(name, src=0, group=session.control_group)
    if name[0] is None:
        return
    path = Path(copy_to) / name[0]
    seen: list[bool] = [True] * topology.world_size
    dist.all_gather_object(seen, _sees(path), group=session.control_group)
    if topology.rank == 0:
        with contextlib.suppress(OSError):
            path.unlink()
    missing = [rank for rank, sees in enumerate(seen) if not sees]
    if missing:
        raise CheckpointError(
            f"checkpoint.copy_to ({copy_to}) is not the same folder for all ranks: {len(missing)} of {topology.world_size} "
            f"do not see what rank 0 writes there (the first of them is rank {missing[0]}). Put it on a file system that "
            "all nodes share, or do without a second copy: checkpoint.copy_to=null. A node's own disk will do for a run "
            "on one node."
        )


def _put_file(folder: Path) -> str | None:
    """Create an empty file; returns its name, or None if the folder cannot be written."""
    name = f".seen-{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    except OSError:
        return None
    return name


def _sees(path: Path) -> bool:
    """False only if the file is certainly missing; an error of the file system may be temporary."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            if path.is_file():
                return True
        except OSError:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
