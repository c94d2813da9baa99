"""Writing token shards: tokens stream through, an index of any size is never held in memory.

The files are byte for byte those of Megatron's IndexedDatasetBuilder, which keeps its index in Python lists (about a
hundred bytes a document) and needs PyTorch.
"""

import contextlib
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np

from configs.errors import DataError
from data_pipeline.cache import lock_file
from data_pipeline.storage.shards import (
    BLOCK_BYTES,
    FORMAT_VERSION,
    ShardInfo,
    checksum,
    index_header,
    token_type,
)
from data_pipeline.tokenizer import Tokenizer

_COPIED_BYTES = 2**20


class ShardWriter:
    """Writes one shard elsewhere on the same disk, and moves it to its place when all of it is complete.

    The .idx is moved last: without it nothing is taken for a shard, so a process that is killed at any moment leaves
    either a whole shard or none. The .json is moved first: it says whose the other files are.

    Args:
        prefix: path without ending; its folder exists.
        tokenizer: of the tokens.
        spec: how a reader finds the tokenizer, relative to the folder.
        sources: what the text is read from, for the record.
        staging: prefix of the files that are being written, in a folder that is ours; files there are replaced.

    Raises:
        DataError: another process is writing this shard.
    """

    def __init__(
        self,
        prefix: Path,
        tokenizer: Tokenizer,
        spec: str,
        sources: Sequence[str],
        staging: Path,
    ) -> None:
        self._prefix = prefix
        self._staging = staging
        self._tokenizer = tokenizer
        self._spec = spec
        self._sources = list(sources)
        self._dtype = token_type(tokenizer.vocab_size)
        self._num_documents = self._num_sequences = self._num_tokens = 0
        self._block_crc32: list[int] = []
        self._block_left = 0
        self._lock = _locked(self._partial("bin"), prefix)
        self._opened = contextlib.ExitStack()
        try:
            self._lock.truncate(0)
            self._index = self._opened.enter_context(self._partial("idx").open("wb"))
            self._index.write(index_header(self._dtype, 0, 0))
            self._pointers = self._opened.enter_context(_unnamed_file(staging.parent))
            self._borders = self._opened.enter_context(_unnamed_file(staging.parent))
            self._borders.write(np.zeros(1, "<i8").tobytes())
        except OSError:
            self.discard()
            raise

    def append(self, tokens: np.ndarray, lengths: np.ndarray) -> None:
        """Append documents.

        Args:
            tokens: of all of them in a row, eos included.
            lengths: (documents, sequences), tokens of each sequence of each document.
        """
        data = tokens.astype(self._dtype, copy=False).tobytes()
        self._lock.write(data)
        self._add_to_checksums(memoryview(data))
        flat = np.ravel(lengths).astype(np.int64)
        item = self._dtype.itemsize
        pointers = (self._num_tokens + np.cumsum(flat) - flat) * item
        count, sequences = len(lengths), flat.size // max(len(lengths), 1)
        borders = self._num_sequences + sequences * np.arange(1, count + 1)
        self._index.write(flat.astype("<i4").tobytes())
        self._pointers.write(pointers.astype("<i8").tobytes())
        self._borders.write(borders.astype("<i8").tobytes())
        self._num_documents += count
        self._num_sequences += flat.size
        self._num_tokens += len(tokens)

    def finish(
        self,
        left_out: Mapping[str, int],
        held_out_below: float | None = None,
        made_from: str | None = None,
    ) -> ShardInfo:
        """Complete the files at their temporary place.

        Args:
            left_out: documents that are not in the shard, by reason.
            held_out_below: the place below which documents were held out.
            made_from: hash of all that the shard depends on.
        """
        for scratch in (self._pointers, self._borders):
            scratch.seek(0)
            shutil.copyfileobj(scratch, self._index, _COPIED_BYTES)
        self._index.seek(0)
        self._index.write(index_header(self._dtype, self._num_sequences, self._num_documents))
        self._opened.close()
        self._lock.flush()
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
            block_crc32=self._block_crc32,
            index_crc32=checksum(self._partial("idx")),
            left_out=dict(left_out),
            held_out_below=held_out_below,
            made_from=made_from,
        )
        self._partial("json").write_text(json.dumps(asdict(info), indent=1) + "\n")
        for ending in ("bin", "json", "idx"):
            _flush_to_disk(self._partial(ending))
        return info

    def publish(self) -> None:
        """Move the finished shard to its place, which must be empty: see `shards.withdraw`."""
        for ending in ("json", "bin", "idx"):
            os.replace(self._partial(ending), f"{self._prefix}.{ending}")
        self._lock.close()

    def discard(self) -> None:
        """Remove whatever of this shard was not published."""
        if not self._lock.closed:
            for ending in ("idx", "json", "bin"):
                self._partial(ending).unlink(missing_ok=True)
            for close in (self._opened.close, self._lock.close):
                with contextlib.suppress(OSError):  # on a full disk this fails again
                    close()

    def _partial(self, ending: str) -> Path:
        return Path(f"{self._staging}.{ending}")

    def _add_to_checksums(self, data: memoryview) -> None:
        """Update the checksum of the block that is being filled."""
        while data:
            if not self._block_left:
                self._block_crc32.append(0)
                self._block_left = BLOCK_BYTES
            piece, data = data[: self._block_left], data[self._block_left :]
            self._block_crc32[-1] = zlib.crc32(piece, self._block_crc32[-1])
            self._block_left -= len(piece)


def _locked(path: Path, prefix: Path) -> BinaryIO:
    """Open `path` for appending, made if need be, and hold it against other processes.

    Raises:
        DataError: another process holds it.
    """
    file = path.open("ab")
    if not lock_file(file, wait=False):
        file.close()
        raise DataError(
            f"Another process is writing {prefix} at this moment. Wait for it, or choose another --output PREFIX."
        )
    return file


def _unnamed_file(folder: Path) -> IO[bytes]:
    """A temporary file that is always removed in the end."""
    return tempfile.TemporaryFile(dir=folder)


def _flush_to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
