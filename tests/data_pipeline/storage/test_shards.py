"""Token shards against Megatron's own reader and writer, literal bytes and damage."""

import binascii
import errno
import io
import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder

from configs.errors import DataError, StorageError
from data_pipeline.storage import shard_writer
from data_pipeline.storage.shard_writer import ShardWriter
from data_pipeline.storage.shards import is_shard, open_stream, read_index, withdraw
from data_pipeline.tokenizer import ByteTokenizer
from tests.helpers.shards import DOCUMENTS, EOS, write, write_with_megatron
from tests.helpers.texts import shard_bytes

STREAM = [1, 2, 3, EOS, 4, EOS, EOS, 5, 6, 7, 8, 9, EOS]


def test_stream_is_all_documents_each_with_its_end(tmp_path: Path):
    write(tmp_path / "a")
    stream = open_stream(str(tmp_path / "a"))
    assert len(stream) == 13
    assert stream.num_documents == 4
    assert stream.read(0, 13).tolist() == STREAM
    assert stream.read(2, 5).tolist() == STREAM[2:5]
    assert stream.read(13, 13).tolist() == []


def test_files_are_written_literally(tmp_path: Path):
    write(tmp_path / "a")
    assert (tmp_path / "a.bin").read_bytes() == struct.pack("<13H", *STREAM)
    header = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, 8, 4, 5)
    lengths = struct.pack("<4i", 4, 2, 1, 6)
    pointers = struct.pack("<4q", 0, 8, 12, 14)
    borders = struct.pack("<5q", 0, 1, 2, 3, 4)
    assert (tmp_path / "a.idx").read_bytes() == header + lengths + pointers + borders
    assert json.loads((tmp_path / "a.json").read_text()) == {
        "format_version": 1,
        "sources": ["here.txt"],
        "tokenizer": "bytes",
        "tokenizer_fingerprint": "bytes-1",
        "vocab_size": 262,
        "special_tokens": {
            "mask": 256,
            "gmask": 257,
            "sop": 258,
            "eop": 259,
            "eos": 260,
            "pad": 261,
        },
        "num_documents": 4,
        "num_tokens": 13,
        "block_bytes": 16777216,
        "block_crc32": [binascii.crc32(struct.pack("<13H", *STREAM))],
        "index_crc32": binascii.crc32(header + lengths + pointers + borders),
        "left_out": {"empty": 2},
        "held_out_below": None,
        "made_from": None,
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin", "a.idx", "a.json"]


def test_type_follows_megatrons_rule(tmp_path: Path):
    write(tmp_path / "small", vocab_size=65_499)
    write(tmp_path / "large", [[65_499, 150_000]], vocab_size=65_500)
    assert read_index(str(tmp_path / "small")).dtype == np.uint16
    assert open_stream(str(tmp_path / "large")).read(0, 3).tolist() == [65_499, 150_000, EOS]


@given(st.lists(st.lists(st.integers(0, 255), max_size=20), max_size=8))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_megatron_reads_what_we_write(tmp_path: Path, documents: list[list[int]]):
    if not documents:
        documents = [[1]]
    write(tmp_path / "a", documents)
    read = IndexedDataset(str(tmp_path / "a"))
    assert [read[i].tolist() for i in range(len(read))] == [[*ids, EOS] for ids in documents]
    assert read.document_indices.tolist() == list(range(len(documents) + 1))


@given(
    st.lists(
        st.lists(st.lists(st.integers(0, 999), min_size=1, max_size=9), min_size=1, max_size=3),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from([np.int32, np.uint16, np.int64]),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_we_read_what_megatron_writes(tmp_path: Path, documents: list[list[list[int]]], dtype):
    write_with_megatron(tmp_path / "m", documents, dtype)
    stream = open_stream(str(tmp_path / "m"))
    flat = [token for sentences in documents for sentence in sentences for token in sentence]
    assert stream.read(0, len(stream)).tolist() == flat
    assert stream.num_documents == len(documents)
    assert stream.info is None


def test_megatron_corpus_with_modes_is_read(tmp_path: Path):
    builder = IndexedDatasetBuilder(str(tmp_path / "m.bin"), multimodal=True)
    builder.add_item(torch.tensor([1, 2]), mode=1)
    builder.end_document()
    builder.finalize(str(tmp_path / "m.idx"))
    assert open_stream(str(tmp_path / "m")).read(0, 2).tolist() == [1, 2]


def test_empty_shard_is_an_empty_stream(tmp_path: Path):
    write(tmp_path / "a", [])
    assert len(open_stream(str(tmp_path / "a"))) == 0
    assert open_stream(str(tmp_path / "a")).num_documents == 0


def test_fingerprint_follows_tokens_and_tokenizer_and_not_the_place(tmp_path: Path):
    write(tmp_path / "a")
    write(tmp_path / "b")
    write(tmp_path / "c", [*DOCUMENTS[:-1], [5, 6, 7, 8, 10]])
    a, b, c = (open_stream(str(tmp_path / name)).fingerprint for name in "abc")
    assert a == b != c
    info = json.loads((tmp_path / "b.json").read_text())
    (tmp_path / "b.json").write_text(json.dumps({**info, "tokenizer_fingerprint": "other"}))
    assert open_stream(str(tmp_path / "b")).fingerprint != a


def test_fingerprint_of_a_plain_corpus_follows_what_lies_between_its_ends(tmp_path: Path):
    write_with_megatron(tmp_path / "m", [[[7] * 3_000_000]])
    before = open_stream(str(tmp_path / "m")).fingerprint
    with (tmp_path / "m.bin").open("r+b") as file:
        file.seek(5_000_000)
        file.write(b"\1" * 100_000)
    assert open_stream(str(tmp_path / "m")).fingerprint != before


def test_an_index_with_other_documents_than_its_record_is_refused(tmp_path: Path):
    write(tmp_path / "a")
    info = json.loads((tmp_path / "a.json").read_text())
    (tmp_path / "a.json").write_text(json.dumps({**info, "num_documents": 5}))
    with pytest.raises(DataError, match=r"a\.idx has 4 documents, but .*a\.json records 5"):
        open_stream(str(tmp_path / "a"))


@pytest.mark.parametrize(
    ("code", "kind"), [(errno.EACCES, DataError), (errno.EIO, StorageError)], ids=["ours", "disk's"]
)
@pytest.mark.parametrize("ending", ["bin", "idx", "json"])
def test_a_file_that_cannot_be_opened_is_named(
    ending: str, code: int, kind: type[DataError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write(tmp_path / "a")
    original = io.open

    def fails(path, *arguments, **options):
        if str(path).endswith(f".{ending}"):
            raise OSError(code, os.strerror(code))
        return original(path, *arguments, **options)

    open_descriptor = os.open

    def fails_to_open(path, *arguments, **options):
        if str(path).endswith(f".{ending}"):
            raise OSError(code, os.strerror(code))
        return open_descriptor(path, *arguments, **options)

    monkeypatch.setattr(io, "open", fails)
    monkeypatch.setattr("builtins.open", fails)
    monkeypatch.setattr(os, "open", fails_to_open)
    with pytest.raises(
        DataError, match=rf"a\.{ending} cannot be read: {os.strerror(code)}"
    ) as caught:
        open_stream(str(tmp_path / "a"))
    assert type(caught.value) is kind


def test_fingerprint_of_a_plain_corpus_follows_tokens_and_borders(tmp_path: Path):
    write_with_megatron(tmp_path / "a", [[[1, 2]], [[3]]])
    write_with_megatron(tmp_path / "b", [[[1, 2]], [[4]]])
    write_with_megatron(tmp_path / "c", [[[1], [2]], [[3]]])
    prints = {open_stream(str(tmp_path / name)).fingerprint for name in "abc"}
    assert len(prints) == 3


@pytest.mark.parametrize("ending", ["bin", "idx"])
def test_missing_file_is_named_with_the_command_that_makes_it(ending: str, tmp_path: Path):
    write(tmp_path / "a")
    (tmp_path / f"a.{ending}").unlink()
    with pytest.raises(DataError, match=f"a.{ending} does not exist.*data_pipeline prepare"):
        open_stream(str(tmp_path / "a"))


@pytest.mark.parametrize("kept", [0, 1, 20])
def test_truncated_tokens_are_named(kept: int, tmp_path: Path):
    write(tmp_path / "a")
    (tmp_path / "a.bin").write_bytes((tmp_path / "a.bin").read_bytes()[:kept])
    with pytest.raises(DataError, match=rf"a.bin has {kept} bytes, but .*a.idx describes 26"):
        open_stream(str(tmp_path / "a"))


def test_index_truncated_anywhere_is_named(tmp_path: Path):
    write(tmp_path / "a")
    whole = (tmp_path / "a.idx").read_bytes()
    for kept in range(len(whole)):
        (tmp_path / "a.idx").write_bytes(whole[:kept])
        with pytest.raises(DataError, match=r"a\.idx"):
            open_stream(str(tmp_path / "a"))


def test_index_of_another_corpus_is_named(tmp_path: Path):
    write(tmp_path / "a")
    write(tmp_path / "b", [[1]])
    (tmp_path / "a.idx").write_bytes((tmp_path / "b.idx").read_bytes())
    with pytest.raises(DataError, match="belongs to another corpus"):
        open_stream(str(tmp_path / "a"))


def test_index_and_tokens_of_another_corpus_do_not_pass_for_ours(tmp_path: Path):
    write(tmp_path / "a")
    write(tmp_path / "b", [[1]])
    for ending in ("bin", "idx"):
        (tmp_path / f"a.{ending}").write_bytes((tmp_path / f"b.{ending}").read_bytes())
    with pytest.raises(DataError, match=r"a.bin has 2 tokens, but .*a.json records 13"):
        open_stream(str(tmp_path / "a"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "is damaged"),
        (b"\xff\xfe", "is damaged"),
        (b"[1]", "is damaged"),
        (b'{"format_version": 1}', "is damaged"),
        (b'{"format_version": 99}', "format version 99; this program reads up to 1"),
    ],
)
def test_bad_description_is_named(content: bytes, said: str, tmp_path: Path):
    write(tmp_path / "a")
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DataError, match=f"a.json.* ?{said}"):
        open_stream(str(tmp_path / "a"))


def test_floating_point_corpus_is_refused(tmp_path: Path):
    write_with_megatron(tmp_path / "a", [[[1]]], np.float32)
    with pytest.raises(DataError, match="token type 7"):
        open_stream(str(tmp_path / "a"))


@given(
    st.lists(
        st.lists(st.lists(st.integers(0, 999), max_size=4), min_size=2, max_size=2),
        min_size=1,
        max_size=9,
    ),
    st.integers(1, 9),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_files_are_those_of_megatrons_builder(
    tmp_path: Path, documents: list[list[list[int]]], step: int
):
    """Also where a document has two sequences, and where documents come in blocks."""
    tokenizer = ByteTokenizer()
    tokenizer.vocab_size = 1000
    writer = ShardWriter(tmp_path / "a", tokenizer, "bytes", [], tmp_path / "making")
    for start in range(0, len(documents), step):
        block = documents[start : start + step]
        flat = [token for document in block for sequence in document for token in sequence]
        lengths = [[len(sequence) for sequence in document] for document in block]
        writer.append(np.array(flat, np.int64), np.array(lengths))
    writer.finish({})
    withdraw(tmp_path / "a")
    writer.publish()
    builder = IndexedDatasetBuilder(str(tmp_path / "m.bin"), dtype=np.uint16)
    for document in documents:
        for sequence in document:
            builder.add_item(torch.tensor(sequence, dtype=torch.int64))
        builder.end_document()
    builder.finalize(str(tmp_path / "m.idx"))
    for ending in ("bin", "idx"):
        assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"m.{ending}").read_bytes()


def test_checksums_are_of_blocks_however_the_tokens_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shard_writer, "BLOCK_BYTES", 10)
    write(tmp_path / "a")
    info = open_stream(str(tmp_path / "a")).info
    data = (tmp_path / "a.bin").read_bytes()
    assert info is not None
    assert info.block_crc32 == [
        binascii.crc32(data[:10]),
        binascii.crc32(data[10:20]),
        binascii.crc32(data[20:]),
    ]


def test_two_writers_of_one_shard_are_told_apart(tmp_path: Path):
    first = ShardWriter(tmp_path / "a", ByteTokenizer(), "bytes", [], tmp_path / "making")
    with pytest.raises(DataError, match="Another process is writing"):
        ShardWriter(tmp_path / "a", ByteTokenizer(), "bytes", [], tmp_path / "making")
    first.discard()
    write(tmp_path / "a")
    assert open_stream(str(tmp_path / "a")).num_documents == 4


def test_discarded_shard_leaves_nothing(tmp_path: Path):
    writer = ShardWriter(tmp_path / "a", ByteTokenizer(), "bytes", [], tmp_path / "making")
    writer.append(np.array([1, 2, EOS]), np.array([[3]]))
    writer.finish({})
    writer.discard()
    assert shard_bytes(tmp_path / "a") == {}
    assert not is_shard(str(tmp_path / "a"))
