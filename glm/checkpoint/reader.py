"""Reading: verify the files of a checkpoint, and assemble any box of any tensor from the boxes that it stores.

The bytes are read with numpy, torch and json only; nothing in a checkpoint can be executed.
"""

import stat
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from configs.run_paths import MANIFEST, STEP_FOLDER
from glm.checkpoint.boxes import Box
from glm.checkpoint.manifest import (
    DTYPES,
    MASTER,
    PARAMETER,
    DamagedCheckpointError,
    Fragment,
    Manifest,
    StoredFile,
)

_LARGEST_MANIFEST = 2**28
_BLOCK = 16 * 2**20


def read_manifest(folder: Path, name: str = MANIFEST) -> Manifest:
    """Read a checkpoint's table of contents.

    Args:
        folder: of the checkpoint.
        name: name of the manifest in that folder.

    Raises:
        DamagedCheckpointError: there is none, or it is damaged.
        CheckpointError: it is of a newer version.
    """
    path = folder / name
    try:
        size = _regular_size(path)
        if size is None:
            raise DamagedCheckpointError(
                f"{folder} is not a complete checkpoint: {MANIFEST} is missing, or is not a regular file."
            )
        if size > _LARGEST_MANIFEST:
            raise DamagedCheckpointError(f"{path} is absurdly large: {size:,} bytes.")
        with path.open("rb") as file:
            text = file.read(size).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise DamagedCheckpointError(
            f"{folder} is not a complete checkpoint: {MANIFEST} cannot be read ({error})."
        ) from error
    manifest = Manifest.from_json(text, str(path))
    named = STEP_FOLDER.fullmatch(folder.name)
    if named is not None and int(named[1]) != manifest.step:
        raise DamagedCheckpointError(f"{path} is damaged: it is that of step {manifest.step:,}.")
    return manifest


def verify(folder: Path) -> Manifest:
    """Check every byte of a checkpoint against its checksums.

    Raises:
        DamagedCheckpointError: naming the damaged file and tensor.
        CheckpointError: it is of a newer version.
    """
    manifest = read_manifest(folder)
    verify_files(folder, manifest, manifest.files)
    return manifest


def verify_files(folder: Path, manifest: Manifest, names: Iterable[str]) -> None:
    """Check some of a checkpoint's files: ranks share the work.

    Raises:
        DamagedCheckpointError: naming the damaged file and tensor.
    """
    fragments: dict[str, list[Fragment]] = {}
    for part in sorted(manifest.fragments, key=lambda part: part.begin):
        fragments.setdefault(part.file, []).append(part)
    for name in names:
        path, stored = folder / name, manifest.files[name]
        _check_size(path, stored)
        try:
            with path.open("rb") as file:
                header = file.read(stored.header_bytes)
                # Other readers of safetensors rely on the length at the start of the file.
                if (
                    zlib.crc32(header) != stored.header_crc32
                    or int.from_bytes(header[:8], "little") != stored.header_bytes - 8
                ):
                    raise DamagedCheckpointError(f"{path} is damaged: its header has changed.")
                for part in fragments.get(name, []):
                    if _checksum(file, part.num_bytes) != part.crc32:
                        raise _damaged(path, part)
        except OSError as error:
            raise _unreadable(path, error) from error


def load_full_tensors(folder: Path, kind: str = PARAMETER) -> dict[str, Tensor]:
    """Assemble every parameter, without a process group.

    Reads and verifies only what it needs: for generation a sixth of a bf16 checkpoint.

    Args:
        folder: of the checkpoint.
        kind: "parameter" (training precision) or "master" (fp32); where one is not stored the other is read.

    Returns:
        Whole CPU tensors by name.

    Raises:
        CheckpointError: the checkpoint is damaged or of a newer version.
    """
    manifest = read_manifest(folder)
    for name, stored in manifest.files.items():
        _check_size(folder / name, stored)
    reader = Reader(folder, manifest, verifies=True)
    return {
        name: reader.read(name, kind, Box.whole(shape)) for name, shape in manifest.tensors.items()
    }


