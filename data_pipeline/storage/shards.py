"""Token shards on disk: Megatron's .bin/.idx, with a PREFIX.json of our own beside them.

The .bin is all documents' tokens in a row, each ending with eos; the .idx says where documents begin. Corpora made by
Megatron are used as they are, and ours by Megatron. PREFIX.json adds what neither file knows: the tokenizer, the
special tokens, and a checksum per block, so that damage is named by file and offset.

They are written by data_pipeline/storage/shard_writer.py. A reader needs only the first 34 bytes and the last pointer of the .idx,
so that a corpus of a billion documents opens at once, and reads of the .bin what a row asks for.
"""

import contextlib
import hashlib
import json
import os
import struct
import zlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from configs.errors import DataError, StorageError
from data_pipeline.special_tokens import SpecialTokens

FORMAT_VERSION = 1
BLOCK_BYTES = 16 * 2**20

_MAGIC = b"MMIDIDX\x00\x00"
# Magic, version, code of the type, number of sequences, number of document borders.
_HEADER = struct.Struct("<9sQBQQ")
HEADER_BYTES = _HEADER.size
_TYPES: dict[int, type[np.integer]] = {
    1: np.uint8,
    2: np.int8,
    3: np.int16,
    4: np.int32,
    5: np.int64,
    8: np.uint16,
}
# Megatron's rule for the type of a token: below this, two bytes are enough.
_SMALL_VOCABULARY = 65_500
# What of a plain Megatron corpus goes into its fingerprint, of each file: its ends, and pages spread evenly over it.
_FINGERPRINTED_BYTES = 2**20
_FINGERPRINTED_PAGES, _PAGE_BYTES = 256, 4096


@dataclass(frozen=True)
class ShardInfo:
    """PREFIX.json."""

    format_version: int
    sources: list[str]
    """What the text was read from."""
    tokenizer: str
    """Its spec; a file name is relative to the shard's folder."""
    tokenizer_fingerprint: str
    vocab_size: int
    special_tokens: dict[str, int]
    num_documents: int
    num_tokens: int
    block_bytes: int
    block_crc32: list[int]
    """CRC-32 of each block of the .bin, the last one shorter."""
    index_crc32: int
    """CRC-32 of the .idx."""
    left_out: dict[str, int] = field(default_factory=dict[str, int])
    """Documents of the sources that are in neither shard, by reason."""
    held_out_below: float | None = None
    """Documents whose place, a hash of the text in [0, 1), is below were held out; None: not recorded."""


@dataclass(frozen=True)
class Index:
    """What is read of an .idx."""

    dtype: np.dtype
    num_sequences: int
    num_documents: int
    data_bytes: int
    """Size of the .bin that it belongs to."""

    @property
    def holds_records(self) -> bool:
        """True for instructions: each document is a prompt and its target."""
        return self.num_documents > 0 and self.num_sequences == 2 * self.num_documents


class ShardStream:
    """The tokens of one shard in a row (a data_pipeline.dataset.TokenStream).

    Args:
        prefix: path without ending.

    Raises:
        DataError: a file is missing, damaged, or does not belong to the others.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        for ending in ("bin", "idx"):
            if not Path(f"{prefix}.{ending}").is_file():
                raise DataError(
                    f"{prefix}.{ending} does not exist. Check data.paths, or make it: python -m data_pipeline prepare "
                    f"INPUT --output {prefix} --tokenizer SPEC"
                )
        self.info = read_info(prefix)
        self.index = read_index(prefix)
        self.num_documents = self.index.num_documents
        with readable(f"{prefix}.bin"):
            size = os.path.getsize(f"{prefix}.bin")
            # Open as long as the stream lives.
            self._file = open(f"{prefix}.bin", "rb", buffering=0)  # noqa: SIM115
        if size != self.index.data_bytes:
            raise DataError(
                f"{prefix}.bin has {size:,} bytes, but {prefix}.idx speaks of {self.index.data_bytes:,}. One of them "
                "is truncated or of another corpus: prepare it again."
            )
        num_tokens = size // self.index.dtype.itemsize
        if self.info is not None and self.info.num_tokens != num_tokens:
            raise DataError(
                f"{prefix}.bin has {num_tokens:,} tokens, but {prefix}.json speaks of {self.info.num_tokens:,}. One of "
                "them is of another corpus: prepare it again."
            )
        if self.info is not None and self.info.num_documents != self.num_documents:
            raise DataError(
                f"{prefix}.idx has {self.num_documents:,} documents, but {prefix}.json speaks of "
                f"{self.info.num_documents:,}. One of them is of another corpus: prepare it again."
            )
        self._num_tokens = num_tokens
        # Rows are read in a shuffled order: what the kernel would read ahead is not what comes next.
        os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)

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
            data = os.pread(self._file.fileno(), (stop - start) * item, start * item)
        if len(data) != (stop - start) * item:
            raise DataError(
                f"{self.prefix}.bin ends at byte {start * item + len(data):,}; it had {self._num_tokens * item:,} when "
                "it was opened. Restore it, or prepare the corpus again."
            )
        return np.frombuffer(data, self.index.dtype)

    @property
    def fingerprint(self) -> str:
        """Hash of all tokens' checksums and the tokenizer; for a plain Megatron corpus, of samples of its files."""
        digest = hashlib.blake2b(digest_size=16)
        if self.info is not None:
            info = self.info
            known = [
                info.block_crc32,
                info.index_crc32,
                info.num_tokens,
                info.tokenizer_fingerprint,
            ]
            digest.update(json.dumps(known).encode())
        else:
            for ending in ("idx", "bin"):
                path = Path(f"{self.prefix}.{ending}")
                with readable(path):
                    digest.update(_sample_of(path))
        return digest.hexdigest()


