"""Reading .zst files."""

import io

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.preparation.zstd_reader import ZstdReader


def unpack(content: bytes) -> bytes:
    return io.BufferedReader(ZstdReader(io.BytesIO(content))).read()


@given(st.lists(st.binary(max_size=500), max_size=4))
def test_frames_in_a_row_are_one_text(parts: list[bytes]):
    assert unpack(b"".join(zstandard.compress(part) for part in parts)) == b"".join(parts)


def test_frames_longer_than_a_read_are_whole():
    content = b"".join(str(number).encode() for number in range(700_000))
    assert unpack(zstandard.compress(content, 1) * 2) == content * 2


def test_archive_cut_anywhere_is_noticed():
    packed = zstandard.compress(b"some text " * 40 + bytes(range(256)))
    for kept in range(1, len(packed)):
        with pytest.raises(EOFError, match="ends within"):
            unpack(packed[:kept])


def test_other_files_are_no_archives():
    with pytest.raises(zstandard.ZstdError):
        unpack(b"this is no archive at all")
