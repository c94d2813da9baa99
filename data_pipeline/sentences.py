"""Whole sentences as blanks (`[sMASK]`): an option that GLM-130B did without. GLM (Du et al. 2022) section 2.2.

A sentence ends with a token whose text ends one, in English or Chinese; several such tokens in a row, as a full stop
and the end of the document, end one sentence. The rule works on ids, and is computed once from the vocabulary: it does
not recognise abbreviations or numbers, nor a mark that the vocabulary writes as several tokens.
"""

# pyright: basic
# NumPy's index arithmetic has no useful types in strict mode.
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from data_pipeline.special_tokens import SpecialTokens

# Full stop, exclamation and question mark, each also full-width, and the ellipsis.
_MARKS = (".", "!", "?", "\u2026", "\u3002", "\uff01", "\uff1f")
# What may stand behind the mark and still belongs to the sentence: blanks, quotation marks and brackets.
_CLOSING = " \n\t\"')]\u201d\u2019\u300b\u300d\u300f\u3011\uff09"


@dataclass(frozen=True)
class SentenceBlanks:
    """What hiding sentences needs to know of a vocabulary."""

    special: SpecialTokens
    """The special tokens, with [sMASK] in the place of [MASK]."""
    is_end: np.ndarray
    """(vocab_size,) bool, True for ids that end a sentence (see `sentence_ends`)."""


def sentence_ends(
    decode: Callable[[Sequence[int]], str], vocab_size: int, special: SpecialTokens
) -> np.ndarray:
    """Find the ids of a vocabulary that end a sentence: (vocab_size,) bool."""
    texts = [decode([token]) for token in range(vocab_size)]
    is_end = np.array([text.rstrip(_CLOSING).endswith(_MARKS) for text in texts])
    is_end[special.eos] = True
    return is_end


def choose_sentences(
    rng: np.random.Generator,
    tokens: np.ndarray,
    is_end: np.ndarray,
    budget: int,
    most: int,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Choose sentences at random until they hide `budget` tokens.

    Args:
        rng: source of randomness.
        tokens: (n,) stored tokens; a sentence that the slice cuts counts as one.
        is_end: (vocab_size,) ids that end a sentence.
        budget: tokens to hide at least. Fewer are hidden where `most` blanks do not hide so many, or all sentences but
            one: one always stays visible.
        most: blanks that there is room for.

    Returns:
        starts and ends of the hidden sentences, each (num_spans,), in text order; None if there is only one sentence,
        or no room.
    """
    is_last = is_end[tokens]
    is_last[:-1] &= ~is_last[1:]
    is_last[-1] = True
    stops = np.flatnonzero(is_last) + 1
    starts = np.concatenate(([0], stops[:-1]))
    order = rng.permutation(len(stops))[: min(most, len(stops) - 1)]
    if not len(order):
        return None
    hidden = (stops - starts)[order].cumsum()
    chosen = np.sort(order[: int(hidden.searchsorted(budget)) + 1])
    return starts[chosen], stops[chosen]
