"""The user's cache folder, and how something is made there exactly once.

Several processes may ask for the same thing at the same time (all ranks of a run do): the first makes it in a
temporary folder under a lock and renames it into place, the others wait. A process that is killed half-way leaves a
temporary folder that is never read, and its lock is released by the kernel. A damaged folder is moved aside and made
again; nothing else in the cache is touched.
"""

import contextlib
import errno
import fcntl
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Generator
from pathlib import Path
from typing import IO

from configs.errors import DataError

Report = Callable[[str], None]


class NoLocksError(DataError):
    """The file system has no locks, so two processes could write the same files."""


# Put into each folder that is being made, so that somebody else's folder is never taken for a leftover.
_MARK = "made-by-glm-pretraining"
# Errors of file systems without locks.
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)


def cache_folder(configured: str | None, report: Report) -> Path:
    """Folder for prepared corpora: the configured one, or the user's cache; without a home, a temporary one.

    Args:
        configured: `data.cache_dir`.
        report: called with a message if there is no home folder.

    Raises:
        DataError: there is no home, and the temporary folder is somebody else's.
    """
    if configured is not None:
        return Path(configured).expanduser() if configured.startswith("~/") else Path(configured)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if not base.startswith("~"):
        return Path(base) / "glm-pretraining"
    folder = Path(tempfile.gettempdir()) / f"glm-pretraining-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        is_ours = folder.lstat().st_uid == os.getuid() and not folder.is_symlink()
    except OSError:
        is_ours = False
    if not is_ours:
        raise DataError(
            f"There is no home folder for the cache, and {folder} cannot be used. Name one with data.cache_dir=PATH."
        )
    report(
        f"There is no home folder: prepared corpora are kept in {folder}. Name a lasting one with data.cache_dir=PATH"
    )
    return folder


def make_once(
    folder: Path,
    make: Callable[[Path], None],
    report: Report,
    is_whole: Callable[[Path], bool] = Path.is_dir,
    setting: str = "data.cache_dir",
) -> Path:
    """Make `folder` by calling `make` on an empty one, unless it is there already.

    Args:
        folder: appears complete or not at all.
        make: fills the folder that it is given.
        report: told if another process is making it, and if it is damaged.
        is_whole: whether what is there can be used; if not it is moved aside.
        setting: key that moves the folder elsewhere, for the message.

    Raises:
        DataError: the folder's parent is not writable, or has no locks.
    """
    if folder.is_dir() and is_whole(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _lock(folder.with_suffix(".lock"), folder, report, setting):
            if folder.is_dir() and is_whole(folder):
                return folder
            if folder.is_dir():
                aside = folder.with_name(f"{folder.name}.damaged-{uuid.uuid4().hex[:8]}")
                folder.rename(aside)
                report(f"{folder} is damaged: it is made again. What was there is now {aside}")
            _remove_left_overs(folder)
            making = folder.with_name(f"{folder.name}.making-{uuid.uuid4().hex[:8]}")
            making.mkdir()
            try:
                (making / _MARK).touch()
                content = making / "content"
                content.mkdir()
                make(content)
                content.rename(folder)
            finally:
                shutil.rmtree(making, ignore_errors=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(
            f"The cache {folder.parent} cannot be written ({reason}). Choose another with {setting}=PATH."
        ) from error
    return folder


def _remove_left_overs(folder: Path) -> None:
    """Remove what killed processes were making; the lock is held, so none is at work."""
    pattern = re.compile(re.escape(folder.name) + r"\.making-[0-9a-f]{8}")
    for path in folder.parent.iterdir():
        if pattern.fullmatch(path.name) and (path / _MARK).is_file():
            shutil.rmtree(path, ignore_errors=True)


def lock_file(file: IO[bytes], *, wait: bool, shared: bool = False) -> bool:
    """Lock an open file against other processes until it is closed; False if it is locked and `wait` is not set.

    Several processes may hold a `shared` lock, while nobody holds the other kind.

    Raises:
        NoLocksError: the file system has none.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(file, kind if wait else kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        raise NoLocksError(
            f"The file system of {file.name} has no file locks ({error.strerror}), which keep two processes from writing "
            "the same. Choose a folder on a disk of this machine, or let the file system be mounted with locks (Lustre: "
            "-o flock)."
        ) from error
    return True


@contextlib.contextmanager
def _lock(path: Path, wanted: Path, report: Report, setting: str) -> Generator[None, None, None]:
    with path.open("ab") as file:
        try:
            if not lock_file(file, wait=False):
                report(f"Waiting for another process that is making {wanted}")
                lock_file(file, wait=True)
        except NoLocksError as error:
            raise NoLocksError(f"{error} Type {setting}=PATH.") from error
        yield
