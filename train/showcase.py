"""What a trained model can do, shown on held-out text: a score for single-token blanks, and examples to read.

Everything here runs on the checkpoint that was just written, through the same code as `python -m glm.generate`, so it
also shows that the checkpoint is whole.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from data_pipeline.dataset import TokenStream
from data_pipeline.rng import rng_for
from data_pipeline.tokenizer import Tokenizer
from glm.generate import GMASK_TEXT, MASK_TEXT, Blanks, Sampling, fill, next_token_logits
from glm.model import GLMModel

NUM_SENTENCES = 200
TOP = 5
_TOKENS_READ = 200_000
_SENTENCE_LENGTHS = range(8, 65)
_ROWS_PER_FORWARD = 50


@dataclass(frozen=True)
class SingleTokenBlanks:
    """Sentences of held-out text with one token hidden in each."""

    rows: list[Blanks]
    answers: list[int]


@dataclass(frozen=True)
class BlankScore:
    """Share of blanks whose true token is among five guesses."""

    model: float
    most_frequent: float
    """The same for always guessing the five most frequent training tokens."""
    num_blanks: int


@dataclass(frozen=True)
class Example:
    """One blank, filled, beside the truth."""

    prompt: str
    filled: str
    truth: str


def held_out_sentences(
    stream: TokenStream, tokenizer: Tokenizer, count: int, seed: int
) -> list[list[int]]:
    """Choose sentences from all over a held-out stream: token ids, 8 to 64 of them each."""
    sentences: list[list[int]] = []
    for document in _documents(stream, tokenizer.special.eos):
        text = re.sub(r"\s+", " ", tokenizer.decode(document))
        for sentence in re.split(r"(?<=[.!?])\s+", text):
            tokens = tokenizer.encode(sentence)
            if len(tokens) in _SENTENCE_LENGTHS:
                sentences.append(tokens)
    order = rng_for(seed, "sentences").permutation(len(sentences))
    return [sentences[place] for place in order[:count]]


def hide_one_token(sentences: list[list[int]], mask_token_id: int, seed: int) -> SingleTokenBlanks:
    """Hide one uniformly chosen token of every sentence."""
    rows, answers = [], []
    for index, tokens in enumerate(sentences):
        position = int(rng_for(seed, "showcase", index).integers(len(tokens)))
        context = [*tokens[:position], mask_token_id, *tokens[position + 1 :]]
        rows.append(Blanks(context, [position], is_gmask=False, spans=[[]]))
        answers.append(tokens[position])
    return SingleTokenBlanks(rows, answers)


def score_blanks(
    model: GLMModel, tokenizer: Tokenizer, blanks: SingleTokenBlanks, most_frequent: list[int]
) -> BlankScore:
    """Top-5 accuracy of the model and of always guessing `most_frequent`."""
    hits, special = 0, list(tokenizer.special.to_dict().values())
    for start in range(0, len(blanks.rows), _ROWS_PER_FORWARD):
        rows = blanks.rows[start : start + _ROWS_PER_FORWARD]
        logits = next_token_logits(model, rows, tokenizer.special.sop)
        # A hidden token is a token of text; a span's end, which the model gives a share too, is no guess at it.
        logits[:, special] = float("-inf")
        logits[:, tokenizer.vocab_size :] = float("-inf")
        guesses = logits.topk(TOP).indices
        answers = torch.tensor(blanks.answers[start : start + _ROWS_PER_FORWARD])
        hits += int((guesses == answers[:, None]).any(-1).sum())
    frequent = sum(answer in most_frequent[:TOP] for answer in blanks.answers)
    count = max(len(blanks.rows), 1)
    return BlankScore(hits / count, frequent / count, len(blanks.rows))


def examples(
    model: GLMModel, tokenizer: Tokenizer, sentences: list[list[int]], seed: int
) -> list[Example]:
    """Fill a word or two in three sentences and continue two others."""
    shown = []
    for index, tokens in enumerate(sentences[:5]):
        if index < 3:
            length = 1 + index % 2
            start = int(rng_for(seed, "examples", index).integers(1, len(tokens) - length))
            before, hidden, after = np.split(np.asarray(tokens), [start, start + length])
            prompt = (
                tokenizer.decode(before.tolist()) + MASK_TEXT + tokenizer.decode(after.tolist())
            )
        else:
            before, hidden = np.split(np.asarray(tokens), [len(tokens) // 2])
            prompt = tokenizer.decode(before.tolist()) + GMASK_TEXT
        filled = fill(model, tokenizer, prompt, max(4, len(hidden)), Sampling())
        shown.append(Example(prompt, "".join(filled.spans), tokenizer.decode(hidden.tolist())))
    return shown


def _documents(stream: TokenStream, eos: int) -> Iterator[list[int]]:
    tokens = np.asarray(stream.read(0, min(len(stream), _TOKENS_READ)))
    for document in np.split(tokens, np.flatnonzero(tokens == eos)):
        yield document[document != eos].tolist()
