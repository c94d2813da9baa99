"""Writing: each rank's boxes into one safetensors file, then the manifest that commits them.

Nothing is copied on the way: the bytes go from the tensors' memory to the file, and the checksums are taken from the
same memory. A file that has its final name is complete: files are written as `.part`, flushed to the disk, then
renamed.
"""

import contextlib
import json
import os
import struct
import uuid
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from glm.checkpoint.boxes import Box
from glm.checkpoint.disk import sync_to_disk
from glm.checkpoint.manifest import DTYPES, HIDDEN, MANIFEST, Fragment, Manifest, StoredFile

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Piece:
    """A box with its values, to be stored."""

    tensor: str
    kind: str
    box: Box
    values: Tensor
    """Values of the box: contiguous, on the CPU, as many elements as the box has."""


def write_rank_file(
    folder: Path, name: str, pieces: Sequence[Piece]
) -> tuple[StoredFile, list[Fragment]]:
    """Write the boxes that one rank owns into a safetensors file, durably.

    Args:
        folder: folder of the checkpoint; exists.
        name: name of the file; never used before.
        pieces: the pieces to store, each box once.

    Returns:
        The file's entry and the fragments' entries in the manifest.

    Raises:
        OSError: the disk is full or not writable; nothing is left behind.
    """
    # Wide number formats first: every box is then aligned, which readers that map the file rely on.
    ordered = sorted(pieces, key=lambda piece: -piece.values.element_size())
    blocks = [_bytes(piece.values) for piece in ordered]
    header = _header(ordered)
    fragments, begin = [], len(header)
    for piece, block in zip(ordered, blocks, strict=True):
        assert piece.values.numel() == piece.box.volume, (
            f"the values of {piece.tensor} fill their box"
        )
        dtype = _NAMES[piece.values.dtype]
        crc32 = zlib.crc32(block)
        fragments.append(Fragment(piece.tensor, piece.kind, dtype, piece.box, name, begin, crc32))
        begin += len(block)
    with _part(folder / name) as partial:
        _write(partial, [header, *blocks])
        os.replace(partial, folder / name)
    sync_to_disk(folder)
    return StoredFile(begin, len(header), zlib.crc32(header)), fragments


def commit(
    folder: Path,
    manifest: Manifest,
    superseded: Sequence[Path] = (),
    fence: Callable[[], None] | None = None,
) -> None:
    """Make a checkpoint visible: after this it is complete, before this it does not exist.

    A checkpoint of the same step that was committed before is replaced in the same instant.

    Args:
        folder: folder of the checkpoint; every rank's file is in it.
        manifest: its table of contents.
        superseded: committed checkpoints of a history that the run has left (it was set back to before them). They
            are made invisible first: whatever happens, the newest visible checkpoint belongs to this history.
        fence: called when nothing but the renames is left; raises if this process may not commit any more. What it
            raises is passed on, and nothing has been committed.

    Raises:
        DamagedCheckpointError: the manifest does not cover every tensor; nothing was committed.
        OSError: the disk refused; nothing was committed.
    """
    manifest.check(str(folder / MANIFEST))
    hidden: list[Path] = []
    # A unique name: an attempt that was cut off may come back and write at the same time, until the fence stops it.
    own = folder / f"{uuid.uuid4().hex[:8]}-{MANIFEST}"
    try:
        with _part(own) as partial:
            _write(partial, [manifest.to_json().encode()])
            sync_to_disk(folder)
            sync_to_disk(folder.parent)
            if fence is not None:
                fence()
            for path in superseded:
                os.replace(path / MANIFEST, path / HIDDEN)
                hidden.append(path)
            os.replace(partial, folder / MANIFEST)
    except OSError:
        for path in hidden:
            os.replace(path / HIDDEN, path / MANIFEST)
        raise
    # From here on the checkpoint is committed, and no error may say otherwise: the flush only protects it from a power
    # loss.
    with contextlib.suppress(OSError):
        sync_to_disk(folder)


@contextlib.contextmanager
def _part(path: Path) -> Iterator[Path]:
    """Name of the file to write before it is renamed to `path`; it is removed if the write fails."""
    partial = path.with_name(f"{path.name}.part")
    try:
        yield partial
    except Exception:
        partial.unlink(missing_ok=True)
        raise


def write_small_file(path: Path, text: str) -> None:
    """Write a text durably; a reader sees either all of it or nothing.

    Raises:
        OSError: the disk refused; nothing is left behind.
    """
    with _part(path) as partial:
        _write(partial, [text.encode()])
        os.replace(partial, path)


def _write(path: Path, blocks: Sequence[bytes | memoryview]) -> None:
    """Write blocks to the disk in a new file: an existing one may be a killed attempt's, or a link elsewhere."""
    path.unlink(missing_ok=True)
    with path.open("xb") as file:
        for block in blocks:
            file.write(block)
        file.flush()
        os.fsync(file.fileno())


def _header(pieces: Sequence[Piece]) -> bytes:
    """safetensors: 8 bytes of length, JSON, padded to 8 bytes; offsets count from its end.

    The safetensors library can only write whole files: it offers no header without the data, does not flush to the
    disk, and its errors carry no errno, which is needed to tell a full disk from a failure that may pass.
    """
    entries, begin = {}, 0
    for piece in pieces:
        end = begin + piece.values.nbytes
        place = ",".join(map(str, piece.box.offset))
        entries[f"{piece.kind}/{piece.tensor}@{place}"] = {
            "dtype": _NAMES[piece.values.dtype],
            "shape": piece.box.shape,
            "data_offsets": [begin, end],
        }
        begin = end
    assert len(entries) == len(pieces), "each box is stored once"
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _bytes(values: Tensor) -> memoryview:
    assert values.is_contiguous() and values.device.type == "cpu", "bytes are taken as they lie"
    return values.detach().reshape(-1).view(torch.uint8).numpy().data
