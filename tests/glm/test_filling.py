"""Spans and guesses of a model whose probabilities are known: each depends on the token before alone."""

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import glm.filling
from data_pipeline.special_tokens import SpecialTokens
from glm.filling import Sampling, Trained, choose
from glm.prompt import Blanks, Objectives
from tests.helpers.tiny import FIRST_WORD, SPECIAL

PIECES = [" str", " list", "ing", ".", " ", "x", " of"]
VOCAB_SIZE = FIRST_WORD + len(PIECES)
STR, LIST, ING, DOT, BLANK, X, OF = range(FIRST_WORD, VOCAB_SIZE)
ROWS = 16  # of the embedding: three are beyond the vocabulary

# Probabilities of what follows each token; SPECIAL.sop begins a span.
CHAIN: dict[int, dict[int, float]] = {
    SPECIAL.sop: {STR: 0.4, LIST: 0.2, BLANK: 0.1, DOT: 0.2, SPECIAL.eop: 0.1},
    STR: {ING: 0.95, SPECIAL.eop: 0.05},
    LIST: {SPECIAL.eop: 0.5, OF: 0.3, ING: 0.2},
    ING: {SPECIAL.eop: 0.6, DOT: 0.4},
    DOT: {SPECIAL.eop: 1.0},
    BLANK: {X: 1.0},
    X: {SPECIAL.eop: 1.0},
    OF: {SPECIAL.eop: 1.0},
}


class Pieces:
    """A tokenizer of few pieces."""

    special = SPECIAL
    vocab_size = VOCAB_SIZE

    def decode(self, ids: Sequence[int]) -> str:
        return "".join([*["<special>"] * FIRST_WORD, *PIECES][token] for token in ids)

    def decode_span(self, ids: Sequence[int], follows: bool) -> str:
        return self.decode(ids)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Trained:
    def logits(model: Any, rows: Sequence[Blanks], special: SpecialTokens) -> torch.Tensor:
        scores = torch.full((len(rows), ROWS), -math.inf)
        for place, row in enumerate(rows):
            before = int(row.segment(special).tokens[-1])
            for token, chance in CHAIN[before].items():
                scores[place, token] = math.log(chance)
        return scores

    monkeypatch.setattr(glm.filling, "next_token_logits", logits)
    weight = torch.empty(ROWS, 1)
    model: Any = SimpleNamespace(
        embedding=SimpleNamespace(weight=weight), config=SimpleNamespace(seq_length=8)
    )
    tokenizer: Any = Pieces()
    return Trained(model, tokenizer, Objectives())


def row() -> Blanks:
    return Blanks([SPECIAL.mask], [0], False, [[]])


def test_a_guess_is_a_whole_word_with_its_probability(trained: Trained) -> None:
    guesses = trained.guess(row(), 5, has_blank=True)
    # An empty blank (0.1) is left out of account: the others share 0.9.
    expected = {
        "string": 0.4 * 0.95,
        ".": 0.2,
        "list": 0.2 * 0.8,
        "x": 0.1,
        "listing": 0.2 * 0.2,
    }
    assert [guess.text for guess in guesses] == list(expected)
    for guess in guesses:
        assert guess.probability == pytest.approx(expected[guess.text] / 0.9)


def test_words_only_leaves_marks_out_and_changes_no_probability(trained: Trained) -> None:
    all_of_them = trained.guess(row(), 5, has_blank=True)
    words = trained.guess(row(), 4, has_blank=True, words_only=True)
    assert words == [guess for guess in all_of_them if guess.text != "."]


def test_without_a_typed_blank_the_word_shows_its_own(trained: Trained) -> None:
    assert [guess.text for guess in trained.guess(row(), 2, has_blank=False)] == [" string", "."]


def test_a_span_ends_where_the_model_ends_it_or_the_row_does(trained: Trained) -> None:
    assert trained.complete(row(), 64, Sampling()) == [STR, ING]
    assert trained.complete(row(), 1, Sampling()) == [STR]
    full = Blanks([SPECIAL.mask] * 7, [0], False, [[]])
    assert trained.complete(full, 64, Sampling()) == [STR]


def test_no_marker_is_ever_filled_in(trained: Trained) -> None:
    beyond = range(trained.tokenizer.vocab_size, ROWS)
    markers = [SPECIAL.mask, SPECIAL.gmask, SPECIAL.sop, SPECIAL.pad]
    assert trained.span_tokens.impossible == sorted([*markers, *beyond])


def test_only_what_top_p_allows_is_drawn() -> None:
    logits = torch.tensor([0.5, 0.3, 0.2]).log()
    generator = torch.Generator().manual_seed(0)
    drawn = {choose(logits, Sampling(1.0, 0.6), generator) for _ in range(50)}
    assert drawn == {0, 1}
    cold = {choose(logits, Sampling(1e-3), generator) for _ in range(20)}
    assert cold == {0}
