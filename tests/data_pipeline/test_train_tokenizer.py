"""Training a tokenizer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from configs.errors import DataError
from data_pipeline.tokenizer import load_tokenizer
from data_pipeline.train_tokenizer import train_tokenizer
from tests.helpers.texts import sentences

_TRAIN = """
import sys
from pathlib import Path
from data_pipeline.train_tokenizer import train_tokenizer
from tests.helpers.texts import sentences
train_tokenizer(sentences(300), Path(sys.argv[1]), 350)
"""


def test_same_texts_give_the_same_file_with_any_number_of_threads(tmp_path: Path):
    train_tokenizer(sentences(300), tmp_path / "here.json", 350)
    environment = {**os.environ, "RAYON_NUM_THREADS": "1", "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", _TRAIN, str(tmp_path / "there.json")]
    subprocess.run(command, check=True, env=environment, cwd=Path(__file__).parents[2])
    assert (tmp_path / "here.json").read_bytes() == (tmp_path / "there.json").read_bytes()


def test_frequent_words_become_tokens(tmp_path: Path):
    size = train_tokenizer(sentences(300), tmp_path / "t.json", 350)
    tokenizer = load_tokenizer(f"hf:{tmp_path / 't.json'}")
    assert tokenizer.vocab_size == size <= 350
    assert len(tokenizer.encode(" quiet hills")) == 2


def test_vocabulary_too_small_for_bytes_says_the_smallest(tmp_path: Path):
    with pytest.raises(DataError, match="model.vocab_size=262"):
        train_tokenizer(sentences(5), tmp_path / "t.json", 261)
    assert train_tokenizer(sentences(5), tmp_path / "t.json", 262) == 262


@pytest.mark.parametrize("texts", [[], ["", " \n\t"]])
def test_corpus_without_text_is_refused(texts: list[str], tmp_path: Path):
    with pytest.raises(DataError, match="no text"):
        train_tokenizer(texts, tmp_path / "t.json", 300)
    assert list(tmp_path.iterdir()) == []


def test_unwritable_output_is_named(tmp_path: Path):
    (tmp_path / "t.json").mkdir()
    with pytest.raises(DataError, match="t.json cannot be written"):
        train_tokenizer(sentences(5), tmp_path / "t.json", 300)
