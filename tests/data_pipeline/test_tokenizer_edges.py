"""Texts within a longer text, texts that become markers only when they are normalised, and files that draw lots."""

import io
import json
import os
import re
from pathlib import Path

import pytest
import sentencepiece
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from configs.errors import DataError
from data_pipeline.special_tokens import SPECIAL_TEXTS
from data_pipeline.tokenizer import Tokenizer, load_tokenizer
from tests.helpers.texts import sentencepiece_model, sentences

MARKERS = ("[MASK]", "[gMASK]", "<eop>")
WORDS = st.lists(
    st.sampled_from(["the", "cat", "sat", "on", "a", "red", "mat"]), min_size=2, max_size=6
)
FULL_WIDTH = {ord(c): ord(c) + 0xFEE0 for c in "".join((*SPECIAL_TEXTS.values(), "[sMASK]</s>"))}
PIECES = [*SPECIAL_TEXTS.values(), "[sMASK]", "</s>", "a", " ", "[", "MASK]", "[[MASK]", "模"]
TALK_OF_MARKERS = st.lists(
    st.one_of(
        st.sampled_from(PIECES),
        st.sampled_from([piece.translate(FULL_WIDTH) for piece in PIECES]),
    ),
    max_size=8,
).map("".join)


def hf_file(folder: Path, name: str, normalizer: object, pre_tokenizer: object) -> Path:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    is_bytes = isinstance(pre_tokenizer, pre_tokenizers.ByteLevel)
    tokenizer.decoder = decoders.ByteLevel() if is_bytes else decoders.Metaspace()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet()) if is_bytes else list("[]<>/MASKeop")
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(sentences(60), trainer)
    tokenizer.add_tokens(
        [tokenizers.AddedToken(text, special=False, normalized=True) for text in MARKERS]
    )
    tokenizer.save(str(folder / name))
    return folder / name


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("edges")
    made = {"bytes": "bytes"}
    for name, options in {
        "sp, prefix": {"add_dummy_prefix": True, "remove_extra_whitespaces": True},
        "sp, blanks": {"add_dummy_prefix": True, "remove_extra_whitespaces": False},
        "sp, plain": {"add_dummy_prefix": False, "remove_extra_whitespaces": False},
    }.items():
        path = folder / f"{name}.model"
        path.write_bytes(
            sentencepiece_model(
                user_defined_symbols=[*MARKERS, "[sMASK]"],
                vocab_size=360,
                byte_fallback=True,
                normalization_rule_name="nfkc",
                **options,
            )
        )
        made[name] = f"sp:{path}"
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=True)
    for name, normalizer, pre_tokenizer in (
        ("hf, byte level", normalizers.NFKC(), byte_level),
        ("hf, metaspace", normalizers.NFKC(), pre_tokenizers.Metaspace()),
        (
            "hf, prepend",
            normalizers.Sequence(
                [normalizers.NFKC(), normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
            ),
            None,
        ),
    ):
        made[name] = f"hf:{hf_file(folder, f'{name}.json', normalizer, pre_tokenizer)}"
    return made


KINDS = (
    "bytes",
    "sp, prefix",
    "sp, blanks",
    "sp, plain",
    "hf, byte level",
    "hf, metaspace",
    "hf, prepend",
)


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest, specs: dict[str, str]) -> Tokenizer:
    return load_tokenizer(specs[request.param])


@given(text=TALK_OF_MARKERS)
@settings(deadline=None, max_examples=40, derandomize=True)
def test_no_text_becomes_a_special_token_whatever_the_normaliser_does(
    tokenizer: Tokenizer, text: str
):
    special = {*tokenizer.special.to_dict().values(), tokenizer.smask}
    for ids in (
        tokenizer.encode(text),
        tokenizer.encode(text, is_continuation=True),
        *tokenizer.encode_batch([text]),
    ):
        assert special.isdisjoint(ids)
    assert tokenizer.encode_batch([text]) == [tokenizer.encode(text)]


def test_a_marker_in_a_text_is_kept_as_ordinary_text(tokenizer: Tokenizer):
    ids = tokenizer.encode("the [MASK] mat")
    assert re.sub("▁", " ", tokenizer.decode(ids)).strip() == "the [MASK] mat"


