"""Text to ids and back, through every kind of vocabulary."""

from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import DataError
from data_pipeline.preparation.train_tokenizer import train_tokenizer
from data_pipeline.special_tokens import SPECIAL_TEXTS
from data_pipeline.tokenizer import keep_tokenizer, load_tokenizer, spec_in
from tests.helpers.texts import sentencepiece_model, sentences

TEXT = "the cat sat on a red mat"
SPEAKS_OF_MARKERS = "a [MASK] b <eos> c [gMASK] d <sop><eop> e <pad> f </s> g <|endoftext|>"


@pytest.fixture(scope="module")
def bpe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bpe") / "tokenizer.json"
    train_tokenizer(sentences(200), path, 400)
    return path


@pytest.fixture(scope="module")
def sentencepiece_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sp") / "small.model"
    path.write_bytes(sentencepiece_model())
    return path


@given(st.text(st.characters(exclude_categories=["Cs"])))
@settings(deadline=None)
def test_bytes_come_back_whatever_the_text(text: str):
    tokenizer = load_tokenizer("bytes")
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert set(ids).isdisjoint(tokenizer.special.to_dict().values())


def test_bytes_have_literal_ids():
    tokenizer = load_tokenizer("bytes")
    assert tokenizer.encode("Aä") == [65, 0xC3, 0xA4]
    assert tokenizer.special.to_dict() == {
        "mask": 256,
        "gmask": 257,
        "sop": 258,
        "eop": 259,
        "eos": 260,
        "pad": 261,
    }
    assert tokenizer.vocab_size == 262
    assert tokenizer.decode([72, 256, 105, 260]) == "H[MASK]i<eos>"


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
@settings(deadline=None)
def test_bpe_comes_back_whatever_the_text(bpe_file: Path, text: str):
    tokenizer = load_tokenizer(f"hf:{bpe_file}")
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(0 <= token < tokenizer.vocab_size for token in ids)


def test_text_that_speaks_of_markers_gets_no_special_token(bpe_file: Path, tmp_path: Path):
    user_defined = tmp_path / "user.model"
    user_defined.write_bytes(sentencepiece_model(user_defined_symbols=["[MASK]", "<sop>", "</s>x"]))
    plain_word = tmp_path / "plain.json"
    tokenizer = tokenizers.Tokenizer.from_file(str(bpe_file))
    tokenizer.add_tokens(["<|endoftext|>"])  # an added word that is not marked special
    tokenizer.save(str(plain_word))
    for spec in ("bytes", f"hf:{bpe_file}", f"hf:{plain_word}", f"sp:{user_defined}"):
        loaded = load_tokenizer(spec)
        special = set(loaded.special.to_dict().values())
        assert special.isdisjoint(loaded.encode(SPEAKS_OF_MARKERS)), spec
        assert special.isdisjoint(loaded.encode_batch([SPEAKS_OF_MARKERS])[0]), spec


def test_batches_encode_as_single_texts(bpe_file: Path, sentencepiece_file: Path):
    texts = [*sentences(20), ""]
    for spec in ("bytes", f"hf:{bpe_file}", f"sp:{sentencepiece_file}"):
        tokenizer = load_tokenizer(spec)
        assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]
        assert tokenizer.encode_batch([]) == []


def test_special_tokens_are_written_by_name(bpe_file: Path, sentencepiece_file: Path):
    for spec in ("bytes", f"hf:{bpe_file}", f"sp:{sentencepiece_file}"):
        tokenizer = load_tokenizer(spec)
        special = tokenizer.special
        ids = [*tokenizer.encode(TEXT), special.gmask, special.sop, *tokenizer.encode(TEXT)]
        assert tokenizer.decode([*ids, special.eop]) == f"{TEXT}[gMASK]<sop>{TEXT}<eop>"


