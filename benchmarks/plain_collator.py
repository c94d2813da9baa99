"""The original algorithm in plain Python: what the sample builder is measured against.

Lists and the `random` module, one token after another, with NumPy only to hand the finished row over. Row of 2000
stored tokens; `[MASK]`: four slices of 500, spans of Poisson(3) length until 15 % are hidden, cut to 512; `[gMASK]`:
the last 20 to 100 % of the row hidden. GLM (Du et al. 2022) section 2.1; GLM-130B (Zeng et al. 2022) section 2.2.
"""

import math
import random
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from data_pipeline.special_tokens import SpecialTokens

STORED, SEQ_LENGTH, NUM_WINDOWS = 2000, 2048, 4
SLICE, WINDOW = STORED // NUM_WINDOWS, SEQ_LENGTH // NUM_WINDOWS
MASK_FRACTION, MEAN, LONGEST, SHORTEST_SLICE, RARE = 0.15, 3.0, 39, 32, 0.02
GMASK_SHARE, GMASK_LEAST = 0.7, 0.2

_CUMULATIVE = list(
    accumulate(MEAN**length / math.factorial(length) for length in range(1, LONGEST + 1))
)

Row = dict[str, np.ndarray]
# Tokens, targets, flags of the loss, positions; the lists of one segment.
_Lists = tuple[list[int], list[int], list[int], list[int]]


def build_row(rng: random.Random, stored: Sequence[int], special: SpecialTokens) -> Row:
    """Build a row at the published mix: tokens, targets, loss_mask, position_ids, is_context, each (2048,)."""
    if rng.random() < GMASK_SHARE:
        return gmask_row(rng, stored, special)
    return mask_row(rng, stored, special)


def gmask_row(rng: random.Random, stored: Sequence[int], special: SpecialTokens) -> Row:
    """One long blank at the end."""
    hidden = rng.randint(int(GMASK_LEAST * len(stored)), len(stored))
    prefix, target = list(stored[: len(stored) - hidden]), list(stored[len(stored) - hidden :])
    tokens = [*prefix, special.gmask, special.sop, *target[:-1]]
    targets = [*prefix, special.gmask, *target]
    loss = [0] * (len(prefix) + 1) + [1] * len(target)
    positions = list(range(SEQ_LENGTH))
    return _row([(_filled((tokens, targets, loss, positions), SEQ_LENGTH), len(prefix) + 1)])


def mask_row(rng: random.Random, stored: Sequence[int], special: SpecialTokens) -> Row:
    """Four windows of short blanks."""
    windows: list[tuple[_Lists, int]] = []
    for start in range(0, STORED, SLICE):
        text = list(stored[start : start + SLICE])
        if rng.random() < RARE:
            text = text[: rng.randrange(SHORTEST_SLICE, len(text))]
        lists, context = _hide(rng, text, _draw_lengths(rng, len(text)), special)
        windows.append((_filled(lists, WINDOW), context))
    return _row(windows)


def _draw_lengths(rng: random.Random, size: int) -> list[int]:
    is_single = rng.random() < RARE
    longest = min(LONGEST, max(size // 2, 1))
    lengths: list[int] = []
    while not lengths or (not is_single and sum(lengths) < int(MASK_FRACTION * size)):
        draw = rng.random() * _CUMULATIVE[longest - 1]
        lengths.append(bisect_right(_CUMULATIVE, draw) + 1)
    return lengths


def _hide(
    rng: random.Random, text: list[int], lengths: list[int], special: SpecialTokens
) -> tuple[_Lists, int]:
    rng.shuffle(lengths)
    free = len(text) - sum(lengths) - len(lengths) + 1
    offsets = sorted(rng.randrange(free + 1) for _ in lengths)
    spans: list[tuple[int, int]] = []
    shift = 0
    for offset, length in zip(offsets, lengths, strict=True):
        spans.append((offset + shift, offset + shift + length))
        shift += length + 1
    tokens: list[int] = []
    blanks: list[int] = []
    place = 0
    for start, end in spans:
        tokens += text[place:start]
        blanks.append(len(tokens))
        tokens.append(special.mask)
        place = end
    tokens += text[place:]
    context = len(tokens)
    targets, loss, positions = list(tokens), [0] * context, list(range(context))
    order = list(range(len(spans)))
    rng.shuffle(order)
    for number in order:
        start, end = spans[number]
        span = text[start:end]
        tokens += [special.sop, *span]
        targets += [*span, special.eop]
        loss += [1] * (len(span) + 1)
        positions += [blanks[number]] * (len(span) + 1)
    return (tokens, targets, loss, positions), context


def _filled(lists: _Lists, length: int) -> _Lists:
    tokens, targets, loss, positions = (
        (values + [0] * (length - len(values)))[:length] for values in lists
    )
    return tokens, targets, loss, positions


def _row(windows: list[tuple[_Lists, int]]) -> Row:
    names = ("tokens", "targets", "loss_mask", "position_ids")
    row = {
        name: np.array([value for lists, _ in windows for value in lists[number]], dtype=np.int64)
        for number, name in enumerate(names)
    }
    length = SEQ_LENGTH // len(windows)
    contexts = [[1] * context + [0] * (length - context) for _, context in windows]
    row["is_context"] = np.array([flag for flags in contexts for flag in flags], dtype=bool)
    return row
