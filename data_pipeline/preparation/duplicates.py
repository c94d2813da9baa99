"""Exact de-duplication: which documents repeat an earlier one.

Documents are the same if their normalised texts have the same 128-bit hash. Hashes are scattered over files of about
four million and looked at file by file, so that memory is a byte a document and half a GiB for a file: a billion
documents take 1.5 GiB. Scratch space on disk is 24 bytes a document.
"""

import hashlib
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import numpy as np

from data_pipeline.preparation.parts import DIGEST_BYTES

_DOCUMENTS_PER_FILE = 2**22
_MOST_FILES = 512
_ENTRY = np.dtype([("first", "<u8"), ("second", "<u8"), ("document", "<i8")])


def digest_of(text: str) -> bytes:
    """128-bit hash of a text, in which runs of white space are one blank and characters are composed (NFC)."""
    normalised = unicodedata.normalize("NFC", " ".join(text.split()))
    return hashlib.blake2b(normalised.encode(), digest_size=DIGEST_BYTES).digest()


def repetitions(digests: Iterable[np.ndarray], num_documents: int, scratch: Path) -> np.ndarray:
    """Find the documents that repeat an earlier one.

    Args:
        digests: blocks of (documents,) V16, in the order of the documents.
        num_documents: of all blocks.
        scratch: folder for temporary files of 24 bytes a document.

    Returns:
        (num_documents,) bool, True for all but the first document of each hash.
    """
    repeats = np.zeros(num_documents, bool)
    num_files = min(1 + num_documents // _DOCUMENTS_PER_FILE, _MOST_FILES)
    with ExitStack() as opened:
        files = [
            opened.enter_context(tempfile.TemporaryFile(dir=scratch)) for _ in range(num_files)
        ]
        _scatter(digests, files)
        for entries in _gathered(files):
            order = np.lexsort((entries["document"], entries["second"], entries["first"]))
            entries = entries[order]
            is_same = (entries["first"][1:] == entries["first"][:-1]) & (
                entries["second"][1:] == entries["second"][:-1]
            )
            repeats[entries["document"][1:][is_same]] = True
    return repeats


def _scatter(digests: Iterable[np.ndarray], files: Sequence[IO[bytes]]) -> None:
    start = 0
    for block in digests:
        halves = np.frombuffer(block.tobytes(), "<u8")
        entries = np.empty(len(block), _ENTRY)
        entries["first"], entries["second"] = halves[::2], halves[1::2]
        entries["document"] = np.arange(start, start + len(block))
        start += len(block)
        bucket = entries["first"] % len(files)
        entries = entries[np.argsort(bucket, kind="stable")]
        ends = np.cumsum(np.bincount(bucket.astype(np.int64), minlength=len(files)))
        for file, first, end in zip(files, [0, *ends[:-1]], ends, strict=True):
            file.write(entries[first:end].tobytes())


def _gathered(files: Sequence[IO[bytes]]) -> Iterator[np.ndarray]:
    for file in files:
        file.seek(0)
        yield np.frombuffer(file.read(), _ENTRY)
