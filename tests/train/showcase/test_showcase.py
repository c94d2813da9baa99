"""Examples of what was learnt: whole words hidden, made of token ids, for any vocabulary."""

import numpy as np
import pytest

from configs.objectives import BUILT_IN, Objective
from configs.schema import ObjectiveConfig
from data_pipeline.blanks import mip_segment
from data_pipeline.instructions import Record
from data_pipeline.mip_windows import mip_windows
from data_pipeline.packing import pack_row
from data_pipeline.tokenizer import Tokenizer, load_tokenizer
from train.showcase.sentences import (
    held_out_questions,
    held_out_sentences,
    hide_ends,
    hide_words,
    in_turn,
)

ENGLISH = "Return a copy of the string, or raise ValueError."
CHINESE = "\u5982\u679c\u6ca1\u6709\u6307\u5b9a\u6587\u4ef6\u3002"
LITERAL = "The texts [MASK] and [gMASK] stand for blanks of both kinds."


class Stream:
    """Documents in memory."""

    def __init__(self, tokens: list[int]) -> None:
        self._tokens = np.array(tokens)
        self.fingerprint = ""

    def __len__(self) -> int:
        return len(self._tokens)

    def read(self, start: int, stop: int) -> np.ndarray:
        return self._tokens[start:stop]


@pytest.fixture(scope="module", params=["bytes", "bpe"])
def tokenizer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Tokenizer:
    if request.param == "bytes":
        return load_tokenizer("bytes")
    path = tmp_path_factory.mktemp("bpe") / "tokenizer.json"
    from data_pipeline.preparation.train_tokenizer import train_tokenizer

    train_tokenizer(iter([ENGLISH, CHINESE, LITERAL] * 20), path, 300, "texts")
    return load_tokenizer(f"hf:{path}")


@pytest.mark.parametrize("text", [ENGLISH, LITERAL])
@pytest.mark.parametrize("seed", range(4))
def test_one_whole_word_is_hidden(tokenizer: Tokenizer, text: str, seed: int) -> None:
    (example,) = hide_words([tokenizer.encode(text)], tokenizer, 1, seed)
    # A marker in the text itself is text, not a blank.
    assert example.prompt.count("[MASK]") == 1 + text.count("[MASK]")
    if text == ENGLISH:
        before, _, after = example.prompt.partition("[MASK]")
        assert before + example.truth + after == text
        assert not before[-1:].isalnum() and not after[:1].isalnum()
    mask = tokenizer.special.mask
    assert example.row.context.count(mask) == 1
    assert example.row.context[example.row.blank_positions[0]] == mask
    assert len(example.truth) >= 3 and example.truth.isalnum()


def test_in_chinese_a_character_or_more_is_hidden(tokenizer: Tokenizer) -> None:
    (example,) = hide_words([tokenizer.encode(CHINESE)], tokenizer, 1, 0)
    assert example.prompt.replace("[MASK]", example.truth) == CHINESE
    assert example.truth.isalnum()


def test_sentences_that_fit_a_line_come_first(tokenizer: Tokenizer) -> None:
    long, short = tokenizer.encode(ENGLISH * 3), tokenizer.encode("A short one here.")
    (example,) = hide_words(in_turn([[long, short]], tokenizer), tokenizer, 1, 0)
    assert len(example.prompt) < 30
    assert hide_words([tokenizer.encode("()")], tokenizer, 5, 0) == []


def test_every_source_has_its_turn(tokenizer: Tokenizer) -> None:
    english, chinese = [tokenizer.encode(ENGLISH)] * 3, [tokenizer.encode(CHINESE)]
    shown = hide_words(in_turn([english, chinese, []], tokenizer), tokenizer, 2, 0)
    texts = [example.prompt.replace("[MASK]", example.truth) for example in shown]
    assert texts == [ENGLISH, CHINESE]


def test_an_end_is_hidden_from_a_word_on(tokenizer: Tokenizer) -> None:
    (example,) = hide_ends([tokenizer.encode(ENGLISH)], tokenizer, 2)
    assert example.prompt.endswith("[gMASK]")
    assert example.prompt.removesuffix("[gMASK]") + example.truth == ENGLISH
    assert example.truth[0].isalnum() and not example.prompt[: -len("[gMASK]")][-1:].isalnum()
    assert example.row.goes_on


def test_sentences_are_cut_in_both_languages() -> None:
    tokenizer = load_tokenizer("bytes")
    text = f"{ENGLISH} {CHINESE}{CHINESE}"
    stream = Stream([*tokenizer.encode(text), tokenizer.special.eos])
    found = held_out_sentences(stream, tokenizer, 10, 0)
    assert sorted(map(tokenizer.decode, found)) == sorted([ENGLISH, CHINESE, CHINESE])


def test_questions_are_asked_as_in_training() -> None:
    tokenizer = load_tokenizer("bytes")
    special = tokenizer.special
    prompt, target = (np.array(tokenizer.encode(text)) for text in ("2 or 3?", "yes"))
    objective = ObjectiveConfig(windows_per_row=1)
    windows = mip_windows([Record(prompt, target)], 32, objective, special)
    which = BUILT_IN.index(Objective.MIP)
    sample = pack_row(windows, 32, special.pad, Objective.MIP, 0, numbers=[which])
    (example,) = held_out_questions([sample, sample], which, tokenizer, 1)
    assert held_out_questions([sample], which - 1, tokenizer, 1) == []
    assert (example.prompt, example.truth) == ("2 or 3? [MASK]", "yes")
    segment = mip_segment(prompt, target, special, is_consecutive=True)
    example.row.spans[0] = target.tolist()
    for found, expected in zip(example.row.segment(special), segment, strict=True):
        assert found.tolist() == expected.tolist()
