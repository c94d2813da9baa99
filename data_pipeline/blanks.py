"""Blank infilling: turn a slice of stored tokens into one segment, context first, then the targets.

Context (part A) is the text with each span replaced by one mask token; it is seen from both sides. Targets (part B)
are the hidden spans, each predicted left to right from `<sop>`. GLM (Du et al. 2022) section 2.1; GLM-130B section
2.2 and appendix B.3 for the positions, which are built here and nowhere else:

- `[MASK]`: a target token has the position of its blank, `<sop>` included;
- `[gMASK]`: positions simply continue;
- an instruction's answer: either, see `mip_segment`.

`block_position_ids` is GLM's second coordinate: 0 in the context, 1, 2, ... inside a target (used by 2-D rotary only).
"""

# pyright: basic
# NumPy's index arithmetic has no useful types in strict mode.
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from data_pipeline.special_tokens import SpecialTokens


class Segment(NamedTuple):
    """One example: arrays of equal length (length,)."""

    tokens: np.ndarray
    """Input ids."""
    targets: np.ndarray
    """Id to predict at each position; `<pad>` where there is no loss."""
    loss_mask: np.ndarray
    """bool, True where the loss counts."""
    position_ids: np.ndarray
    block_position_ids: np.ndarray
    is_context: np.ndarray
    """bool, True in the context: visible from everywhere in the segment."""

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.tokens)

    def cut(self, length: int) -> "Segment":
        """Keep the first `length` tokens."""
        return Segment(*(array[:length] for array in self))


def mask_segments(
    tokens: np.ndarray,
    borders: Sequence[int],
    starts: np.ndarray,
    ends: np.ndarray,
    order: np.ndarray,
    special: SpecialTokens,
) -> list[Segment]:
    """Hide short spans behind `[MASK]` tokens, in all pieces of a row's text at once: most of the cost is per call.

    Args:
        tokens: (n,) stored token ids.
        borders: where each piece begins, and n; ascending, the first 0.
        starts: (num_spans,) first hidden position of each span, in text order; at least one span in total.
        ends: (num_spans,) one past its last hidden position, in the same piece.
        order: (num_spans,) the order in which the spans are predicted: piece after piece, any order within one.
        special: ids of the special tokens.

    Returns:
        A segment for each piece: of m + 2 k tokens if it has m tokens and k spans, each of which contributes its
        length + 1 targets (the last is `<eop>`).
    """
    lengths = ends - starts
    counts = (lengths + 1)[order]  # `<sop>` and the span, predicting the span and `<eop>`
    stops = counts.cumsum()
    firsts = stops - counts
    place = np.arange(stops[-1])
    # Places in the text of the tokens to predict. Before a span that begins the text, and after one that ends it, there
    # is no token: any place works, because `<sop>` and `<eop>` replace the token there.
    predicted = place + (starts[order] - firsts).repeat(counts)
    inputs, targets = (
        tokens.take(predicted - 1, mode="clip"),
        tokens.take(predicted, mode="clip"),
    )
    inputs[firsts] = special.sop
    targets[stops - 1] = special.eop

    is_visible = np.empty(len(tokens) + 1, dtype=bool)
    is_visible.fill(True)
    is_visible[predicted] = False
    is_visible[ends] = True
    is_visible[starts] = True  # becomes the mask token
    text = tokens.copy()
    text[starts] = special.mask
    context = text[is_visible[:-1]]

    # Where the context and the targets of each piece begin among all contexts and all targets. A blank takes one place
    # in the context, where its span took `length` in the text.
    edges = np.asarray(borders)
    spans_before = starts.searchsorted(edges)
    hidden_before = np.concatenate(([0], lengths.cumsum()))[spans_before]
    context_borders = edges - hidden_before + spans_before
    target_borders = hidden_before + spans_before
    extra = lengths - 1
    blank_places = starts - extra.cumsum() + extra
    piece_of = edges.searchsorted(starts, side="right") - 1
    blank_positions = blank_places - context_borders[piece_of]

    block_positions = place - (firsts - 1).repeat(counts)
    positions = blank_positions[order].repeat(counts)
    segments: list[Segment] = []
    bounds = zip(context_borders.tolist(), target_borders.tolist(), strict=True)
    for (a, c), (b, d) in pairwise(bounds):
        segments.append(
            _join(
                context[a:b],
                inputs[c:d],
                targets[c:d],
                np.concatenate((np.arange(b - a), positions[c:d])),
                block_positions[c:d],
                special,
            )
        )
    return segments


def gmask_segment(tokens: np.ndarray, context_length: int, special: SpecialTokens) -> Segment:
    """Hide the end of a slice behind one `[gMASK]`; nothing is appended to the target.

    Args:
        tokens: (n,) stored token ids.
        context_length: how many of them stay visible; the others are predicted.
        special: ids of the special tokens.

    Returns:
        A segment of n + 1 tokens with n - context_length targets.
    """
    context = np.append(tokens[:context_length], special.gmask)
    hidden = tokens[context_length:]
    inputs = np.concatenate(([special.sop], hidden[:-1]))
    positions = np.arange(len(context) + len(hidden))
    return _join(context, inputs, hidden, positions, np.arange(1, len(hidden) + 1), special)


