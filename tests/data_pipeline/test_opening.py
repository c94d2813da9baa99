"""What is refused when the data set of a configuration is opened."""

from pathlib import Path

import numpy as np
import pytest

from configs.errors import DataError
from configs.load import load_config
from data_pipeline.corpus import Corpora, CorpusShard
from data_pipeline.opening import open_dataset
from data_pipeline.tokenizer import load_tokenizer
from tests.helpers.shards import write_with_megatron

BYTES = load_tokenizer("bytes")
SMALL = ["model.hidden_size=64", "model.num_heads=2", "model.seq_length=128"]


def opened(prefix: Path, documents: str, *, is_validation: bool = False):
    shards = [CorpusShard("m", str(prefix), None)]
    words = [*SMALL, f"objective.documents={documents}", "data.tokenizer=bytes"]
    corpora = Corpora(shards, shards, "bytes")
    return open_dataset(load_config(words), corpora, BYTES, is_validation=is_validation)


@pytest.mark.parametrize("is_validation", [False, True])
def test_isolating_needs_documents_that_end_with_eos(tmp_path: Path, is_validation: bool):
    documents = [[[number % 256] * (5 + number % 20)] for number in range(2000)]
    write_with_megatron(tmp_path / "without", documents, np.uint16)
    assert opened(tmp_path / "without", "crossed", is_validation=is_validation)[0]
    with pytest.raises(DataError, match="objective.documents=isolated needs"):
        opened(tmp_path / "without", "isolated", is_validation=is_validation)
    ended = [[[*text, BYTES.special.eos]] for (text,) in documents]
    write_with_megatron(tmp_path / "with", ended, np.uint16)
    dataset = opened(tmp_path / "with", "isolated", is_validation=is_validation)
    for sample in (dataset[index] for index in range(20)):
        for number in range(1, sample.segment_ids.max() + 1):
            bytes_seen = sample.tokens[(sample.segment_ids == number) & (sample.tokens < 256)]
            assert len(set(bytes_seen.tolist())) <= 1, "a segment reaches into another document"
