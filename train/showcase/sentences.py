"""What a trained model can do, shown on held-out text: a score for single-token blanks, and examples to read.

Everything here runs on the checkpoint that was just written, through the same code as `python -m glm.generate`, so it
also shows that the checkpoint is whole. Blanks are made of token ids, never of a text with markers: a text may speak of
"[MASK]" itself.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import torch

from data_pipeline.dataset import TokenStream
from data_pipeline.packing import Sample
from data_pipeline.rng import rng_for
from data_pipeline.special_tokens import GMASK_TEXT, MASK_TEXT, SMASK_TEXT
from data_pipeline.tokenizer import Tokenizer
from glm.filling import Guess, Sampling, Trained, next_token_logits
from glm.prompt import Blanks, span_text
from glm.words import whole_words

NUM_SENTENCES = 200
TOP = 5
TOKENS_READ = 200_000
"""Of held-out text that sentences are chosen from."""
_SENTENCE_LENGTHS = range(8, 65)
_ROWS_PER_FORWARD = 50
# Examples should be read at a glance: a line of a terminal, where there are enough such sentences.
_GLANCE = 76
_SHORTEST_WORD = 3
_LONGEST_ANSWER = 48
# A sentence ends at a mark and white space, or at a full-width mark.
_SENTENCE_END = re.compile("(?<=[.!?])\\s+|(?<=[\u3002\uff01\uff1f])")


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
    """One blank beside the truth."""

    row: Blanks
    """Nothing is filled in yet."""
    prompt: str
    """The text with a marker, as it would be typed."""
    truth: str


def held_out_sentences(
    stream: TokenStream,
    tokenizer: Tokenizer,
    count: int,
    seed: int,
    tokens_read: int = TOKENS_READ,
) -> list[list[int]]:
    """Choose sentences from the beginning of a held-out stream: token ids, 8 to 64 of them each."""
    sentences: list[list[int]] = []
    for document in _documents(stream, tokenizer.special.eos, tokens_read):
        text = re.sub(r"\s+", " ", tokenizer.decode(document))
        for sentence in _SENTENCE_END.split(text):
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
        rows.append(Blanks(context, [position], goes_on=False, spans=[[]]))
        answers.append(tokens[position])
    return SingleTokenBlanks(rows, answers)


def score_blanks(
    trained: Trained, blanks: SingleTokenBlanks, most_frequent: list[int]
) -> BlankScore:
    """Top-5 accuracy of the model and of always guessing `most_frequent`."""
    hits, special = 0, list(trained.tokenizer.special.to_dict().values())
    for start in range(0, len(blanks.rows), _ROWS_PER_FORWARD):
        rows = blanks.rows[start : start + _ROWS_PER_FORWARD]
        logits = next_token_logits(trained.model, rows, trained.tokenizer.special)
        # A hidden token is a token of text; a span's end, which the model gives a share too, is no guess at it.
        logits[:, special] = float("-inf")
        logits[:, trained.tokenizer.vocab_size :] = float("-inf")
        guesses = logits.topk(TOP).indices
        answers = torch.tensor(blanks.answers[start : start + _ROWS_PER_FORWARD])
        hits += int((guesses == answers[:, None]).any(-1).sum())
    frequent = sum(answer in most_frequent[:TOP] for answer in blanks.answers)
    count = max(len(blanks.rows), 1)
    return BlankScore(hits / count, frequent / count, len(blanks.rows))


def hide_words(
    sentences: Iterable[list[int]], tokenizer: Tokenizer, number: int, seed: int
) -> list[Example]:
    """Hide one whole word in each of some sentences.

    Args:
        sentences: token ids of each, the first ones first: see `in_turn`.
        tokenizer: theirs.
        number: of examples; fewer where fewer sentences have such a word.
        seed: of the choice.
    """

    def decode(ids: Sequence[int]) -> str:
        return span_text(tokenizer, ids)

    made: list[Example] = []
    for index, tokens in enumerate(sentences):
        # The first token has no text before it that would show where a word begins.
        words = [word for word in whole_words(tokens, decode, _SHORTEST_WORD) if word[0] > 0]
        if len(made) == number:
            break
        if not words:
            continue
        start, stop = words[int(rng_for(seed, "examples", index).integers(len(words)))]
        before, truth, after = tokens[:start], decode(tokens[start:stop]), tokens[stop:]
        blank = " " if truth.startswith(" ") else ""
        row = Blanks([*before, tokenizer.special.mask, *after], [start], False, [[]])
        prompt = f"{tokenizer.decode(before)}{blank}{MASK_TEXT}{decode(after)}"
        made.append(Example(row, prompt, truth.removeprefix(" ")))
    return made


def hide_ends(sentences: Iterable[list[int]], tokenizer: Tokenizer, number: int) -> list[Example]:
    """Hide the end of each of some sentences behind `[gMASK]`, from the word in the middle on."""

    def decode(ids: Sequence[int]) -> str:
        return span_text(tokenizer, ids)

    made: list[Example] = []
    for tokens in sentences:
        starts = [start for start, _ in whole_words(tokens, decode, 1) if start > 0]
        if len(made) == number:
            break
        if not starts:
            continue
        start = min(starts, key=lambda place: abs(place - len(tokens) // 2))
        before, truth = tokens[:start], decode(tokens[start:])
        blank = " " if truth.startswith(" ") else ""
        row = Blanks([*before, tokenizer.special.gmask], [start], True, [[]])
        prompt = f"{tokenizer.decode(before)}{blank}{GMASK_TEXT}"
        made.append(Example(row, prompt, truth.removeprefix(" ")))
    return made


def held_out_questions(
    samples: Iterable[Sample], which: int, tokenizer: Tokenizer, number: int
) -> list[Example]:
    """The first blank of an objective in each of some held-out rows, asked as in training.

    Args:
        samples: held-out rows of any objective.
        which: number of the objective.
        tokenizer: of the run.
        number: of examples.
    """
    made: list[Example] = []
    for sample in samples:
        of_it = (sample.objectives == which) & sample.loss_mask
        if not of_it.any():
            continue
        inside = sample.segment_ids == sample.segment_ids[of_it.argmax()]
        context = sample.tokens[inside & sample.is_context].tolist()
        targets = np.flatnonzero(inside & sample.loss_mask)
        stops = np.flatnonzero(sample.block_position_ids[targets] == 1)[1:2]
        answer = targets[: stops[0]] if len(stops) else targets
        if not context or not len(answer):
            continue
        # Behind the context a target goes on; otherwise it has the position of its blank.
        position = int(sample.position_ids[answer[0]])
        goes_on = position >= len(context)
        blank = len(context) - 1 if goes_on else position
        before, after = context[:blank], context[blank + 1 :]
        prompt = f"{tokenizer.decode(before)} {_marker(context[blank], tokenizer)}"
        prompt += tokenizer.decode(after) if after else ""
        words = sample.targets[answer].tolist()
        truth = tokenizer.decode([token for token in words if token != tokenizer.special.eop])
        made.append(Example(Blanks(context, [blank], goes_on, [[]]), prompt, truth))
        if len(made) == number:
            break
    return made


def _marker(token: int, tokenizer: Tokenizer) -> str:
    """How a blank is typed."""
    return {tokenizer.special.gmask: GMASK_TEXT, tokenizer.smask: SMASK_TEXT}.get(token, MASK_TEXT)


def best_words(trained: Trained, example: Example) -> list[Guess]:
    """The five most probable words in an example's blank."""
    return trained.guess(example.row, TOP, has_blank=True, words_only=True)


def continuation(trained: Trained, example: Example) -> str:
    """What the model puts into an example's blank, about as much as is hidden there; without white space at its end."""
    most = min(len(trained.tokenizer.encode(example.truth)) + 4, _LONGEST_ANSWER)
    span = trained.complete(example.row, most, Sampling())
    return span_text(trained.tokenizer, span).removeprefix(" ").rstrip()


def in_turn(sources: Iterable[Iterable[list[int]]], tokenizer: Tokenizer) -> list[list[int]]:
    """The sentences of several sources, one of each in turn; of each those that are read at a glance first."""

    def is_long(tokens: list[int]) -> bool:
        return len(tokenizer.decode(tokens)) > _GLANCE

    turns = zip_longest(*(sorted(source, key=is_long) for source in sources))
    return [tokens for turn in turns for tokens in turn if tokens is not None]


def _documents(stream: TokenStream, eos: int, most_tokens: int) -> Iterator[list[int]]:
    tokens = np.asarray(stream.read(0, min(len(stream), most_tokens)))
    for document in np.split(tokens, np.flatnonzero(tokens == eos)):
        yield document[document != eos].tolist()
