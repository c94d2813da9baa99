"""Token shards on disk: Megatron's .bin/.idx, with a PREFIX.json of our own beside them.

The .bin is all documents' tokens in a row, each ending with eos; the .idx says where documents begin. Corpora made by
Megatron are used as they are, and ours by Megatron. PREFIX.json adds what neither file knows: the tokenizer, the
special tokens, and a checksum per block, so that damage is named by file and offset.

They are written by data_pipeline/storage/shard_writer.py; the two small files have files of their own, shard_info.py and
shard_index.py, whose names can be had here too. A reader needs only the first 34 bytes and the last pointer of the .idx,
so that a corpus of a billion documents opens at once, and reads of the .bin what a row asks for.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np

from configs.errors import DataError
from data_pipeline.storage.open_files import FileStamp, open_to_keep, require_file
from data_pipeline.storage.open_files import readable as readable
from data_pipeline.storage.shard_index import HEADER_BYTES as HEADER_BYTES
from data_pipeline.storage.shard_index import Index as Index
from data_pipeline.storage.shard_index import index_header as index_header
from data_pipeline.storage.shard_index import read_index as read_index
from data_pipeline.storage.shard_index import token_type as token_type
from data_pipeline.storage.shard_info import BLOCK_BYTES as BLOCK_BYTES
from data_pipeline.storage.shard_info import FORMAT_VERSION as FORMAT_VERSION
from data_pipeline.storage.shard_info import ShardInfo as ShardInfo
from data_pipeline.storage.shard_info import read_info as read_info

# What of a plain Megatron corpus goes into its fingerprint, of each file: its ends, and pages spread evenly over it.
_FINGERPRINTED_BYTES = 2**20
_FINGERPRINTED_PAGES, _PAGE_BYTES = 256, 4096
# Bytes to read at once for a checksum.
_PIECE_BYTES = 2**20


class ShardStream:
    """The tokens of one shard in a row (a data_pipeline.dataset.TokenStream).

    Args:
        prefix: path without ending.

    Raises:
        DataError: a file is missing, damaged, or does not belong to the others.
    """

    def __init__(self, prefix: str | os.PathLike[str]) -> None:
        self.prefix = prefix = os.fspath(prefix)
        for ending in ("bin", "idx"):
            require_file(
                f"{prefix}.{ending}",
                "Check data.paths, or make it: python -m data_pipeline prepare "
                f"INPUT --output {prefix} --tokenizer SPEC",
            )
        self.info = read_info(prefix)
        self.index = read_index(prefix)
        self.num_documents = self.index.num_documents
        self.file = open_to_keep(f"{prefix}.bin")
        """Descriptor of the .bin, for positioned reads."""
        self.stamp = FileStamp.of(self.file)
        """Size and time of the .bin when it was opened."""
        size = self.stamp.size
        if size != self.index.data_bytes:
            raise DataError(
                f"{prefix}.bin has {size:,} bytes, but {prefix}.idx describes {self.index.data_bytes:,}. One of them "
                "is truncated or belongs to another corpus: prepare it again."
            )
        num_tokens = size // self.index.dtype.itemsize
        if self.info is not None and self.info.num_tokens != num_tokens:
            raise DataError(
                f"{prefix}.bin has {num_tokens:,} tokens, but {prefix}.json records {self.info.num_tokens:,}. One of "
                "them belongs to another corpus: prepare it again."
            )
        if self.info is not None and self.info.num_documents != self.num_documents:
            raise DataError(
                f"{prefix}.idx has {self.num_documents:,} documents, but {prefix}.json records "
                f"{self.info.num_documents:,}. One of them belongs to another corpus: prepare it again."
            )
        if self.info is not None and len(self.info.block_crc32) != -(
            -size // self.info.block_bytes
        ):
            raise DataError(
                f"{prefix}.json has checksums of {len(self.info.block_crc32):,} blocks of {self.info.block_bytes:,} bytes, "
                f"but {prefix}.bin has {size:,} bytes. One of them belongs to another corpus: prepare it again."
            )
        self._num_tokens = num_tokens
        # Rows are read in a shuffled order: what the kernel would read ahead is not what comes next.
        os.posix_fadvise(self.file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)

    def __len__(self) -> int:
        """Number of tokens."""
        return self._num_tokens

    def read(self, start: int, stop: int) -> np.ndarray:
        """Tokens [start, stop): (stop - start,) of the file's integer type.

        A positioned read, not a mapping: it costs no page table of the whole file, several threads and forked
        processes may share it, and a file that is cut while it is read is an error instead of a signal that kills.

        Raises:
            DataError: the file has become shorter.
            StorageError: the file system failed.
        """
        item = self.index.dtype.itemsize
        start, stop = max(start, 0), min(stop, self._num_tokens)
        with readable(f"{self.prefix}.bin"):
            data = os.pread(self.file.fileno(), (stop - start) * item, start * item)
        if len(data) != (stop - start) * item:
            raise DataError(
                f"{self.prefix}.bin ends at byte {start * item + len(data):,}; it had {self._num_tokens * item:,} when "
                "it was opened. Restore it, or prepare the corpus again."
            )
        return np.frombuffer(data, self.index.dtype)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all tokens' checksums and the tokenizer; for a plain Megatron corpus, of samples of its files."""
        if self.info is None:
            return self.sampled()
        info = self.info
        known = [info.block_crc32, info.index_crc32, info.num_tokens, info.tokenizer_fingerprint]
        return _digest(json.dumps(known).encode())

    def sampled(self) -> str:
        """Hash of samples of both files as they are now.

        Raises:
            DataError: one of them cannot be read.
            StorageError: the file system failed.
        """
        with readable(f"{self.prefix}.idx"), open(f"{self.prefix}.idx", "rb") as index:
            samples = _sample_of(index)
        with readable(f"{self.prefix}.bin"):
            return _digest(samples + _sample_of(self.file))


