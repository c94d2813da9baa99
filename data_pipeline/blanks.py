"""Blank infilling: turn a slice of stored tokens into one segment, context first, then the targets.

Context (part A) is the text with each span replaced by one mask token; it is seen from both sides. Targets (part B)
are the hidden spans, each predicted left to right from `<sop>`. GLM (Du et al. 2022) section 2.1; GLM-130B section
2.2 and appendix B.3 for the positions, which are built here and nowhere else:

- `[MASK]`: a target token has the position of its blank, `<sop>` included;
- `[gMASK]`: positions simply continue.

`block_position_ids` is GLM's second coordinate: 0 in the context, 1, 2, ... inside a target (used by 2-D rotary only).
"""

# pyright: basic
# NumPy's index arithmetic has no useful types in strict mode.
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


def mask_segment(
    tokens: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    order: np.ndarray,
    special: SpecialTokens,
) -> Segment:
    """Hide short spans behind `[MASK]` tokens.

    Args:
        tokens: (n,) stored token ids.
        starts: (num_spans,) first hidden position of each span, in text order, at least one span.
        ends: (num_spans,) one past its last hidden position.
        order: (num_spans,) permutation: the order in which the spans are predicted.
        special: ids of the special tokens.

    Returns:
        A segment of n + 2 num_spans tokens; every span contributes its length + 1 targets (the last is `<eop>`).
    """
    lengths = ends - starts
    # A blank takes one place in the context, where its span took `length` in the text.
    blank_positions = starts - (lengths - 1).cumsum() + (lengths - 1)
    text = np.append(tokens, special.eop)

    counts = (lengths + 1)[order]  # `<sop>` and the span, predicting the span and `<eop>`
    stops = counts.cumsum()
    firsts = stops - counts
    place = np.arange(stops[-1])
    predicted = place + np.repeat(
        starts[order] - firsts, counts
    )  # place in the text of what is predicted
    inputs, targets = text[predicted - 1], text[predicted]
    inputs[firsts] = special.sop
    targets[stops - 1] = special.eop

    is_visible = np.ones(len(text), dtype=bool)
    is_visible[predicted] = False
    is_visible[ends] = True
    is_visible[starts] = True  # becomes the mask token
    text[starts] = special.mask
    context = text[:-1][is_visible[:-1]]
    return _join(
        context,
        inputs,
        targets,
        np.concatenate((np.arange(len(context)), np.repeat(blank_positions[order], counts))),
        place - np.repeat(firsts, counts) + 1,
        special,
    )


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


def _join(
    context: np.ndarray,
    inputs: np.ndarray,
    targets: np.ndarray,
    position_ids: np.ndarray,
    target_block_positions: np.ndarray,
    special: SpecialTokens,
) -> Segment:
    num_context, num_targets = len(context), len(inputs)
    is_context = np.arange(num_context + num_targets) < num_context
    return Segment(
        tokens=np.concatenate((context, inputs)).astype(np.int64),
        targets=np.concatenate((np.full(num_context, special.pad), targets)).astype(np.int64),
        loss_mask=~is_context,
        position_ids=position_ids.astype(np.int64),
        block_position_ids=np.concatenate(
            (np.zeros(num_context, dtype=np.int64), target_block_positions)
        ),
        is_context=is_context,
    )
