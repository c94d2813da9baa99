"""What must be on the disk before something else is said to be."""

import os
from pathlib import Path


def sync_to_disk(path: Path) -> None:
    """Bring a file, or the table of names of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
