"""Which documents repeat an earlier one."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_pipeline.preparation import duplicates
from data_pipeline.preparation.duplicates import digest_of, repetitions
from data_pipeline.preparation.make_part import Settings
from data_pipeline.preparation.prepare import prepare
from data_pipeline.storage.shards import open_stream
from data_pipeline.tokenizer import ByteTokenizer
from tests.helpers.texts import sentences, write_jsonl


@given(st.lists(st.integers(0, 30), max_size=80), st.integers(1, 20))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_all_but_the_first_of_each_repeat(tmp_path: Path, numbers: list[int], step: int):
    digests = np.array([digest_of(str(number)) for number in numbers], "V16")
    blocks = (digests[start : start + step] for start in range(0, len(digests), step))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "_DOCUMENTS_PER_FILE", 7)
        found = repetitions(blocks, len(numbers), tmp_path)
    assert found.tolist() == [number in numbers[:place] for place, number in enumerate(numbers)]
    assert list(tmp_path.iterdir()) == []


def test_half_a_hash_makes_no_repetition(tmp_path: Path):
    entries = [bytes(8) + b"a" * 8, bytes(8) + b"b" * 8, b"a" * 8 + bytes(8), bytes(8) + b"a" * 8]
    found = repetitions([np.array(entries, "V16")], 4, tmp_path)
    assert found.tolist() == [False, False, False, True]


def test_white_space_and_composition_make_no_difference():
    assert digest_of(" a\n b\t") == digest_of("a b")
    assert digest_of("e\u0301") == digest_of("\u00e9")
    assert digest_of("a b") != digest_of("ab")
    assert digest_of("A") != digest_of("a")


def test_first_document_stays_and_the_others_are_counted(tmp_path: Path):
    texts = sentences(30)
    jsonl = write_jsonl(tmp_path / "here.jsonl", [*texts, *texts[::-1], f" {texts[3]}\n"])
    done = prepare([str(jsonl)], tmp_path / "a", ByteTokenizer(), 0.0, Settings(deduplicate=True))
    assert done.left_out == {"repeated": 31}
    stream = open_stream(str(tmp_path / "a"))
    tokens = stream.read(0, len(stream)).tolist()
    assert tokens == [token for text in texts for token in (*text.encode(), 260)]
    assert stream.info is not None
    assert stream.info.left_out == {"repeated": 31}