def test_missing_special_tokens_follow_a_foreign_vocabulary(sentencepiece_file: Path):
    tokenizer = load_tokenizer(f"sp:{sentencepiece_file}")
    first = tokenizer.vocab_size - 5
    # SentencePiece brings its own end of text, </s>; the other five are new.
    assert tokenizer.special.to_dict() == {
        "mask": first,
        "gmask": first + 1,
        "sop": first + 2,
        "eop": first + 3,
        "eos": 2,
        "pad": first + 4,
    }


def test_special_tokens_of_a_vocabulary_keep_their_ids(bpe_file: Path):
    tokenizer = load_tokenizer(f"hf:{bpe_file}")
    assert list(tokenizer.special.to_dict().values()) == [0, 1, 2, 3, 4, 5]
    # 256 bytes, 6 specials, and every merge there was.
    assert 262 < tokenizer.vocab_size <= 400


def test_new_special_tokens_lie_behind_gaps_in_the_vocabulary(tmp_path: Path):
    words = {"a": 0, "b": 7, "<unk>": 3}
    model = tokenizers.models.WordLevel(words, unk_token="<unk>")
    tokenizers.Tokenizer(model).save(str(tmp_path / "gaps.json"))
    tokenizer = load_tokenizer(f"hf:{tmp_path / 'gaps.json'}")
    assert sorted(tokenizer.special.to_dict().values()) == list(range(8, 14))
    assert tokenizer.vocab_size == 14


def test_truncation_and_padding_of_a_published_file_are_ignored(bpe_file: Path, tmp_path: Path):
    published = tokenizers.Tokenizer.from_file(str(bpe_file))
    published.enable_truncation(4)
    published.enable_padding(length=8)
    published.save(str(tmp_path / "cut.json"))
    expected = load_tokenizer(f"hf:{bpe_file}").encode(TEXT)
    assert len(expected) > 4
    assert load_tokenizer(f"hf:{tmp_path / 'cut.json'}").encode(TEXT) == expected
    assert load_tokenizer(f"hf:{tmp_path / 'cut.json'}").encode_batch([TEXT]) == [expected]


def test_fingerprint_follows_the_content_and_not_the_place(bpe_file: Path, tmp_path: Path):
    copy = tmp_path / "copy.json"
    copy.write_bytes(bpe_file.read_bytes())
    original = load_tokenizer(f"hf:{bpe_file}").fingerprint
    assert load_tokenizer(f"hf:{copy}").fingerprint == original
    train_tokenizer(sentences(200, seed=1), copy, 400)
    assert load_tokenizer(f"hf:{copy}").fingerprint != original


def test_tokenizer_is_kept_beside_what_it_made(bpe_file: Path, tmp_path: Path):
    keep_tokenizer(f"hf:{bpe_file}", tmp_path)
    keep_tokenizer(f"hf:{tmp_path / bpe_file.name}", tmp_path)  # the kept one itself
    assert (tmp_path / "spec.txt").read_text() == "hf:tokenizer.json\n"
    assert (tmp_path / "tokenizer.json").read_bytes() == bpe_file.read_bytes()
    keep_tokenizer("bytes", tmp_path)
    assert (tmp_path / "spec.txt").read_text() == "bytes\n"
    assert spec_in("sp:/a/b.model", "kept") == "sp:kept/b.model"


@pytest.mark.parametrize("spec", ["gpt2", "hf:", "hf", "tiktoken:FILE", ""])
def test_unknown_spec_names_the_known_ones(spec: str):
    with pytest.raises(DataError, match="hf:FILE, sp:FILE, icetk:FILE or bytes"):
        load_tokenizer(spec)


@pytest.mark.parametrize("kind", ["hf", "sp", "icetk"])
def test_bad_tokenizer_files_are_named(kind: str, tmp_path: Path):
    missing = tmp_path / "missing"
    with pytest.raises(DataError, match=f"{missing} does not exist"):
        load_tokenizer(f"{kind}:{missing}")
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"\xff\x00 nothing of the kind")
    with pytest.raises(DataError, match=f"{garbage} is not a"):
        load_tokenizer(f"{kind}:{garbage}")


def test_all_special_texts_are_different():
    assert len(set(SPECIAL_TEXTS.values())) == 6
