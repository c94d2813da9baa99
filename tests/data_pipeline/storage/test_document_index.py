"""The document of a token, against a plain list; and that finding it does not read the index."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.errors import DataError
from data_pipeline.storage.document_index import DocumentIndex, DocumentSlice
from data_pipeline.storage.shards import read_index
from tests.helpers.shards import write_with_megatron


def open_index(prefix: Path) -> DocumentIndex:
    return DocumentIndex(str(prefix), read_index(str(prefix)))


DOCUMENTS = st.lists(
    st.lists(st.lists(st.integers(0, 9), max_size=4), max_size=3), min_size=1, max_size=8
)


@given(DOCUMENTS, st.data())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pieces_are_those_of_a_plain_list(tmp_path: Path, documents, data):
    write_with_megatron(tmp_path / "m", documents, np.uint16)
    lengths = [sum(map(len, sentences)) for sentences in documents]
    owners = [(number, place) for number, size in enumerate(lengths) for place in range(size)]
    start = data.draw(st.integers(0, len(owners)))
    stop = data.draw(st.integers(start, len(owners)))
    index = open_index(tmp_path / "m")
    assert [index.document_at(token) for token in range(len(owners))] == [n for n, _ in owners]
    expected: list[DocumentSlice] = []
    for number, place in owners[start:stop]:
        if expected and expected[-1].document == number:
            last = expected.pop()
            expected.append(DocumentSlice(number, last.start, place + 1, lengths[number]))
        else:
            expected.append(DocumentSlice(number, place, place + 1, lengths[number]))
    assert index.pieces(start, stop) == expected


def write_sparse(prefix: Path, count: int) -> None:
    """The .idx of `count` documents of one token each, as a sparse file: only what a search visits is filled in."""
    header = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, 4, count, count + 1)
    pointers, borders = 34 + 4 * count, 34 + 12 * count
    with Path(f"{prefix}.idx").open("wb") as file:
        file.write(header)
        file.truncate(borders + 8 * (count + 1))
        os.pwrite(file.fileno(), struct.pack("<i", 1), 34 + 4 * (count - 1))
        os.pwrite(file.fileno(), struct.pack("<q", 4 * (count - 1)), pointers + 8 * (count - 1))


def test_a_billion_documents_cost_a_few_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    count = 10**9
    write_sparse(tmp_path / "m", count)
    index = open_index(tmp_path / "m")
    reads = 0
    borders = 34 + 12 * count

    def pread(_: int, size: int, offset: int) -> bytes:
        nonlocal reads
        reads += 1
        assert size == 8
        is_border = offset >= borders
        number = (offset - (borders if is_border else 34 + 4 * count)) // 8
        return struct.pack("<q", number if is_border else 4 * number)

    monkeypatch.setattr(os, "pread", pread)
    assert index.document_at(123_456_789) == 123_456_789
    assert reads <= 2 * 31


def test_index_that_is_cut_while_it_is_open_is_named(tmp_path: Path):
    write_with_megatron(tmp_path / "m", [[[1, 2]], [[3]]])
    index = open_index(tmp_path / "m")
    os.truncate(tmp_path / "m.idx", 40)
    with pytest.raises(DataError, match=r"m\.idx ends before byte"):
        index.document_at(1)
