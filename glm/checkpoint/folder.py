"""Checkpoints on disk: writing, committing, finding the newest good one, reading boxes.

    checkpoints/step_00000200/manifest.json             the commit: written last, renamed into place
    checkpoints/step_00000200/rank00003-9f3c21aa.safetensors
    checkpoints/latest                                  a hint for people

Each attempt to save has its own suffix, so files of an attempt that was killed are never taken for those of the next
one; the manifest names the files that belong. A folder without a manifest is invisible.
"""

import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from configs.errors import CheckpointError
from glm.checkpoint.boxes import Box
from glm.checkpoint.manifest import MANIFEST, Fragment, Manifest, StoredFile

_PREFIX = "step_"
_BLOCK = 16 * 2**20


def step_folder(checkpoints: Path, step: int) -> Path:
    """Folder of one checkpoint."""
    return checkpoints / f"{_PREFIX}{step:08d}"


def write_rank_file(
    folder: Path, name: str, pieces: Sequence[tuple[str, str, Box, Tensor]]
) -> tuple[StoredFile, list[Fragment]]:
    """Write the boxes that one rank owns into a safetensors file, durably.

    The bytes are written straight from the tensors' memory.

    Args:
        folder: of the checkpoint.
        name: of the file.
        pieces: (tensor name, kind, box, contiguous fp32 CPU tensor of the box's volume).

    Returns:
        The file's entry and the fragments' entries in the manifest.

    Raises:
        OSError: the disk is full or not writable; nothing is left behind.
    """
    header: dict[str, object] = {}
    fragments, offset = [], 0
    for number, (tensor, kind, box, values) in enumerate(pieces):
        assert values.dtype == torch.float32 and values.numel() == box.volume, "a box of fp32"
        end = offset + values.numel() * 4
        header[str(number)] = {"dtype": "F32", "shape": box.shape, "data_offsets": [offset, end]}
        fragments.append(Fragment(tensor, kind, box, name, str(number)))
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    partial = folder / f"{name}.part"
    crc = num_bytes = 0
    try:
        with partial.open("wb") as file:
            head = struct.pack("<Q", len(text)) + text
            for block in (head, *(_bytes(values) for *_, values in pieces)):
                file.write(block)
                crc, num_bytes = zlib.crc32(block, crc), num_bytes + len(block)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, folder / name)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    return StoredFile(num_bytes, crc), fragments


def commit(folder: Path, manifest: Manifest) -> None:
    """Make a checkpoint visible: after this it is complete, before this it does not exist."""
    manifest.check(str(folder / MANIFEST))
    partial = folder / f".{MANIFEST}.part"
    with partial.open("w") as file:
        file.write(manifest.to_json())
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(folder)
    os.replace(partial, folder / MANIFEST)
    _sync_folder(folder)
    hint = folder.parent / ".latest.part"
    hint.write_text(folder.name + "\n")
    os.replace(hint, folder.parent / "latest")


def read_manifest(folder: Path) -> Manifest:
    """Read a checkpoint's manifest.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    path = folder / MANIFEST
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{folder} is no complete checkpoint ({error}).") from error
    return Manifest.from_json(text, str(path))


def verify(folder: Path) -> Manifest:
    """Check every file of a checkpoint by size and checksum.

    Raises:
        CheckpointError: naming the damaged file.
    """
    manifest = read_manifest(folder)
    for name, stored in manifest.files.items():
        path = folder / name
        try:
            crc, size = _checksum(path)
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error
        if size != stored.num_bytes:
            raise CheckpointError(f"{path} has {size:,} bytes instead of {stored.num_bytes:,}.")
        if crc != stored.crc32:
            raise CheckpointError(f"{path} is damaged: its checksum differs from the manifest's.")
    return manifest


def committed(checkpoints: Path) -> list[Path]:
    """Folders that have a manifest, newest first."""
    if not checkpoints.is_dir():
        return []
    found = [
        path
        for path in checkpoints.iterdir()
        if path.name.startswith(_PREFIX) and (path / MANIFEST).is_file()
    ]
    return sorted(found, key=lambda path: path.name, reverse=True)


def newest_good(checkpoints: Path, report: Callable[[str], None]) -> Path | None:
    """The newest checkpoint that is whole; damaged ones are reported by name and passed over.

    Raises:
        CheckpointError: there are checkpoints, but none of them is whole.
    """
    damage = []
    for folder in committed(checkpoints):
        try:
            verify(folder)
        except CheckpointError as error:
            damage.append(str(error))
            report(f"{error} Going back to the checkpoint before it.")
        else:
            return folder
    if damage:
        raise CheckpointError(
            f"No checkpoint in {checkpoints} is whole: {' '.join(damage)} Restore one from a copy, or start another "
            "run with run.name=NAME."
        )
    return None


def clean(checkpoints: Path, keep: set[Path]) -> None:
    """Delete checkpoints that are not to be kept, leftovers of killed attempts included."""
    for path in checkpoints.glob(f"{_PREFIX}*"):
        if path not in keep:
            # Without its manifest first, so that a half-deleted checkpoint is not taken for a whole one.
            (path / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(path, ignore_errors=True)
    for path in keep:
        named = set(read_manifest(path).files) | {MANIFEST}
        for file in path.iterdir():
            if file.name not in named:
                file.unlink(missing_ok=True)


class Reader:
    """Reads any box of any tensor from the boxes that a checkpoint stores.

    Args:
        folder: a verified checkpoint.
        manifest: its table of contents.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.manifest = manifest
        self._folder = folder
        self._files: dict[str, safe_open] = {}
        self._index: dict[tuple[str, str], list[Fragment]] = {}
        for part in manifest.fragments:
            self._index.setdefault((part.tensor, part.kind), []).append(part)

    def read(self, tensor: str, kind: str, wanted: Box) -> Tensor:
        """Assemble one box.

        Returns:
            fp32 CPU tensor of the box's shape.

        Raises:
            CheckpointError: the checkpoint does not hold all of it.
        """
        result = torch.empty(wanted.shape, dtype=torch.float32)
        filled = 0
        for part in self._index.get((tensor, kind), []):
            common = wanted.intersection(part.box)
            if common is not None:
                result[common.within(wanted)] = self._slice(part, common)
                filled += common.volume
        if filled != wanted.volume:
            raise CheckpointError(f"{self._folder} does not hold all of {tensor} ({kind}).")
        return result

    def _slice(self, part: Fragment, common: Box) -> Tensor:
        try:
            if part.file not in self._files:
                self._files[part.file] = safe_open(self._folder / part.file, framework="pt")
            return self._files[part.file].get_slice(part.key)[common.within(part.box)]
        except (SafetensorError, OSError, IndexError) as error:
            raise CheckpointError(f"{self._folder / part.file} cannot be read: {error}.") from error


def read_full(folder: Path, kind: str = "master") -> dict[str, Tensor]:
    """All tensors of one kind, whole, by name; needs no process group.

    Raises:
        CheckpointError: the checkpoint is damaged.
    """
    manifest = verify(folder)
    reader = Reader(folder, manifest)
    return {
        name: reader.read(name, kind, Box((0,) * len(shape), tuple(shape)))
        for name, shape in manifest.tensors.items()
    }


def _bytes(values: Tensor) -> memoryview:
    return memoryview(np.ascontiguousarray(values.detach().numpy()).reshape(-1)).cast("B")


def _checksum(path: Path) -> tuple[int, int]:
    crc = size = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            crc, size = zlib.crc32(block, crc), size + len(block)
    return crc, size


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