def open_stream(prefix: str | os.PathLike[str]) -> ShardStream:
    """Open a shard for reading."""
    return ShardStream(prefix)


def is_shard(prefix: str) -> bool:
    """True if PREFIX.idx exists: the file that is written last."""
    return os.path.isfile(f"{prefix}.idx")


def withdraw(prefix: Path) -> None:
    """Remove a shard that is about to be replaced; after the first removal it no longer counts as a shard.

    The .json, which says that the other files are ours, goes last.
    """
    for ending in ("idx", "bin", "json"):
        Path(f"{prefix}.{ending}").unlink(missing_ok=True)


def block_checksums(path: Path, block_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield (offset, CRC-32) of each block of a file."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        for offset in range(0, size, block_bytes):
            yield offset, checksum_at(file, offset, block_bytes)


def checksum(path: Path) -> int:
    """CRC-32 of a whole file."""
    with path.open("rb") as file:
        return checksum_at(file, 0, os.fstat(file.fileno()).st_size)


def checksum_at(file: BinaryIO, offset: int, size: int) -> int:
    """CRC-32 of a stretch of an open file, as far as it goes; read in small pieces, whatever `size` says."""
    crc, stop = 0, offset + size
    while piece := os.pread(file.fileno(), min(stop - offset, _PIECE_BYTES), offset):
        crc = zlib.crc32(piece, crc)
        offset += len(piece)
    return crc


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _sample_of(file: BinaryIO) -> bytes:
    """Size, first and last bytes of a file, and pages between."""
    size = os.fstat(file.fileno()).st_size
    last = max(size - _FINGERPRINTED_BYTES, 0)
    offsets = [last * page // _FINGERPRINTED_PAGES for page in range(_FINGERPRINTED_PAGES)]
    pages = [os.pread(file.fileno(), _PAGE_BYTES, offset) for offset in offsets]
    ends = [os.pread(file.fileno(), _FINGERPRINTED_BYTES, offset) for offset in (0, last)]
    return b"".join([str(size).encode(), *ends, *pages])
