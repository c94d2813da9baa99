"""Find damage in token shards: `python -m data_pipeline verify PREFIX`.

Every byte is read. Ours have a checksum per block; of a plain Megatron corpus only sizes, pointers and the range of
the token ids can be checked.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from configs.errors import DataError
from data_pipeline.storage.open_files import readable
from data_pipeline.storage.shard_index import HEADER_BYTES
from data_pipeline.storage.shard_part import describe_unknown_id, unknown_id
from data_pipeline.storage.shards import ShardStream, block_checksums, checksum

_STEP_TOKENS = 2**22
_ANY_ID = 2**63


def problems(prefix: str, vocab_size: int | None = None) -> list[str]:
    """List what is wrong with a shard, naming file and offset; empty if it is whole.

    Args:
        prefix: path without ending.
        vocab_size: the ids must lie below it; default: what PREFIX.json says; without one only negative ids are wrong.
    """
    try:
        stream = ShardStream(prefix)
    except DataError as error:
        return [str(error)]
    if vocab_size is None and stream.info is not None:
        vocab_size = stream.info.vocab_size
    found: list[str] = []
    try:
        with readable(f"{prefix}.bin or .idx"):
            found += _damaged_blocks(stream)
            found += _misplaced_sequences(stream)
            found += _unknown_ids(stream, vocab_size)
    except DataError as error:
        found.append(str(error))
    return found


def _damaged_blocks(stream: ShardStream) -> Iterator[str]:
    info, prefix = stream.info, stream.prefix
    if info is None:
        return
    blocks = list(block_checksums(Path(f"{prefix}.bin"), info.block_bytes))
    if checksum(Path(f"{prefix}.idx")) != info.index_crc32:
        yield f"{prefix}.idx is damaged. Prepare it again, or copy it anew."
    size = Path(f"{prefix}.bin").stat().st_size
    for (offset, crc), expected in zip(blocks, info.block_crc32, strict=False):
        if crc != expected:
            stop = min(offset + info.block_bytes, size)
            yield f"{prefix}.bin is damaged in bytes {offset:,} to {stop:,}. Prepare it again, or copy it anew."


def _misplaced_sequences(stream: ShardStream) -> Iterator[str]:
    """Check that the sequences lie one after the other, as reading the tokens in a row assumes."""
    index, path = stream.index, f"{stream.prefix}.idx"
    count = index.num_sequences
    if not count:
        return
    start = 0
    for first in range(0, count, _STEP_TOKENS):
        step = min(_STEP_TOKENS, count - first)
        lengths = _numbers(path, "<i4", HEADER_BYTES + 4 * first, step)
        pointers = _numbers(path, "<i8", HEADER_BYTES + 4 * count + 8 * first, step)
        sizes = lengths.astype(np.int64) * index.dtype.itemsize
        ends = start + np.cumsum(sizes)
        wrong = np.flatnonzero((pointers != ends - sizes) | (sizes < 0))
        if len(wrong):
            yield f"{path} is damaged: sequence {first + int(wrong[0]):,} does not begin where the one before it ends."
            return
        start = int(ends[-1])
    if not _is_covered(path, HEADER_BYTES + 12 * count, index.num_documents, count):
        yield f"{path} is damaged: its document borders do not cover its {count:,} sequences in order."


def _is_covered(path: str, offset: int, num_documents: int, num_sequences: int) -> bool:
    """True if the documents' borders at `offset` rise from 0 to the number of sequences."""
    before = 0
    for first in range(0, num_documents + 1, _STEP_TOKENS):
        step = min(_STEP_TOKENS, num_documents + 1 - first)
        borders = _numbers(path, "<i8", offset + 8 * first, step)
        if (not first and borders[0] != 0) or borders[0] < before or (np.diff(borders) < 0).any():
            return False
        before = int(borders[-1])
    return before == num_sequences


def _numbers(path: str, form: str, offset: int, count: int) -> np.ndarray:
    """(count,) numbers of a file: read, not mapped, for a file that is cut meanwhile must not end the process."""
    found = np.fromfile(path, form, count, offset=offset)
    if len(found) != count:
        raise DataError(f"{path} became shorter while it was read. Prepare the corpus again.")
    return found


def _unknown_ids(stream: ShardStream, vocab_size: int | None) -> Iterator[str]:
    limit = _ANY_ID if vocab_size is None else vocab_size
    for start in range(0, len(stream), _STEP_TOKENS):
        tokens = stream.read(start, min(start + _STEP_TOKENS, len(stream)))
        place = unknown_id(tokens, limit)
        if place is not None:
            found = describe_unknown_id(stream, start + place, int(tokens[place]))
            known = "ids begin at 0" if vocab_size is None else f"the vocabulary has {vocab_size:,}"
            yield f"{found}; {known}."
            return
