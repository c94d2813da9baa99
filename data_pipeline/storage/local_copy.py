"""Copies of shards on a disk of the node's own, for shared storage that is slow or far.

Each rank asks; the first of a node copies under a lock, the others wait, so every node reads the shared storage once. A
copy is kept in a folder named after the shard's fingerprint: another run finds it, and a shard that has changed is
copied anew. A copy is compared with the checksums of the shard before it is used; an incomplete copy is never used.

A start that is ended while it copies (other nodes do not wait forever) loses little: what is on the disk is noted, and
the next start copies only the rest.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import zlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import BinaryIO

from configs.errors import DataError, RecordError, StorageError
from configs.records import Count, read_record
from data_pipeline.cache import Report, make_once
from data_pipeline.corpus import Corpora, CorpusShard
from data_pipeline.storage.shards import (
    BLOCK_BYTES,
    ShardStream,
    block_checksums,
    checksum,
    open_stream,
    read_info,
    readable,
)

_ENDINGS = ("bin", "idx", "json")
# All files that an incomplete copy may hold; a folder with any other file is not cleaned.
_HALF = {
    f"tokens.{ending}{more}" for ending in _ENDINGS for more in ("", ".note", ".note.new", ".new")
}
# The fingerprint tells copies apart; the name is for people.
_LONGEST_NAME = 100
# How much of a copy is written between two notes of it; a multiple of what is read at once.
_NOTED_BYTES = 64 * BLOCK_BYTES


def copied(corpora: Corpora, folder: str, report: Report) -> Corpora:
    """Return the same corpora, read from copies in `folder`.

    Args:
        corpora: where the shards lie.
        folder: folder on a disk of this node; made if it does not exist.
        report: called with a line that says what is being copied, and where to.

    Raises:
        DataError: there is no room, the folder cannot be written, or a copy is not what the shard's checksums say.
    """

    def copy_all(shards: list[CorpusShard]) -> list[CorpusShard]:
        return [
            replace(shard, prefix=_copy(shard.prefix, Path(folder), report)) for shard in shards
        ]

    return replace(
        corpora,
        train=copy_all(corpora.train),
        valid=copy_all(corpora.valid),
        instructions=copy_all(corpora.instructions),
        valid_instructions=copy_all(corpora.valid_instructions),
    )


def _copy(prefix: str, folder: Path, report: Report) -> str:
    """Prefix of the copy of a shard, which is made if there is none."""
    stream = open_stream(prefix)
    # What follows a dot is not in a lock's name, and brackets mean something to a search for left-overs.
    name = re.sub(r"[^\w-]", "-", Path(prefix).name)[:_LONGEST_NAME]
    place = folder / f"{name}-{_identity(stream)}"
    half = folder / f"{place.name}.half"
    files = [Path(f"{prefix}.{ending}") for ending in _ENDINGS]
    files = [file for file in files if file.is_file()]

    def make(making: Path) -> None:
        _clear(half)
        needed = sum(file.stat().st_size for file in files)
        there = sum(file.stat().st_size for file in half.iterdir())
        free = shutil.disk_usage(making).free
        if needed > free + there:
            raise DataError(
                f"data.local_copy ({folder}) has {free / 2**30:,.1f} GiB free, and the shard {prefix} takes "
                f"{needed / 2**30:,.1f} GiB. Make room, choose another folder with data.local_copy=PATH, or read the "
                "shards where they are: data.local_copy=null."
            )
        told = f"Copying {prefix} ({needed / 2**30:,.1f} GiB) to {place}"
        report(f"{told}, of which {there / 2**30:,.1f} GiB are there" if there else told)
        _fill(half, files, prefix)
        half.rename(making)  # an empty folder, which a rename replaces

    copy = make_once(place, make, report, setting="data.local_copy") / "tokens"
    for file in files:
        made = Path(f"{copy}{file.suffix}")
        if not made.is_file() or made.stat().st_size != file.stat().st_size:
            raise DataError(
                f"{place} is not the copy of {prefix} that its name says: {made.name} is missing or of another size. Move "
                "the folder away, and the shard is copied anew."
            )
    return str(copy)


def _identity(stream: ShardStream) -> str:
    """What names a copy: all that is known of a shard's bytes.

    The fingerprint of a plain Megatron corpus comes from samples, so that its sizes and times count too: one that was
    changed between them must not be read as the copy that was made before.
    """
    if stream.info is not None:
        return stream.fingerprint
    stamps = [os.stat(f"{stream.prefix}.{ending}") for ending in ("bin", "idx")]
    known = [stream.fingerprint, *((each.st_size, each.st_mtime_ns) for each in stamps)]
    return hashlib.blake2b(json.dumps(known).encode(), digest_size=16).hexdigest()


def _clear(half: Path) -> None:
    """Keep a half copy that can be gone on with, or make an empty folder; what is not ours is left alone.

    Raises:
        DataError: something else is in the way.
    """
    if not os.path.lexists(half):
        half.mkdir()
        return
    if half.is_symlink() or not half.is_dir() or {entry.name for entry in half.iterdir()} - _HALF:
        raise DataError(
            f"{half} is in the way of data.local_copy, and is not only what a copy leaves. Move it away, or choose another "
            "folder with data.local_copy=PATH."
        )
    if not all(stat.S_ISREG(entry.lstat().st_mode) for entry in half.iterdir()):
        shutil.rmtree(half)
        half.mkdir()


def _fill(half: Path, files: list[Path], prefix: str) -> None:
    """Copy what is missing, and check all of it; what is wrong, or fills the disk, is not kept for the next start."""
    try:
        for file in files:
            _copy_file(file, half / f"tokens{file.suffix}")
        _check(prefix, half)
    except StorageError:
        raise  # a source that can no longer be read does not make the copied bytes wrong: they are kept
    except DataError:
        shutil.rmtree(half)
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            shutil.rmtree(half)
        raise
    kept = {f"tokens{file.suffix}" for file in files}
    for entry in half.iterdir():
        if entry.name not in kept:
            entry.unlink()


def _copy_file(source: Path, target: Path) -> None:
    """Copy from where a killed start noted that it was, and compare what is there afterwards with what was read.

    The copy gets the time of its source: so a checkpoint that was trained on the one is known to fit the other.
    """
    note = Path(f"{target}.note")
    done, crc = known = _noted(note, target)
    with readable(source):
        reading = source.open("rb")
        times = os.fstat(reading.fileno())
    with reading, target.open("ab") as writing:
        writing.truncate(done)
        while block := _block(reading, done, source):
            crc = zlib.crc32(block, crc)
            writing.write(block)
            done += len(block)
            if done % _NOTED_BYTES == 0:
                _note(note, writing, done, crc)
        if (done, crc) != known:
            _note(note, writing, done, crc)
    if checksum(target) != crc:
        raise DataError(
            f"The copy of {source} at {target} is not what was read: the disk of data.local_copy fails. Choose another "
            "folder with data.local_copy=PATH."
        )
    os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))


def _block(file: BinaryIO, offset: int, path: Path) -> bytes:
    with readable(path):
        return os.pread(file.fileno(), BLOCK_BYTES, offset)


@dataclass(frozen=True)
class _Note:
    """How far a file is copied, beside it while it is."""

    done: Count
    """Bytes of the file that are on the disk."""
    crc32: Count
    """CRC-32 of these bytes when they were read."""


def _noted(note: Path, target: Path) -> tuple[int, int]:
    """How many bytes of a file are on the disk, and the CRC-32 that they had when they were read."""
    try:
        found = read_record(note, _Note)
        if found.done <= target.stat().st_size and found.crc32 < 2**32:
            return found.done, found.crc32
    except (FileNotFoundError, RecordError):
        pass  # nothing was noted, or the machine lost its power while it was: copied anew
    return 0, 0


def _note(note: Path, file: BinaryIO, done: int, crc: int) -> None:
    file.flush()
    os.fsync(file.fileno())
    new = Path(f"{note}.new")
    new.write_text(json.dumps(asdict(_Note(done, crc))))
    new.replace(note)


def _check(prefix: str, making: Path) -> None:
    """Compare a copy with the checksums that were taken when the shard was prepared; a Megatron corpus has none."""
    info = read_info(str(making / "tokens"))
    if info is None:
        return
    blocks = block_checksums(making / "tokens.bin", info.block_bytes)
    is_whole = [crc for _, crc in blocks] == info.block_crc32
    if not is_whole or checksum(making / "tokens.idx") != info.index_crc32:
        raise DataError(
            f"{prefix} is damaged: its copy does not have the checksums of {prefix}.json. Find out where with "
            f"python -m data_pipeline verify {prefix}, and restore it."
        )