@contextlib.contextmanager
def readable(path: str | Path) -> Generator[None, None, None]:
    """Name the file that cannot be opened or read.

    Raises:
        DataError: it is not there, or not for us.
        StorageError: the file system failed.
    """
    try:
        yield
    except OSError as error:
        is_users = isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError)
        kind = DataError if is_users else StorageError
        raise kind(f"{path} cannot be read: {error.strerror}.") from error


def open_stream(prefix: str) -> ShardStream:
    """Open a shard for reading."""
    return ShardStream(prefix)


def read_index(prefix: str) -> Index:
    """Read the ends of an .idx.

    It is a header, then per sequence its length (int32), per sequence its place in the .bin (int64, bytes), and the
    documents' borders (int64, in sequences), the first 0 and the last the number of sequences.

    Raises:
        DataError: it is not an index of Megatron's, or truncated.
    """
    path = Path(f"{prefix}.idx")
    with readable(path), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size or not header.startswith(_MAGIC):
            raise DataError(f"{path} is not an index of token shards. Prepare the corpus again.")
        _, version, code, num_sequences, num_borders = _HEADER.unpack(header)
        if version != 1 or code not in _TYPES:
            raise DataError(
                f"{path} has version {version} and token type {code}; this program reads version 1 with integer tokens."
            )
        lengths, pointers = _HEADER.size, _HEADER.size + 4 * num_sequences
        expected = pointers + 8 * num_sequences + 8 * num_borders
        if size not in (expected, expected + num_sequences):  # Megatron may add a mode per sequence
            raise DataError(
                f"{path} has {size:,} bytes, but its header speaks of {expected:,}: it is truncated or damaged. "
                "Prepare the corpus again."
            )
        dtype = np.dtype(_TYPES[code])
        data_bytes = 0
        if num_sequences:
            last_length = _number_at(file, lengths + 4 * (num_sequences - 1), "<i")
            last_pointer = _number_at(file, pointers + 8 * (num_sequences - 1), "<q")
            data_bytes = last_pointer + last_length * dtype.itemsize
    return Index(dtype, num_sequences, max(num_borders - 1, 0), data_bytes)


def read_info(prefix: str) -> ShardInfo | None:
    """Read PREFIX.json; None for a plain Megatron corpus.

    Raises:
        DataError: it is damaged or of a newer version.
    """
    path = Path(f"{prefix}.json")
    if not path.is_file():
        return None
    with readable(path):
        text = path.read_bytes()
    try:
        stored = json.loads(text)
        version = int(stored["format_version"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}). Prepare the corpus again.") from error
    if version > FORMAT_VERSION:
        raise DataError(
            f"{path} has format version {version}; this program reads up to {FORMAT_VERSION}. Update it."
        )
    try:
        info = ShardInfo(**stored)
        SpecialTokens(**info.special_tokens)
    except TypeError as error:
        raise DataError(f"{path} is damaged ({error}). Prepare the corpus again.") from error
    return info


def token_type(vocab_size: int) -> np.dtype:
    """Type of a token in a .bin, by Megatron's rule."""
    return np.dtype(np.uint16 if vocab_size < _SMALL_VOCABULARY else np.int32)


def index_header(dtype: np.dtype, num_sequences: int, num_documents: int) -> bytes:
    """The first 34 bytes of an .idx."""
    code = next(code for code, known in _TYPES.items() if dtype == known)
    return _HEADER.pack(_MAGIC, 1, code, num_sequences, num_documents + 1)


def is_shard(prefix: str) -> bool:
    """True if PREFIX.idx exists: the file that is written last."""
    return Path(f"{prefix}.idx").is_file()


def withdraw(prefix: Path) -> None:
    """Remove a shard that is about to be replaced; from the first removal on it is no shard any more."""
    for ending in ("idx", "json", "bin"):
        Path(f"{prefix}.{ending}").unlink(missing_ok=True)


def block_checksums(path: Path, block_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield (offset, CRC-32) of each block of a file."""
    with path.open("rb") as file:
        offset = 0
        while block := file.read(block_bytes):
            yield offset, zlib.crc32(block)
            offset += len(block)


def checksum(path: Path) -> int:
    """CRC-32 of a whole file."""
    crc = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            crc = zlib.crc32(block, crc)
    return crc


def _number_at(file: BinaryIO, offset: int, form: str) -> int:
    file.seek(offset)
    return struct.unpack(form, file.read(struct.calcsize(form)))[0]


def _sample_of(path: Path) -> bytes:
    """Size, first and last bytes of a file, and pages between."""
    size = path.stat().st_size
    last = max(size - _FINGERPRINTED_BYTES, 0)
    offsets = [last * page // _FINGERPRINTED_PAGES for page in range(_FINGERPRINTED_PAGES)]
    with path.open("rb") as file:
        pages = [os.pread(file.fileno(), _PAGE_BYTES, offset) for offset in offsets]
        ends = [os.pread(file.fileno(), _FINGERPRINTED_BYTES, offset) for offset in (0, last)]
    return b"".join([str(size).encode(), *ends, *pages])
