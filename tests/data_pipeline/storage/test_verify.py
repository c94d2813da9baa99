"""Damage is found and named."""

import json
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.storage import shard_writer
from data_pipeline.storage.verify import problems
from tests.helpers.shards import write, write_with_megatron


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_writer, "BLOCK_BYTES", 10)


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def test_whole_shards_have_no_problems(tmp_path: Path):
    write(tmp_path / "a")
    write_with_megatron(tmp_path / "m", [[[1, 2], [3]], [[4]]])
    assert problems(str(tmp_path / "a")) == []
    assert problems(str(tmp_path / "m")) == []
    assert problems(str(tmp_path / "m"), vocab_size=5) == []


@pytest.mark.parametrize(
    ("offset", "block"), [(0, "0 to 10"), (9, "0 to 10"), (10, "10 to 20"), (25, "20 to 26")]
)
def test_flipped_bit_is_named_by_file_and_offset(offset: int, block: str, tmp_path: Path):
    write(tmp_path / "a")
    flip(tmp_path / "a.bin", offset)
    found = problems(str(tmp_path / "a"))
    assert found[0].startswith(f"{tmp_path}/a.bin is damaged in bytes {block}.")


def test_every_flipped_bit_of_the_index_is_found(tmp_path: Path):
    write(tmp_path / "a")
    for offset in range((tmp_path / "a.idx").stat().st_size):
        flip(tmp_path / "a.idx", offset)
        assert "a.idx" in problems(str(tmp_path / "a"))[0], offset
        flip(tmp_path / "a.idx", offset)


def test_index_of_a_plain_corpus_must_be_in_order(tmp_path: Path):
    write_with_megatron(tmp_path / "m", [[[1, 2]], [[3]], [[4]]])
    start_of_pointers, start_of_borders = 34 + 3 * 4, 34 + 3 * 12
    for offset in (start_of_pointers + 8, start_of_borders, start_of_borders + 3 * 8):
        flip(tmp_path / "m.idx", offset)
        assert f"{tmp_path}/m.idx is damaged" in problems(str(tmp_path / "m"))[0], offset
        flip(tmp_path / "m.idx", offset)
    assert problems(str(tmp_path / "m")) == []


def test_id_beyond_the_vocabulary_is_named_by_token_and_byte(tmp_path: Path):
    write_with_megatron(tmp_path / "m", [[[1, 2, 3]], [[4, 700]]], np.int32)
    assert problems(str(tmp_path / "m"), vocab_size=700) == [
        f"{tmp_path}/m.bin has token id 700 at token 4 (byte 16); the vocabulary has 700."
    ]
    write_with_megatron(tmp_path / "n", [[[1, -1]]], np.int32)
    assert "token id -1 at token 1" in problems(str(tmp_path / "n"), vocab_size=700)[0]


def test_vocabulary_of_our_shards_is_known(tmp_path: Path):
    write(tmp_path / "a")
    description = json.loads((tmp_path / "a.json").read_text())
    (tmp_path / "a.json").write_text(json.dumps({**description, "vocab_size": 260}))
    assert "token id 260 at token 3 (byte 6)" in problems(str(tmp_path / "a"))[0]


def test_what_cannot_be_opened_is_one_problem(tmp_path: Path):
    assert len(problems(str(tmp_path / "missing"))) == 1
    write(tmp_path / "a")
    (tmp_path / "a.bin").write_bytes(b"")
    assert "truncated" in problems(str(tmp_path / "a"))[0]
