"""Token shards on disk: Megatron's .bin/.idx, with a PREFIX.json of our own beside them.

The .bin is all documents' tokens in a row, each ending with eos; the .idx says where documents begin. Corpora made by
Megatron are used as they are, and ours by Megatron. PREFIX.json adds what neither file knows: the tokenizer, the
special tokens, and a checksum per block, so that damage is named by file and offset.

Shards are written with Megatron's own builder. A reader needs only the first 34 bytes and the last pointer of the .idx,
so that a corpus of a billion documents opens at once, and reads of the .bin what a row asks for.
"""

import contextlib
import hashlib
import json
import os
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from configs.errors import DataError
from data_pipeline.cache import lock_file
from data_pipeline.special_tokens import SpecialTokens
from data_pipeline.tokenizer import Tokenizer

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
# What of a plain Megatron corpus goes into its fingerprint, at each end of each file.
_FINGERPRINTED_BYTES = 2**20


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


@dataclass(frozen=True)
class Index:
    """What is read of an .idx."""

    dtype: np.dtype
    num_sequences: int
    num_documents: int
    data_bytes: int
    """Size of the .bin that it belongs to."""


class ShardWriter:
    """Writes one shard beside its final place, and moves it there when all of it is complete.

    The .idx is moved last: without it nothing is taken for a shard, so a process that is killed at any moment leaves
    either a whole shard or none.

    Args:
        prefix: path without ending; its folder exists.
        tokenizer: of the tokens.
        spec: how a reader finds the tokenizer, relative to the folder.
        sources: what the text is read from, for the record.

    Raises:
        DataError: another process is writing this shard.
    """

    def __init__(
        self, prefix: Path, tokenizer: Tokenizer, spec: str, sources: Sequence[str]
    ) -> None:
        self._prefix = prefix
        self._tokenizer = tokenizer
        self._spec = spec
        self._sources = list(sources)
        self._num_documents = self._num_tokens = 0
        self._lock = _lock_output(_partial(prefix, "bin"), prefix)
        dtype = np.uint16 if tokenizer.vocab_size < _SMALL_VOCABULARY else np.int32
        self._builder, self._from_numpy = _megatron_builder(_partial(prefix, "bin"), dtype)
        self._eos = np.array([tokenizer.special.eos])

    def add(self, ids: Sequence[int]) -> None:
        """Append a document: its token ids, without eos."""
        tokens = np.concatenate([np.asarray(ids, dtype=np.int64), self._eos])
        self._builder.add_item(self._from_numpy(tokens))
        self._builder.end_document()
        self._num_documents += 1
        self._num_tokens += len(tokens)

    def finish(self) -> ShardInfo:
        """Complete the files at their temporary place."""
        self._builder.finalize(str(_partial(self._prefix, "idx")))
        info = ShardInfo(
            format_version=FORMAT_VERSION,
            sources=self._sources,
            tokenizer=self._spec,
            tokenizer_fingerprint=self._tokenizer.fingerprint,
            vocab_size=self._tokenizer.vocab_size,
            special_tokens=self._tokenizer.special.to_dict(),
            num_documents=self._num_documents,
            num_tokens=self._num_tokens,
            block_bytes=BLOCK_BYTES,
            block_crc32=[
                crc for _, crc in block_checksums(_partial(self._prefix, "bin"), BLOCK_BYTES)
            ],
            index_crc32=checksum(_partial(self._prefix, "idx")),
        )
        _partial(self._prefix, "json").write_text(json.dumps(asdict(info), indent=1) + "\n")
        for ending in ("bin", "json", "idx"):
            _flush_to_disk(_partial(self._prefix, ending))
        return info

    def publish(self) -> None:
        """Move the finished shard to its place, which must be empty: see `withdraw`."""
        for ending in ("bin", "json", "idx"):
            os.replace(_partial(self._prefix, ending), f"{self._prefix}.{ending}")
        self._lock.close()

    def discard(self) -> None:
        """Remove whatever of this shard was not published."""
        if not self._lock.closed:
            with contextlib.suppress(OSError):  # a full disk fails once more
                self._builder.data_file.close()
            for ending in ("idx", "json", "bin"):
                _partial(self._prefix, ending).unlink(missing_ok=True)
            self._lock.close()


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
        size = os.path.getsize(f"{prefix}.bin")
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
        self._num_tokens = num_tokens
        self._file = open(f"{prefix}.bin", "rb", buffering=0)  # noqa: SIM115  (open as long as the stream lives)
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
            DataError: the file cannot be read, or has become shorter.
        """
        item = self.index.dtype.itemsize
        start, stop = max(start, 0), min(stop, self._num_tokens)
        try:
            data = os.pread(self._file.fileno(), (stop - start) * item, start * item)
        except OSError as error:
            raise DataError(f"{self.prefix}.bin cannot be read: {error.strerror}.") from error
        if len(data) != (stop - start) * item:
            raise DataError(
                f"{self.prefix}.bin ends at byte {start * item + len(data):,}; it had {self._num_tokens * item:,} when "
                "it was opened. Restore it, or prepare the corpus again."
            )
        return np.frombuffer(data, self.index.dtype)

    @property
    def fingerprint(self) -> str:
        """Hash of all tokens' checksums and the tokenizer; for a plain Megatron corpus, of its files' ends."""
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
                digest.update(_ends_of(Path(f"{self.prefix}.{ending}")))
        return digest.hexdigest()


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
    size = path.stat().st_size
    with path.open("rb") as file:
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
    try:
        stored = json.loads(path.read_bytes())
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


def _megatron_builder(
    path: Path, dtype: type[np.integer]
) -> tuple[Any, Callable[[np.ndarray], Any]]:
    """Megatron's IndexedDatasetBuilder, and what turns an array into the tensor that it takes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about optional packages that shards have no use for
        # Importing these costs seconds, which reading a shard must not.
        import torch
        from megatron.core.datasets.indexed_dataset import (  # pyright: ignore[reportMissingTypeStubs]
            IndexedDatasetBuilder,
        )
    to_tensor: Callable[[np.ndarray], Any] = cast("Any", torch).from_numpy
    return IndexedDatasetBuilder(str(path), dtype=dtype), to_tensor


def _partial(prefix: Path, ending: str) -> Path:
    return Path(f"{prefix}.{ending}.part")


def _lock_output(path: Path, prefix: Path) -> BinaryIO:
    """Hold `path`, made if need be; what a killed process left in it is overwritten."""
    file = path.open("ab")
    if not lock_file(file, wait=False):
        file.close()
        raise DataError(
            f"Another process is writing {prefix} at this moment. Wait for it, or choose another --output PREFIX."
        )
    return file


def _number_at(file: BinaryIO, offset: int, form: str) -> int:
    file.seek(offset)
    return struct.unpack(form, file.read(struct.calcsize(form)))[0]


def _ends_of(path: Path) -> bytes:
    """Size, first and last bytes of a file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        first = file.read(_FINGERPRINTED_BYTES)
        file.seek(max(size - _FINGERPRINTED_BYTES, 0))
        return str(size).encode() + first + file.read()


def _flush_to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
