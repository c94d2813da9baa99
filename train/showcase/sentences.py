"""A trained model on held-out text: a score for single-token blanks, and examples to read.

Everything here uses the checkpoint that was just written, through the same code as `python -m glm.generate`, so it also
shows that the checkpoint can be read. Blanks are made from token ids, not from text with markers, because the text
itself may contain "[MASK]".
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import torch

from data_pipeline.corpus import Corpora
from data_pipeline.dataset import TokenStream
from data_pipeline.opening import open_shard
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
"""Number of held-out tokens from which sentences are chosen."""
_SENTENCE_LENGTHS = range(8, 65)
_ROWS_PER_FORWARD = 50
# Sentences of at most this many characters come first: they fit on one line of a terminal.
_GLANCE = 76
_SHORTEST_WORD = 3
_LONGEST_ANSWER = 48
# A sentence ends at a punctuation mark and white space, or at a full-width mark.
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
    """The same share for always guessing the five most frequent training tokens."""
    num_blanks: int


@dataclass(frozen=True)
class Example:
    """A text with one blank, and the text that was hidden."""

    row: Blanks
    """The row with its blank still empty."""
    prompt: str
    """The text with a marker, as a user would type it."""
    truth: str


def held_out_sentences(
    stream: TokenStream,
    tokenizer: Tokenizer,
    count: int,
    seed: int,
    tokens_read: int = TOKENS_READ,
) -> list[list[int]]:
    """Choose sentences of 8 to 64 tokens from the beginning of a held-out stream; returns token ids."""
    sentences: list[list[int]] = []
    for document in _documents(stream, tokenizer.special.eos, tokens_read):
        text = re.sub(r"\s+", " ", tokenizer.decode(document))
        for sentence in _SENTENCE_END.split(text):
            tokens = tokenizer.encode(sentence)
            if len(tokens) in _SENTENCE_LENGTHS:
                sentences.append(tokens)
    order = rng_for(seed, "sentences").permutation(len(sentences))
    return [sentences[place] for place in order[:count]]


def sentences_of_sources(
    corpora: Corpora, tokenizer: Tokenizer, seed: int, count: int, tokens_read: int
) -> list[list[list[int]]]:
    """Choose the same number of sentences from each held-out source, so that every language of a mixture is shown.

    Args:
        corpora: of the run.
        tokenizer: of the run.
        seed: of the choice.
        count: sentences of all sources together.
        tokens_read: held-out tokens from which they are chosen, of all sources together.

    Returns:
        Token ids of each sentence, by source.
    """
    shards = corpora.valid[:count]
    parts = max(len(shards), 1)
    number, tokens = count // parts, tokens_read // parts
    return [
        held_out_sentences(open_shard(shard, tokenizer), tokenizer, number, seed, tokens)
        for shard in shards
    ]


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
        # A hidden token is always text, so special tokens such as the end of a span do not count as guesses.
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
    """Hide one whole word in each of the first sentences that have one to hide.

    Args:
        sentences: token ids of each sentence, in order of preference: see `in_turn`.
        tokenizer: the tokenizer of the sentences.
        number: how many examples to make; fewer are made if fewer sentences have a word to hide.
        seed: seed for the choice of words.
    """

    def decode(ids: Sequence[int]) -> str:
        return span_text(tokenizer, ids)

    made: list[Example] = []
    for index, tokens in enumerate(sentences):
        # Without text before it, the first token does not show whether a word begins there.
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
    """Replace the second half of each sentence, from the word in the middle on, by `[gMASK]`."""

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
    """Take the first blank of an objective from held-out rows, posed as in training.

    Args:
        samples: held-out rows of any objective.
        which: number of the objective in the rows.
        tokenizer: tokenizer of the run.
        number: how many examples to make, one per row.
    """
    made: list[Example] = []
    for sample in samples:
        is_target = (sample.objectives == which) & sample.loss_mask
        if not is_target.any():
            continue
        inside = sample.segment_ids == sample.segment_ids[is_target.argmax()]
        context = sample.tokens[inside & sample.is_context].tolist()
        targets = np.flatnonzero(inside & sample.loss_mask)
        stops = np.flatnonzero(sample.block_position_ids[targets] == 1)[1:2]
        answer = targets[: stops[0]] if len(stops) else targets
        if not context or not len(answer):
            continue
        # A position after the context means that the target continues it; otherwise it is the position of its blank.
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
    """The marker that a user types for a blank token."""
    return {tokenizer.special.gmask: GMASK_TEXT, tokenizer.smask: SMASK_TEXT}.get(token, MASK_TEXT)


def best_words(trained: Trained, example: Example) -> list[Guess]:
    """The five most probable words for an example's blank."""
    return trained.guess(example.row, TOP, has_blank=True, words_only=True)


def continuation(trained: Trained, example: Example) -> str:
    """Fill an example's blank with about as many tokens as are hidden there; white space at the end is removed."""
    most = min(len(trained.tokenizer.encode(example.truth)) + 4, _LONGEST_ANSWER)
    span = trained.complete(example.row, most, Sampling())
    return span_text(trained.tokenizer, span).removeprefix(" ").rstrip()


def in_turn(sources: Iterable[Iterable[list[int]]], tokenizer: Tokenizer) -> list[list[int]]:
    """Interleave the sentences of several sources, one from each in turn; short sentences of a source come first."""

    def is_long(tokens: list[int]) -> bool:
        return len(tokenizer.decode(tokens)) > _GLANCE

    turns = zip_longest(*(sorted(source, key=is_long) for source in sources))
    return [tokens for turn in turns for tokens in turn if tokens is not None]


def _documents(stream: TokenStream, eos: int, most_tokens: int) -> Iterator[list[int]]:
    tokens = np.asarray(stream.read(0, min(len(stream), most_tokens)))
    for document in np.split(tokens, np.flatnonzero(tokens == eos)):
        yield document[document != eos].tolist()
