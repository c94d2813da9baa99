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
from collections.abc import Callable, Generator
from pathlib import Path
from typing import IO

from configs.errors import DataError

Report = Callable[[str], None]


def cache_folder(configured: str | None) -> Path:
    """Folder for prepared corpora: the configured one, or the user's cache.

    Raises:
        DataError: the user has no home.
    """
    if configured is not None:
        return Path(configured)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if base.startswith("~"):
        raise DataError("There is no home folder for the cache. Name one with data.cache_dir=PATH.")
    return Path(base) / "glm-pretraining"


def make_once(
    folder: Path,
    make: Callable[[Path], None],
    report: Report,
    setting: str = "data.cache_dir",
) -> Path:
    """Make `folder` by calling `make` on an empty one, unless it is there already.

    Args:
        folder: appears complete or not at all.
        make: fills the folder that it is given.
        report: told if another process is making it.
        setting: key that moves the folder elsewhere, for the message.

    Raises:
        DataError: the folder's parent is not writable.
    """
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _lock(folder.with_suffix(".lock"), folder, report):
            if folder.is_dir():
                return folder
            for stale in folder.parent.glob(f"{folder.name}.making-*"):
                # Of a process that was killed: we hold the lock.
                shutil.rmtree(stale, ignore_errors=True)
            making = folder.parent / f"{folder.name}.making-{uuid.uuid4().hex[:8]}"
            making.mkdir()
            try:
                make(making)
                making.rename(folder)
            finally:
                shutil.rmtree(making, ignore_errors=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(
            f"The cache {folder.parent} cannot be written ({reason}). Choose another with {setting}=PATH."
        ) from error
    return folder


def lock_file(file: IO[bytes], *, wait: bool, shared: bool = False) -> bool:
    """Lock an open file against other processes until it is closed; False if it is locked and `wait` is not set.

    Several processes may hold a `shared` lock, while nobody holds the other kind.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(file, kind if wait else kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _lock(path: Path, wanted: Path, report: Report) -> Generator[None, None, None]:
    with path.open("wb") as file:
        if not lock_file(file, wait=False):
            report(f"Waiting for another process that is making {wanted}")
            lock_file(file, wait=True)
        yield
