"""Token shards on disk: Megatron's .bin/.idx, with a PREFIX.json of our own beside them.

The .bin is all documents' tokens in a row, each ending with eos; the .idx says where documents begin. Corpora made by
Megatron are used as they are, and ours by Megatron. PREFIX.json adds what neither file knows: the tokenizer, the
special tokens, and a checksum per block, so that damage is named by file and offset.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder

from configs.errors import DataError
from data_pipeline.special_tokens import SpecialTokens

FORMAT_VERSION = 1
BLOCK_BYTES = 16 * 2**20


@dataclass(frozen=True)
class ShardInfo:
    """PREFIX.json."""

    format_version: int
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


@dataclass(frozen=True)
class ShardWriter:
    """What a writer must know."""

    tokenizer: str
    tokenizer_fingerprint: str
    vocab_size: int
    special: SpecialTokens

    def write(self, prefix: Path, documents: Iterable[np.ndarray]) -> ShardInfo:
        """Write one shard; the three files appear only when all are complete.

        Args:
            prefix: path without ending; its folder exists.
            documents: token ids of each document, without eos.

        Raises:
            DataError: the disk is full or not writable.
        """
        partial = {ending: Path(f"{prefix}.{ending}.part") for ending in ("bin", "idx", "json")}
        dtype = np.uint16 if self.vocab_size < 65500 else np.int32
        count = tokens = 0
        try:
            builder = IndexedDatasetBuilder(str(partial["bin"]), dtype=dtype)
            for document in documents:
                ids = np.append(document, self.special.eos)
                builder.add_item(torch.from_numpy(ids.astype(np.int64)))
                builder.end_document()
                count, tokens = count + 1, tokens + len(ids)
            builder.finalize(str(partial["idx"]))
            info = ShardInfo(
                format_version=FORMAT_VERSION,
                tokenizer=self.tokenizer,
                tokenizer_fingerprint=self.tokenizer_fingerprint,
                vocab_size=self.vocab_size,
                special_tokens=self.special.to_dict(),
                num_documents=count,
                num_tokens=tokens,
                block_bytes=BLOCK_BYTES,
                block_crc32=[crc for _, crc in block_checksums(partial["bin"], BLOCK_BYTES)],
            )
            partial["json"].write_text(json.dumps(asdict(info), indent=1) + "\n")
            for ending in ("bin", "idx", "json"):
                os.replace(partial[ending], f"{prefix}.{ending}")
        except OSError as error:
            for path in partial.values():
                path.unlink(missing_ok=True)
            raise DataError(f"{prefix}.bin cannot be written: {error.strerror}.") from error
        return info


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
        try:
            dataset = IndexedDataset(prefix)
        except (AssertionError, ValueError, OSError) as error:
            raise DataError(f"{prefix}.idx is damaged: {error}") from error
        self.num_documents = len(dataset.document_indices) - 1
        dtype = np.dtype(dataset.index.dtype)
        num_tokens = int(np.asarray(dataset.sequence_lengths, dtype=np.int64).sum())
        size = os.path.getsize(f"{prefix}.bin")
        if size != num_tokens * dtype.itemsize:
            raise DataError(
                f"{prefix}.bin has {size:,} bytes, but {prefix}.idx speaks of {num_tokens * dtype.itemsize:,}. "
                "One of them is truncated or of another corpus: prepare it again."
            )
        self._tokens = np.memmap(f"{prefix}.bin", dtype=dtype, mode="r") if size else np.empty(0, dtype)

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self._tokens)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Tokens [start, stop), a view of the file."""
        return self._tokens[start:stop]

    @property
    def fingerprint(self) -> str:
        """Hash of the tokens' checksums and the tokenizer; for a plain Megatron corpus, of its index."""
        digest = hashlib.blake2b(digest_size=16)
        if self.info is not None:
            digest.update(json.dumps([self.info.block_crc32, self.info.tokenizer_fingerprint]).encode())
        else:
            digest.update(Path(f"{self.prefix}.idx").read_bytes())
        digest.update(str(len(self)).encode())
        return digest.hexdigest()


def open_stream(prefix: str) -> ShardStream:
    """Open a shard for reading."""
    return ShardStream(prefix)


def read_info(prefix: str) -> ShardInfo | None:
    """Read PREFIX.json; None for a plain Megatron corpus.

    Raises:
        DataError: it is damaged or of a newer version.
    """
    path = Path(f"{prefix}.json")
    if not path.is_file():
        return None
    try:
        stored = json.loads(path.read_text())
        version = stored["format_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}). Prepare the corpus again.") from error
    if version > FORMAT_VERSION:
        raise DataError(
            f"{path} has format version {version}; this program reads up to {FORMAT_VERSION}. Update it."
        )
    try:
        return ShardInfo(**stored)
    except TypeError as error:
        raise DataError(f"{path} is damaged ({error}). Prepare the corpus again.") from error


def block_checksums(path: Path, block_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield (offset, CRC-32) of each block of a file."""
    with path.open("rb") as file:
        offset = 0
        while block := file.read(block_bytes):
            yield offset, zlib.crc32(block)
            offset += len(block)


def verify(prefix: str, vocab_size: int | None = None) -> list[str]:
    """List what is wrong with a shard, naming file and offset; empty if it is whole."""
    try:
        stream = ShardStream(prefix)
    except DataError as error:
        return [str(error)]
    found = []
    if stream.info is not None:
        vocab_size = stream.info.vocab_size
        blocks = list(block_checksums(Path(f"{prefix}.bin"), stream.info.block_bytes))
        for (offset, crc), stored in zip(blocks, stream.info.block_crc32, strict=False):
            if crc != stored:
                found.append(
                    f"{prefix}.bin is damaged between byte {offset:,} and {offset + stream.info.block_bytes:,}."
                )
        if len(blocks) != len(stream.info.block_crc32):
            found.append(f"{prefix}.json speaks of {len(stream.info.block_crc32)} blocks, not {len(blocks)}.")
    step = 2**22
    for start in range(0, len(stream), step):
        tokens = stream.read(start, min(start + step, len(stream)))
        bad = np.flatnonzero((tokens < 0) | (tokens >= (vocab_size or np.iinfo(np.int64).max)))
        if len(bad):
            place = start + int(bad[0])
            found.append(
                f"{prefix}.bin has token id {int(tokens[bad[0]])} at token {place:,}; the vocabulary has {vocab_size}."
            )
            break
    return found
