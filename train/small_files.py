"""Replacing the small files of a run folder: a reader sees the old one or the new one, never a part."""

import contextlib
import os
import re
import threading
from pathlib import Path
from typing import TextIO

from configs.run_lines import whole_lines
from configs.run_paths import RunPaths
from glm.checkpoint.disk import sync_to_disk


def replace_file(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part."""
    # The watchdog's thread may write the same file at the same moment.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_native_id()}.part")
    try:
        # Left by an earlier process with the same id; it may be a link.
        temporary.unlink(missing_ok=True)
        with temporary.open("xb") as file:
            file.write(text.encode("utf-8", "backslashreplace"))  # a path need not be valid UTF-8
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def renewed(path: Path, content: bytes | None = None) -> TextIO:
    """Put a new file in a file's place, and keep it open to write on.

    A process that has the old one open writes into a file that no longer has a name.

    Args:
        path: the file; need not exist.
        content: of the new file; default: that of the old one, without an incomplete last line.
    """
    if content is None:
        content = b"".join(whole_lines(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    temporary.unlink(missing_ok=True)
    with temporary.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    # Opened before it has its name, for afterwards that may be a later attempt's file; messages should use the name.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_APPEND)
    renewed_file = open(path, "a", opener=lambda *_: descriptor)  # noqa: SIM115  (the caller closes it)
    os.replace(temporary, path)
    # After a power failure the name must stand for the new file: what is written from now on goes there.
    sync_to_disk(path.parent)
    return renewed_file


def sweep(folder: Path) -> None:
    """Remove the temporary files that killed processes of a run left.

    Only names that `replace_file` and `renewed` give to the files of a run: other files are left alone. A superseded
    process that is still running somewhere finds its file gone, and then checks whether it is superseded.
    """
    paths = RunPaths(folder)
    names = "|".join(re.escape(path.name) for path in (*paths.files, paths.report))
    pattern = re.compile(rf"\.(?:{names})\.([0-9]+)(?:-[0-9]+)?\.part")
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            found = pattern.fullmatch(path.name)
            if found is not None and path.is_file() and not _is_another(int(found[1])):
                path.unlink(missing_ok=True)


def _is_another(pid: int) -> bool:
    """True if another process with this id is running; in containers each start may have the same id."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True
