"""Reading .zst files so that a truncated one is noticed: the library's own reader takes any end of file for the end."""

import io
from typing import Any, BinaryIO

import zstandard

_CHUNK_BYTES = 2**20
# The library unpacks a whole input block at once: four bytes may expand to 128 KiB, so this many to 64 MiB.
_PIECE_BYTES = 2048
# Size of the window of `zstd --ultra --long=31`. Memory is used only as far as it is filled.
_LARGEST_WINDOW = 2**31


class ZstdReader(io.RawIOBase):
    """Decompressed bytes of a file of one or more frames.

    Args:
        file: compressed; closed with this reader.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._frame = _frame()
        self._has_begun = False
        self._packed = memoryview(b"")
        self._ready = memoryview(b"")
        self.num_taken = 0
        """Compressed bytes that have been decompressed."""

    def readable(self) -> bool:
        """See io.RawIOBase."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fill `buffer`; 0 at the end.

        Raises:
            EOFError: the file ends within a frame.
            zstandard.ZstdError: it is not an archive, or is damaged.
        """
        while not self._ready:
            if not self._packed:
                self._packed = memoryview(self._file.read(_CHUNK_BYTES))
            if not self._packed:
                if self._has_begun and not self._frame.eof:
                    raise EOFError("the file ends within the archive")
                return 0
            if self._frame.eof:
                self._frame = _frame()
            self._has_begun = True
            piece = self._packed[:_PIECE_BYTES]
            self._ready = memoryview(self._frame.decompress(piece))
            taken = len(piece) - len(self._frame.unused_data)
            self._packed = self._packed[taken:]
            self.num_taken += taken
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def close(self) -> None:
        """Close this reader and its file."""
        self._file.close()
        super().close()


def _frame() -> Any:
    return zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW).decompressobj()
