"""Documents kept apart: the segment of a slice, cut where one document ends and the next begins.

A document ends with `<eos>`. Every stretch of one document becomes a segment of its own, whose positions restart and
which sees only itself; the stretches lie in the row in the order of the text. Nothing is drawn here, and no token is
added or left out: a row holds as many tokens as with documents crossed.

- `[MASK]`: a stretch is its context and its own targets. A hidden span that reaches into the next document ends with
  its own; what it would have hidden there stays visible. A stretch without a span is all context, without loss.
- `[gMASK]`: the document of the first predicted token is context, `[gMASK]` and target. The ones before it are all
  context, without loss; the ones after it are all target, predicted from `<sop>` at position 0 on.
"""

# pyright: basic
# NumPy's index arithmetic has no useful types in strict mode.
from collections.abc import Sequence

import numpy as np

from data_pipeline.blanks import Segment, context_segment, gmask_segment, target_segment
from data_pipeline.special_tokens import SpecialTokens


def document_borders(tokens: np.ndarray, eos: int) -> list[int]:
    """Where the stretches of a text begin, and its length: ascending, the first 0."""
    borders = [0, *(np.flatnonzero(tokens[:-1] == eos) + 1).tolist()]
    return [*borders, len(tokens)]


def isolate(
    tokens: np.ndarray,
    borders: Sequence[int],
    starts: np.ndarray,
    ends: np.ndarray,
    order: np.ndarray,
    eos: int,
) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Cut pieces and spans where documents end; arguments as of `data_pipeline.blanks.mask_segments`.

    Returns:
        borders, ends and order for the same function: the spans of one document keep the order that was drawn.
    """
    cut = np.union1d(borders, document_borders(tokens, eos))
    piece_of = cut.searchsorted(starts, side="right")
    by_piece = piece_of[order].argsort(kind="stable")
    return cut.tolist(), np.minimum(ends, cut[piece_of]), order[by_piece]


def isolated_gmask_segments(
    tokens: np.ndarray, context_length: int, special: SpecialTokens
) -> list[Segment]:
    """Hide the end of a slice, document by document; arguments as of `data_pipeline.blanks.gmask_segment`.

    Returns:
        A segment per document; together they have the tokens and the targets of the one that `gmask_segment` makes.
    """
    segments: list[Segment] = []
    borders = document_borders(tokens, special.eos)
    for start, stop in zip(borders, borders[1:], strict=False):
        piece = tokens[start:stop]
        if stop <= context_length:
            segments.append(context_segment(piece, special))
        elif start <= context_length:
            segments.append(gmask_segment(piece, context_length - start, special))
        else:
            segments.append(target_segment(piece, special))
    return segments