def mip_segment(
    prompt: np.ndarray, target: np.ndarray, special: SpecialTokens, *, is_consecutive: bool
) -> Segment:
    """Put a target after a prompt and a `[MASK]`.

    Args:
        prompt: (p,) token ids, all visible.
        target: (t,) token ids, predicted, and `<eop>` behind them.
        special: ids of the special tokens.
        is_consecutive: positions go on after `[MASK]`, as in the original run's training; otherwise the target has
            the position of `[MASK]`, as a short blank and as in its evaluation.

    Returns:
        A segment of p + t + 2 tokens with t + 1 targets.
    """
    context = np.append(prompt, special.mask)
    inputs = np.concatenate(([special.sop], target))
    places = np.arange(len(context) + len(inputs))
    positions = places if is_consecutive else np.minimum(places, len(prompt))
    predicted = np.append(target, special.eop)
    return _join(context, inputs, predicted, positions, np.arange(1, len(inputs) + 1), special)


def filled_segment(
    context: Sequence[int],
    blanks: Sequence[int],
    spans: Sequence[Sequence[int]],
    special: SpecialTokens,
    *,
    is_consecutive: bool,
) -> Segment:
    """Lay out a text with blanks some of which are filled, as generation and scoring need it.

    It is the segment that training would make of the same text with the same spans hidden, as far as they are known.

    Args:
        context: (c,) token ids, blanks as mask tokens.
        blanks: places of the mask tokens in it, ascending.
        spans: token ids of the first blanks' spans, at least one span, which may be empty; a blank behind them stays
            one that nothing is known of.
        special: ids of the special tokens.
        is_consecutive: positions go on behind the context, whose end is the only blank.

    Returns:
        A segment of c tokens and, for each span, its length + 1 targets, of which the last is `<eop>`.
    """
    marker = replace(special, mask=context[blanks[0]])
    if is_consecutive:
        assert list(blanks) == [len(context) - 1], "positions go on behind a blank at the end"
        return mip_segment(
            np.asarray(context[:-1], np.int64),
            np.asarray(spans[0], np.int64),
            marker,
            is_consecutive=True,
        )
    # A span must not be empty to be hidden: each gets `<eop>`, and its last input is taken out again.
    text: list[int] = []
    starts: list[int] = []
    ends: list[int] = []
    last = 0
    for blank, span in zip(blanks, spans, strict=False):
        text += context[last:blank]
        starts.append(len(text))
        text += [*span, special.eop]
        ends.append(len(text))
        last = blank + 1
    text += context[last:]
    (segment,) = mask_segments(
        np.asarray(text, np.int64),
        [0, len(text)],
        np.asarray(starts),
        np.asarray(ends),
        np.arange(len(starts)),
        marker,
    )
    surplus = len(context) + np.cumsum([len(span) + 2 for span in spans]) - 1
    return Segment(*(np.delete(array, surplus) for array in segment))


def context_segment(tokens: np.ndarray, special: SpecialTokens) -> Segment:
    """Make a segment of a text of which nothing is hidden: all context, no loss."""
    nothing = tokens[:0]
    return _join(tokens, nothing, nothing, np.arange(len(tokens)), nothing, special)


def target_segment(tokens: np.ndarray, special: SpecialTokens) -> Segment:
    """Make a segment of a text that is hidden entirely: predicted left to right from `<sop>`, without a context.

    Args:
        tokens: (n,) stored token ids, at least one.
        special: ids of the special tokens.

    Returns:
        A segment of n tokens and n targets at positions 0 to n - 1.
    """
    inputs = np.concatenate(([special.sop], tokens[:-1]))
    places = np.arange(len(tokens))
    return _join(tokens[:0], inputs, tokens, places, places + 1, special)


def _join(
    context: np.ndarray,
    inputs: np.ndarray,
    targets: np.ndarray,
    position_ids: np.ndarray,
    target_block_positions: np.ndarray,
    special: SpecialTokens,
) -> Segment:
    num_context, length = len(context), len(context) + len(inputs)
    all_targets = np.empty(length, dtype=np.int64)
    all_targets[:num_context] = special.pad
    all_targets[num_context:] = targets
    block_position_ids = np.zeros(length, dtype=np.int64)
    block_position_ids[num_context:] = target_block_positions
    is_context = np.zeros(length, dtype=bool)
    is_context[:num_context] = True
    return Segment(
        tokens=np.concatenate((context, inputs)).astype(np.int64, copy=False),
        targets=all_targets,
        loss_mask=~is_context,
        position_ids=position_ids.astype(np.int64, copy=False),
        block_position_ids=block_position_ids,
        is_context=is_context,
    )
