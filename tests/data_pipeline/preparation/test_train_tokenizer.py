"""Training a tokenizer."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from configs.errors import DataError
from data_pipeline.preparation.train_tokenizer import (
    KINDS,
    _pieces,
    sampled,
    train_tokenizer,
)
from data_pipeline.tokenizer import load_tokenizer
from tests.helpers.places import ROOT
from tests.helpers.texts import sentences

_TRAIN = """
import sys
from pathlib import Path
from data_pipeline.preparation.train_tokenizer import KINDS, sampled, train_tokenizer
from tests.helpers.texts import sentences
train_tokenizer(sentences(300), Path(sys.argv[1]), 400, kind=sys.argv[2])
"""

CHINESE = "\u81ea\u56de\u5f52\u586b\u7a7a\u662f\u4e00\u79cd\u9884\u8bad\u7ec3\u76ee\u6807"


@pytest.mark.parametrize("kind", KINDS)
def test_same_texts_give_the_same_file_with_any_number_of_threads(kind: str, tmp_path: Path):
    train_tokenizer(sentences(300), tmp_path / "here", 400, kind=kind)
    environment = {**os.environ, "RAYON_NUM_THREADS": "1", "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", _TRAIN, str(tmp_path / "there"), kind]
    one_core = {min(os.sched_getaffinity(0))}
    subprocess.run(
        command,
        check=True,
        env=environment,
        cwd=ROOT,
        preexec_fn=lambda: os.sched_setaffinity(0, one_core),
    )
    assert (tmp_path / "here").read_bytes() == (tmp_path / "there").read_bytes()


@pytest.mark.parametrize(("kind", "spec"), [("bpe", "hf"), ("unigram", "sp")])
def test_text_of_two_languages_comes_back_and_frequent_words_are_tokens(
    kind: str, spec: str, tmp_path: Path
):
    mixed = [f"{text} {CHINESE}GLM{CHINESE}" for text in sentences(300)]
    size = train_tokenizer(mixed, tmp_path / "t", 450, kind=kind)
    tokenizer = load_tokenizer(f"{spec}:{tmp_path / 't'}")
    assert tokenizer.vocab_size == size <= 450
    assert len(tokenizer.encode(CHINESE)) <= 3
    assert len(tokenizer.encode(" quiet hills")) <= 3
    # A name in other letters is no part of a Chinese word.
    assert tokenizer.encode(f"{CHINESE}GLM")[: len(tokenizer.encode(CHINESE))] == tokenizer.encode(
        CHINESE
    )
    unseen = "def f(x):\n\treturn  [x]  # 12345 \u00e9 \u00df \U0001f600 [MASK] <sop>\n\n"
    assert tokenizer.decode(tokenizer.encode(unseen)) == unseen
    assert set(tokenizer.encode(unseen)).isdisjoint(tokenizer.special.to_dict().values())
    assert max(tokenizer.special.to_dict().values()) < size


def test_unigram_vocabulary_too_small_for_the_characters_says_how_many(tmp_path: Path):
    with pytest.raises(DataError, match=r"--vocab-size \d+ or more") as told:
        train_tokenizer(sentences(50), tmp_path / "t", 262, kind="unigram")
    wanted = int(str(told.value).split("--vocab-size ")[1].split()[0])
    assert train_tokenizer(sentences(50), tmp_path / "t", wanted, kind="unigram") == wanted


def test_a_smaller_vocabulary_than_asked_for_is_said(tmp_path: Path) -> None:
    told: list[str] = []
    size = train_tokenizer(sentences(50), tmp_path / "t", 9000, report=told.append)
    assert size < 9000 and f"has {size:,} tokens instead of 9,000" in told[-1]
    told.clear()
    train_tokenizer(sentences(50), tmp_path / "t", 300, report=told.append)
    assert len(told) == 1 and told[0].startswith("Training")


def test_sample_takes_as_much_of_each_corpus():
    corpora = [iter(["a" * 7] * 10), iter(["b" * 100]), iter(["c"])]
    assert list(sampled(corpora, 60)) == ["a" * 7, "a" * 7, "a" * 6, "b" * 20, "c"]


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


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_vocabulary_beyond_any_token_id_is_refused(kind: str, tmp_path: Path):
    with pytest.raises(DataError, match="Try --vocab-size 2147483647 or less"):
        train_tokenizer(sentences(5), tmp_path / "t", 9_999_999_999_999, kind=kind)


def test_words_that_no_language_has_are_learnt_from_in_pieces():
    for filler in (" ", "a", "\n", "模"):
        text = f"x{filler * 5000}y and more words"
        pieces = list(_pieces([text]))
        assert "".join(pieces) == text
        words = [word for piece in pieces for word in re.findall(r"\s+|\S+", piece)]
        assert max(map(len, words)) <= 2000
    assert list(_pieces(["usual words", ""])) == ["usual words", ""]


def test_a_document_of_blanks_takes_no_time(tmp_path: Path):
    texts = [*sentences(20), "x" + " " * 400_000 + "y", "a" * 1_000_000]
    assert train_tokenizer(texts, tmp_path / "tokenizer.json", 300) == 300
