"""PREFIX.json: what the .bin and the .idx of a shard do not contain. All code reads it through this module."""

import os
from dataclasses import dataclass, field, fields
from pathlib import Path

from configs.errors import DataError, RecordError
from configs.files import read_file
from configs.records import Count, ShortText, decode
from data_pipeline.special_tokens import SpecialTokens
from data_pipeline.storage.open_files import readable

FORMAT_VERSION = 1
BLOCK_BYTES = 16 * 2**20

# The checksums of a .bin of a hundred terabytes.
_LARGEST_BYTES = 2**28
_CHECKSUMS = 2**32
_ADVICE = (
    "Prepare the corpus again, or, if the file does not belong to this program, move it away: without it the tokens are "
    "read as a plain Megatron corpus."
)


@dataclass(frozen=True)
class ShardInfo:
    """The content of PREFIX.json."""

    format_version: Count
    sources: list[ShortText]
    """What the text was read from."""
    tokenizer: ShortText
    """Its spec; a file name is relative to the shard's folder."""
    tokenizer_fingerprint: ShortText
    vocab_size: Count
    special_tokens: dict[ShortText, Count]
    num_documents: Count
    num_tokens: Count
    block_bytes: Count
    block_crc32: list[Count]
    """CRC-32 of each block of the .bin, the last one shorter."""
    index_crc32: Count
    """CRC-32 of the .idx."""
    left_out: dict[ShortText, Count] = field(default_factory=dict[str, int])
    """Documents of the sources that are in neither shard, by reason."""
    held_out_below: float | None = None
    """Documents whose place, a hash of the text in [0, 1), is below were held out; None: not recorded."""
    made_from: ShortText | None = None
    """Hash of the text, tokenizer and settings of its preparation; None: not recorded."""


@dataclass(frozen=True)
class _Version:
    format_version: Count


def read_info(prefix: str) -> ShardInfo | None:
    """Read PREFIX.json; None for a plain Megatron corpus.

    Raises:
        DataError: it is damaged, no file, or of a newer version.
        StorageError: the file system failed.
    """
    path = Path(f"{prefix}.json")
    # A dangling link is not the same as no file: the shard should have checksums.
    if not os.path.lexists(path):
        return None
    try:
        with readable(path):
            text = read_file(path, _LARGEST_BYTES)
        version = decode(text, _Version, str(path)).format_version
        if version > FORMAT_VERSION:
            raise DataError(
                f"{path} has format version {version}; this program reads up to {FORMAT_VERSION}. Update it."
            )
        info = decode(text, ShardInfo, str(path))
    except RecordError as error:
        raise DataError(f"{error} {_ADVICE}") from error
    problem = _problem(info)
    if problem:
        raise DataError(f"{path} is damaged: {problem}. {_ADVICE}")
    return info


def _problem(info: ShardInfo) -> str:
    """What is wrong with the values, whose types have been checked; empty if nothing is."""
    names = {each.name for each in fields(SpecialTokens)}
    if info.special_tokens.keys() != names:
        return f"its special_tokens must be {', '.join(sorted(names))}"
    if info.block_bytes < 1:
        return "its block_bytes must be at least 1"
    if max([info.index_crc32, *info.block_crc32]) >= _CHECKSUMS:
        return f"a checksum must be below {_CHECKSUMS:,}"
    if info.held_out_below is not None and not 0 <= info.held_out_below <= 1:
        return "its held_out_below must lie between 0 and 1"
    return ""
