"""Reading .zst files so that a truncated one is noticed: the library's own reader takes any end of file for the end."""

import io
from typing import Any, BinaryIO

import zstandard

_CHUNK_BYTES = 2**20


class ZstdReader(io.RawIOBase):
    """Decompressed bytes of a file of one or more frames.

    Args:
        file: compressed; closed with this reader.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._has_begun = False
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        """See io.RawIOBase."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fill `buffer`; 0 at the end.

        Raises:
            EOFError: the file ends within a frame.
            zstandard.ZstdError: it is no archive, or damaged.
        """
        while not self._ready:
            chunk = self._frame.unused_data if self._frame.eof else b""
            chunk = chunk or self._file.read(_CHUNK_BYTES)
            if not chunk:
                if self._has_begun and not self._frame.eof:
                    raise EOFError("the file ends within the archive")
                return 0
            if self._frame.eof:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            self._has_begun = True
            self._ready = memoryview(self._frame.decompress(chunk))
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def close(self) -> None:
        """Close both."""
        self._file.close()
        super().close()
