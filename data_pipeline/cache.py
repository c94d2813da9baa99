"""The user's cache folder, and how something is made there exactly once.

Several processes may ask for the same thing at the same time (all ranks of a run do): the first makes it in a
temporary folder under a lock and renames it into place, the others wait. A process that is killed half-way leaves a
temporary folder that nobody looks at, and its lock is released by the kernel.
"""

import contextlib
import fcntl
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from configs.errors import DataError


def cache_folder(configured: str | None) -> Path:
    """Folder for prepared corpora: the configured one, or the user's cache."""
    if configured is not None:
        return Path(configured)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "glm-pretraining"


def make_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Make `folder` by calling `make` on an empty one, unless it is there already.

    Args:
        folder: appears complete or not at all.
        make: fills the folder that it is given.

    Raises:
        DataError: the cache is not writable.
    """
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _lock(folder.with_suffix(".lock")):
            if folder.is_dir():
                return folder
            for stale in folder.parent.glob(f"{folder.name}.making-*"):
                shutil.rmtree(stale, ignore_errors=True)  # of a process that was killed: we hold the lock
            making = folder.parent / f"{folder.name}.making-{uuid.uuid4().hex[:8]}"
            making.mkdir()
            try:
                make(making)
                making.rename(folder)
            finally:
                shutil.rmtree(making, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"The cache {folder.parent} cannot be written: {error.strerror}. Choose another with data.cache_dir=PATH."
        ) from error
    return folder


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
