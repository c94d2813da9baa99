"""Find damage in token shards: `python -m data_pipeline verify PREFIX`.

Every byte is read. Ours have a checksum per block; of a plain Megatron corpus only sizes, pointers and the range of
the token ids can be checked.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from configs.errors import DataError
from data_pipeline.storage.shard_part import describe_unknown_id, unknown_id
from data_pipeline.storage.shards import (
    HEADER_BYTES,
    ShardStream,
    block_checksums,
    checksum,
    readable,
)

_STEP_TOKENS = 2**22


def problems(prefix: str, vocab_size: int | None = None) -> list[str]:
    """List what is wrong with a shard, naming file and offset; empty if it is whole.

    Args:
        prefix: path without ending.
        vocab_size: the ids must lie below it; default: what PREFIX.json says.
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
            if vocab_size is not None:
                found += _unknown_ids(stream, vocab_size)
    except DataError as error:
        found.append(str(error))
    return found


def _damaged_blocks(stream: ShardStream) -> Iterator[str]:
    info, prefix = stream.info, stream.prefix
    if info is None:
        return
    blocks = list(block_checksums(Path(f"{prefix}.bin"), info.block_bytes))
    if len(blocks) != len(info.block_crc32):
        yield f"{prefix}.json speaks of {len(info.block_crc32):,} blocks; {prefix}.bin has {len(blocks):,}."
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
    lengths = np.memmap(path, dtype="<i4", mode="r", offset=HEADER_BYTES, shape=(count,))
    pointers = np.memmap(
        path, dtype="<i8", mode="r", offset=HEADER_BYTES + 4 * count, shape=(count,)
    )
    start = 0
    for first in range(0, count, _STEP_TOKENS):
        sizes = lengths[first : first + _STEP_TOKENS].astype(np.int64) * index.dtype.itemsize
        ends = start + np.cumsum(sizes)
        wrong = np.flatnonzero(
            (pointers[first : first + _STEP_TOKENS] != ends - sizes) | (sizes < 0)
        )
        if len(wrong):
            yield f"{path} is damaged: sequence {first + int(wrong[0]):,} does not begin where the one before it ends."
            return
        start = int(ends[-1])
    borders = np.memmap(
        path,
        dtype="<i8",
        mode="r",
        offset=HEADER_BYTES + 12 * count,
        shape=(index.num_documents + 1,),
    )
    is_ordered = all(  # neighbours of two steps share a border
        (np.diff(borders[first : first + _STEP_TOKENS + 1]) >= 0).all()
        for first in range(0, index.num_documents, _STEP_TOKENS)
    )
    if borders[0] != 0 or borders[-1] != count or not is_ordered:
        yield f"{path} is damaged: its document borders do not cover its {count:,} sequences in order."


def _unknown_ids(stream: ShardStream, vocab_size: int) -> Iterator[str]:
    for start in range(0, len(stream), _STEP_TOKENS):
        tokens = stream.read(start, min(start + _STEP_TOKENS, len(stream)))
        place = unknown_id(tokens, vocab_size)
        if place is not None:
            found = describe_unknown_id(stream, start + place, int(tokens[place]))
            yield f"{found}; the vocabulary has {vocab_size:,}."
            return