@given(words=WORDS, data=st.data())
@settings(deadline=None, max_examples=25, derandomize=True)
def test_text_behind_a_blank_has_the_tokens_that_it_has_within_the_text(
    tokenizer: Tokenizer, words: list[str], data: st.DataObject
):
    cut = data.draw(st.integers(1, len(words) - 1))
    before, after = " ".join(words[:cut]), " " + " ".join(words[cut:])
    continuing = tokenizer.encode(after, is_continuation=True)
    whole = tokenizer.encode(before + after)
    if "prepend" not in tokenizer.spec:  # it has no words: a merge may go across the cut
        assert tokenizer.encode(before) + continuing == whole
    assert tokenizer.decode(tokenizer.encode(before)).lstrip() == before
    assert tokenizer.decode_span(continuing, follows=True) == after


def test_text_at_a_beginning_is_decoded_as_it_was_typed(tokenizer: Tokenizer):
    assert tokenizer.decode_span(tokenizer.encode("the cat"), follows=False).strip() == "the cat"
    mask = tokenizer.special.mask
    ids = [*tokenizer.encode("the"), mask, *tokenizer.encode(" sat", is_continuation=True)]
    assert tokenizer.decode(ids).lstrip() == "the[MASK] sat"


def test_dropout_of_a_file_is_switched_off_with_a_word(specs: dict[str, str], tmp_path: Path):
    state = json.loads(Path(specs["hf, byte level"].removeprefix("hf:")).read_text())
    state["model"]["dropout"] = 0.5
    path = tmp_path / "dropout.json"
    path.write_text(json.dumps(state))
    tokenizer = load_tokenizer(f"hf:{path}")
    text = " ".join(sentences(5))
    assert len({tuple(tokenizer.encode(text)) for _ in range(5)}) == 1
    assert tokenizer.encode(text) == load_tokenizer(specs["hf, byte level"]).encode(text)
    assert len(tokenizer.notes) == 1 and "dropout of 0.5" in tokenizer.notes[0]
    assert load_tokenizer(specs["hf, byte level"]).notes == []


def test_samples_with_which_a_model_tests_itself_do_not_keep_it_from_loading(tmp_path: Path):
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences(50)),
        model_writer=written,
        vocab_size=60,
        hard_vocab_limit=False,
        self_test_sample_size=3,
        minloglevel=2,
    )
    path = tmp_path / "tested.model"
    path.write_bytes(written.getvalue())
    tokenizer = load_tokenizer(f"sp:{path}")
    ids = tokenizer.encode(" sat", is_continuation=True)
    assert tokenizer.decode_span(ids, follows=True) == " sat"


@given(
    name=st.sampled_from(["sp, prefix", "hf, metaspace"]),
    cut=st.floats(0, 1),
    put=st.binary(max_size=4),
    drop=st.integers(0, 4),
)
@settings(
    deadline=None,
    max_examples=60,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_a_damaged_file_is_one_message_or_a_tokenizer(
    specs: dict[str, str], tmp_path: Path, name: str, cut: float, put: bytes, drop: int
):
    kind, _, file = specs[name].partition(":")
    content = Path(file).read_bytes()
    at = int(cut * len(content))
    path = tmp_path / "damaged"
    path.write_bytes(content[:at] + put + content[at + drop :])
    try:
        tokenizer = load_tokenizer(f"{kind}:{path}")
    except DataError:
        return
    special = {*tokenizer.special.to_dict().values(), tokenizer.smask}
    assert special.isdisjoint(tokenizer.encode("the [MASK] cat"))


@pytest.mark.parametrize("content", ["17", "[]", "null", "[" * 100_000, '{"model": 3}', "\x00"])
def test_what_is_no_tokenizer_is_one_message(content: str, tmp_path: Path):
    path = tmp_path / "other"
    path.write_text(content)
    for kind in ("hf", "sp", "icetk"):
        with pytest.raises(DataError, match=str(path)):
            load_tokenizer(f"{kind}:{path}")


def test_a_pipe_is_no_tokenizer(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="pipe"):
        load_tokenizer(f"sp:{tmp_path}/pipe")
