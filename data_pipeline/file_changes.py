"""Whether the bytes of shards are still those that were trained on, found out without reading terabytes.

The fingerprint of a shard of ours comes from PREFIX.json, not from the bytes. So a checkpoint also keeps size and time of
each file, and the time of an open file is asked for again before each save. Only where they differ are bytes read: blocks
spread evenly over all that differ, up to a gibibyte, against the checksums in PREFIX.json. A copied corpus has other
times and the same bytes, and passes. Only `verify` reads everything.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from configs.errors import DataChangedError
from data_pipeline.continuity import read_description
from data_pipeline.dataset import GLMDataset, shard_parts
from data_pipeline.storage.open_files import readable
from data_pipeline.storage.shard_part import ShardPart
from data_pipeline.storage.shards import checksum_at

# Read at most, of all files together: seconds on any storage that feeds a run.
_LOOKED_AT_BYTES = 2**30


@dataclass(frozen=True)
class Findings:
    """What was found about files that were written to."""

    damage: list[str] = field(default_factory=list[str])
    """Files whose bytes have changed, and where."""
    notes: list[str] = field(default_factory=list[str])
    """Notes on files that could be compared only in part."""


@dataclass(frozen=True)
class _Block:
    """A stretch of a file with its checksum."""

    path: str
    file: BinaryIO
    offset: int
    size: int
    crc32: int

    def is_whole(self) -> bool:
        with readable(self.path):
            return checksum_at(self.file, self.offset, self.size) == self.crc32


def changes_since(before: dict[str, Any], dataset: GLMDataset) -> Findings:
    """Compare the files of a data set with what a checkpoint keeps of them.

    Args:
        before: description (`GLMDataset.describe`) that the checkpoint keeps; an older one names no files, and nothing
            is found. Sources that have other fingerprints now are left out.
        dataset: the data set as it is now.

    Raises:
        RecordError: the description is damaged.
        DataError: a file cannot be read.
        StorageError: the file system failed.
    """
    known = {source.name: source for source in read_description(before).sources}
    changed: list[tuple[ShardPart, str]] = []
    for source in dataset.sources:
        old = known.get(source.name)
        if old is None or old.fingerprint != source.stream.fingerprint:
            continue
        for name, part in shard_parts(source.stream):
            for ending, stamp in part.stamps.items():
                stored = old.files.get(f"{name}.{ending}")
                if stored is not None and stored != (stamp.size, stamp.mtime_ns):
                    changed.append((part, ending))
    return _look_at(changed)


class FileWatch:
    """Notices that files of data sets are written to while a run reads them.

    Args:
        datasets: data sets whose files stay open.
    """

    def __init__(self, datasets: Iterable[GLMDataset]) -> None:
        sources = [source for dataset in datasets for source in dataset.sources]
        self._parts = [part for source in sources for _, part in shard_parts(source.stream)]
        self._known = [part.stamps for part in self._parts]

    def check(self) -> list[str]:
        """Ask for the times of all files, and compare bytes where they differ.

        Returns:
            What could be compared only in part.

        Raises:
            DataChangedError: bytes have changed.
            DataError: a file cannot be read.
            StorageError: the file system failed.
        """
        now = [part.current_stamps() for part in self._parts]
        changed = [
            (part, ending)
            for part, known, found in zip(self._parts, self._known, now, strict=True)
            for ending in known
            if found[ending] != known[ending]
        ]
        findings = _look_at(changed)
        if findings.damage:
            raise DataChangedError(
                f"Data were changed while they were read: {'; '.join(findings.damage)}. Samples since the last checkpoint "
                "may be wrong, and are not kept. Restore the files, then type the same command again: the run continues "
                "from its newest checkpoint."
            )
        self._known = now
        return findings.notes


def _look_at(changed: Sequence[tuple[ShardPart, str]]) -> Findings:
    """Compare files that were written to, as far as their checksums and the time allow."""
    findings = Findings()
    blocks: list[_Block] = []
    plain: dict[str, ShardPart] = {}
    for part, ending in changed:
        shard = part.shard
        if shard.info is None:
            plain.setdefault(shard.prefix, part)
        elif part.current_stamps()[ending].size != part.stamps[ending].size:
            findings.damage.append(
                f"{shard.prefix}.{ending} has another size than when it was opened"
            )
        else:
            blocks += _blocks(part, ending)
    chosen = list(_spread(blocks))
    for block in chosen:
        if not block.is_whole():
            stop = block.offset + block.size
            findings.damage.append(
                f"{block.path} no longer has the checksum of its bytes {block.offset:,} to {stop:,}"
            )
            return findings  # verify finds the others
    if len(chosen) < len(blocks):
        findings.notes.append(
            f"{blocks[0].path} or others beside it have been written to, or copied: {len(chosen):,} of {len(blocks):,} "
            "blocks, spread evenly, are whole. python -m data_pipeline verify PREFIX reads all."
        )
    for prefix, part in plain.items():
        if part.shard.sampled() != part.shard.fingerprint:
            findings.damage.append(f"{prefix}.bin or .idx has other bytes than before")
        else:
            findings.notes.append(
                f"{prefix} has been written to, or copied, and has no checksums: its ends and pages spread over it are "
                "unchanged; the rest was not compared."
            )
    return findings


def _blocks(part: ShardPart, ending: str) -> Iterator[_Block]:
    shard, info = part.shard, part.shard.info
    assert info is not None, "only ours have checksums"
    if ending == "idx":
        size = part.documents.stamp.size
        yield _Block(f"{shard.prefix}.idx", part.documents.file, 0, size, info.index_crc32)
        return
    for number, crc32 in enumerate(info.block_crc32):
        offset = number * info.block_bytes
        size = min(info.block_bytes, shard.stamp.size - offset)
        yield _Block(f"{shard.prefix}.bin", shard.file, offset, size, crc32)


def _spread(blocks: Sequence[_Block]) -> Iterator[_Block]:
    """Blocks at equal distances, together as many bytes as may be read."""
    total = sum(block.size for block in blocks)
    distance = max(total / _LOOKED_AT_BYTES, 1.0)
    passed, due = 0.0, 0.0
    for block in blocks:
        passed += block.size
        if passed > due and block.size <= _LOOKED_AT_BYTES:
            yield block
            due += block.size * distance
