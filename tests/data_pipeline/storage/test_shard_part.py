"""A run of documents of a shard: which tokens it has, what is held out, and ids that no embedding has."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.errors import DataError
from data_pipeline.storage.shard_part import ShardPart, hold_out_tail, unknown_id
from data_pipeline.storage.shards import open_stream
from tests.helpers.shards import write, write_with_megatron


def part(prefix: Path, vocab_size: int = 100, documents: tuple[int, int] | None = None):
    return ShardPart(open_stream(str(prefix)), vocab_size, documents)


def test_part_has_the_tokens_of_its_documents_and_a_fingerprint_of_its_own(tmp_path: Path):
    write_with_megatron(tmp_path / "m", [[[1, 2], [3]], [], [[4]], [[5, 6]]])
    whole, middle, end = (part(tmp_path / "m", documents=run) for run in (None, (1, 3), (3, 4)))
    assert whole.read(0, 6).tolist() == [1, 2, 3, 4, 5, 6]
    assert (len(middle), middle.read(0, 9).tolist()) == (1, [4])
    assert (len(end), end.read(1, 2).tolist()) == (2, [6])
    assert whole.fingerprint == open_stream(str(tmp_path / "m")).fingerprint
    assert len({whole.fingerprint, middle.fingerprint, end.fingerprint}) == 3


@given(
    st.lists(st.lists(st.integers(0, 9), max_size=9), min_size=1, max_size=12),
    st.floats(0.01, 0.99),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_held_out_tail_divides_the_corpus_near_the_share(tmp_path: Path, documents, share: float):
    write_with_megatron(tmp_path / "m", [[document] for document in documents])
    lengths = [len(document) for document in documents]
    if np.count_nonzero(lengths) < 2:
        return
    shard = open_stream(str(tmp_path / "m"))
    kept, held = (part(tmp_path / "m", documents=run) for run in hold_out_tail(shard, share))
    flat = [token for document in documents for token in document]
    assert kept.read(0, len(kept)).tolist() + held.read(0, len(held)).tolist() == flat
    assert len(kept) > 0
    assert len(held) > 0
    assert abs(len(held) - share * len(flat)) <= max(lengths)


def test_one_document_cannot_be_divided(tmp_path: Path):
    write_with_megatron(tmp_path / "m", [[], [[1, 2], [3]], []])
    with pytest.raises(DataError, match=r"only one document.*data.valid_paths="):
        hold_out_tail(open_stream(str(tmp_path / "m")), 0.05)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.int64])
def test_unknown_ids_are_found_in_every_type(dtype: type[np.integer]):
    assert unknown_id(np.array([], dtype), 50) is None
    assert unknown_id(np.array([0, 49], dtype), 50) is None
    assert unknown_id(np.array([0, 49, 50, 7], dtype), 50) == 2
    if np.issubdtype(dtype, np.signedinteger):
        assert unknown_id(np.array([3, -1, 60], dtype), 50) == 1


def test_unknown_id_is_named_by_file_token_and_byte_where_it_is_read(tmp_path: Path):
    write_with_megatron(tmp_path / "m", [[[1, 2]], [[3, 700]], [[4]]])
    source = part(tmp_path / "m", documents=(1, 3))
    assert source.read(2, 3).tolist() == [4]
    with pytest.raises(DataError) as error:
        source.read(0, 3)
    assert str(error.value).startswith(
        f"{tmp_path}/m.bin has token id 700 at token 3 (byte 12); the vocabulary has 100."
    )


def test_documents_that_do_not_end_with_eos_are_found_in_a_plain_corpus(tmp_path: Path):
    with_end = [[[1, 2], [3, 9]], [], [[4], [9]], [[9]]]
    write_with_megatron(tmp_path / "good", with_end)
    part(tmp_path / "good").check_ends(9)
    with pytest.raises(
        DataError, match=r"eos \(8\), but document [023] of .*good ends with token 9"
    ):
        part(tmp_path / "good").check_ends(8)  # their eod is another id
    write_with_megatron(tmp_path / "bad", [*with_end, [[9, 7]]])
    part(tmp_path / "bad", documents=(0, 4)).check_ends(9)
    with pytest.raises(DataError, match="document 4 of .*bad ends with token 7.*--append-eod"):
        part(tmp_path / "bad").check_ends(9)


def test_ends_of_our_own_shards_are_known(tmp_path: Path):
    write(tmp_path / "a", [[1, 2], [3]])
    part(tmp_path / "a").check_ends(7)
