"""GLM-130B's ids, with a stand-in for its vocabulary file: a small model filled up to 130,000 pieces."""

from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import DataError
from data_pipeline import icetk
from data_pipeline.tokenizer import Tokenizer, load_tokenizer
from tests.helpers.texts import sentencepiece_model

_UNUSED = 5


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # The real file has <n> as a piece of its own.
    model = sentencepiece_model(user_defined_symbols=["<n>"])
    size = sentencepiece.SentencePieceProcessor(model_proto=model).get_piece_size()
    filling = [icetk.serialised_piece(f"<fill {i}>", _UNUSED) for i in range(size, 130_000)]
    path = tmp_path_factory.mktemp("icetk") / "ice_text.model"
    path.write_bytes(model + b"".join(filling))
    return path


@pytest.fixture(scope="module")
def tokenizer(model_file: Path) -> Tokenizer:
    return load_tokenizer(f"icetk:{model_file}")


def test_special_tokens_have_the_ids_of_the_released_weights(tokenizer: Tokenizer):
    assert tokenizer.special.to_dict() == {
        "mask": 150000,
        "gmask": 150001,
        "sop": 150004,
        "eop": 150005,
        "eos": 20002,
        "pad": 0,
    }
    assert tokenizer.vocab_size == 150088


def test_whitespace_has_the_ids_of_the_released_weights(tokenizer: Tokenizer):
    # <t> is 150008, blank_2 150009, ..., blank_80 150087.
    assert 150008 in tokenizer.encode("the\tcat")
    assert 150009 in tokenizer.encode("the  cat")
    assert 150012 in tokenizer.encode("the     cat")
    assert 150087 in tokenizer.encode("the" + " " * 80 + "cat")
    assert [i for i in tokenizer.encode("cat" + " " * 83) if i >= 150000] == [150087, 150010]


def test_text_ids_are_shifted_by_the_image_tokens(tokenizer: Tokenizer, model_file: Path):
    plain = sentencepiece.SentencePieceProcessor(model_file=str(model_file))
    text = "the cat sat on a mat"
    assert tokenizer.encode(text) == [token + 20000 for token in plain.encode(text)]
    assert tokenizer.encode("cat\n")[-1] == 20000 + plain.piece_to_id("<n>")


def test_no_text_produces_special_tokens(tokenizer: Tokenizer):
    ids = tokenizer.encode("a [MASK] b [gMASK] c <sop> d <eop> e <eod> f </s> g")
    assert set(ids).isdisjoint(tokenizer.special.to_dict().values())
    assert all(20000 <= token < 150000 for token in ids)


def test_code_comes_back_with_its_layout(tokenizer: Tokenizer):
    text = "while a:\n\tthe cat\n        sat  on   mats\n\n"
    known = tokenizer.decode(tokenizer.encode(text)).replace(" \N{DOUBLE QUESTION MARK} ", ":")
    assert known == text
    after = tokenizer.encode("mat", is_continuation=True)
    ids = [*tokenizer.encode("the cat"), 150000, *after, 20002, 0]
    assert tokenizer.decode(ids) == "the cat[MASK]mat<eos><pad>"


@given(st.text(" \t\nab", max_size=200))
def test_marked_whitespace_comes_back(text: str):
    assert icetk.unmark_whitespace(icetk.mark_whitespace(text)) == text
    assert "  " not in icetk.mark_whitespace(text)


def test_other_sentencepiece_models_are_refused(tmp_path: Path):
    small = tmp_path / "small.model"
    small.write_bytes(sentencepiece_model())
    with pytest.raises(DataError, match=f"has 130,000. Use sp:{small}"):
        load_tokenizer(f"icetk:{small}")