class Reader:
    """Reads any box of any tensor from the boxes that a checkpoint stores.

    Args:
        folder: folder of the checkpoint; the sizes of its files have been checked.
        manifest: its table of contents.
        verifies: check the checksum of every fragment that is read; for a checkpoint that was not verified before.
    """

    def __init__(self, folder: Path, manifest: Manifest, verifies: bool = False) -> None:
        self.manifest = manifest
        self._folder = folder
        self._verifies = verifies
        self._index: dict[tuple[str, str], list[Fragment]] = {}
        for part in manifest.fragments:
            self._index.setdefault((part.tensor, part.kind), []).append(part)

    def read(self, tensor: str, kind: str, wanted: Box) -> Tensor:
        """Assemble one box.

        Args:
            tensor: name.
            kind: slot to read; where only one of parameter and master is stored, it is read for both.
            wanted: box of the whole tensor.

        Returns:
            CPU tensor of the box's shape, in the stored number format.

        Raises:
            DamagedCheckpointError: the checkpoint does not hold all of it, or it is larger than any memory here.
        """
        parts = self._index.get((tensor, kind)) or self._index.get((tensor, _stand_in(kind)), [])
        shape = self.manifest.tensors.get(tensor)
        if not parts or shape is None or len(shape) != len(wanted.shape):
            raise DamagedCheckpointError(f"{self._folder} does not hold {tensor} ({kind}).")
        try:
            result = torch.empty(wanted.shape, dtype=DTYPES[parts[0].dtype])
        except RuntimeError as error:  # torch has no error type of its own for this
            raise DamagedCheckpointError(
                f"{self._folder}: there is no memory for {tensor} ({kind}), which has {wanted.volume:,} elements."
            ) from error
        filled = 0
        for part in parts:
            common = wanted.intersection(part.box)
            if common is not None:
                result[common.within(wanted)] = self._load(part)[common.within(part.box)]
                filled += common.volume
        if filled != wanted.volume:
            raise DamagedCheckpointError(f"{self._folder} does not hold all of {tensor} ({kind}).")
        return result

    def _load(self, part: Fragment) -> Tensor:
        """Map a stored box into memory: only the pages that are used are read."""
        path = self._folder / part.file
        try:
            # Copy on write: the file cannot be changed through the map, and torch asks for writable memory.
            stored = np.memmap(path, np.uint8, "c", part.begin, (part.num_bytes,))
        except (OSError, ValueError) as error:
            raise DamagedCheckpointError(f"{path} cannot be read: {error}.") from error
        if self._verifies and zlib.crc32(stored.data) != part.crc32:
            raise _damaged(path, part)
        return torch.from_numpy(stored).view(DTYPES[part.dtype]).reshape(part.box.shape)


def _regular_size(path: Path) -> int | None:
    """Size of a regular file; None for anything else: a link could lead anywhere, and a pipe never ends."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _stand_in(kind: str) -> str:
    return {PARAMETER: MASTER, MASTER: PARAMETER}.get(kind, kind)


def _check_size(path: Path, stored: StoredFile) -> None:
    try:
        size = _regular_size(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    if size != stored.num_bytes:
        found = "missing, or not a regular file," if size is None else f"{size:,} bytes"
        raise DamagedCheckpointError(
            f"{path} is damaged: {found} instead of {stored.num_bytes:,} bytes."
        )


def _checksum(file: BinaryIO, num_bytes: int) -> int:
    """CRC-32 of the next bytes of a file."""
    crc32 = 0
    while num_bytes > 0:
        block = file.read(min(num_bytes, _BLOCK))
        if not block:
            return -1  # the file shrank while it was read
        crc32, num_bytes = zlib.crc32(block, crc32), num_bytes - len(block)
    return crc32


def _unreadable(path: Path, error: OSError) -> DamagedCheckpointError:
    return DamagedCheckpointError(f"{path} cannot be read: {error.strerror}.")


def _damaged(path: Path, part: Fragment) -> DamagedCheckpointError:
    return DamagedCheckpointError(
        f"{path} is damaged: {part.tensor} ({part.kind}) at byte {part.begin:,} has another checksum."
    )
