"""The attention mask of a sample as a drawing of a few shapes, however long the row.

Everything that a segment sees is three areas: its context sees its context, its targets see its context, and each
target sees the targets up to itself. The third is drawn as the exact stairs, four characters a token.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass

from data_pipeline.look.explain import SegmentView

# Names of the kinds of areas, for the style sheet of the page.
SEES_CONTEXT, ASKS_CONTEXT, SEES_TARGETS, OWN_SPAN = "cc", "tc", "tt", "own"


@dataclass(frozen=True)
class Area:
    """A part of the mask where every token of a row may attend to every token of a column."""

    kind: str
    rows: range
    """Places that attend."""
    columns: range
    """Places that are attended to."""
    is_stairs: bool
    """True if each token attends only up to itself; rows and columns are then the same places."""
    title: str
    """Text shown when the reader points at the area."""


def areas(segment: SegmentView) -> list[Area]:
    """The areas of one segment; together they are exactly what its tokens may attend to."""
    context, spans = segment.context, segment.spans
    name = f"segment {segment.number}"
    seen = f"its {len(context):,} context tokens"
    found = [Area(SEES_CONTEXT, context, context, False, f"{name}: the context sees {seen}")]
    if not context:
        found = []
    if not spans:
        return found
    hidden = range(spans[0].places.start, spans[-1].places.stop)
    title = f"{name}: {len(hidden):,} target tokens see {seen}"
    if context:
        found.append(Area(ASKS_CONTEXT, hidden, context, False, title))
    title = f"{name}: each target sees the targets before it"
    found.append(Area(SEES_TARGETS, hidden, hidden, True, title))
    if len(spans) > 1:
        found += [
            Area(OWN_SPAN, span.places, span.places, True, f"{name}, blank {span.blank}: {order}.")
            for order, span in enumerate(spans, start=1)
        ]
    return found


def draw(segments: Sequence[SegmentView], length: int, window_length: int) -> str:
    """Draw the mask as SVG: rows attend, columns are attended to; one unit is a token."""
    shapes = [
        f'<line class="window" x1="{at}" y1="0" x2="{at}" y2="{length}"/>'
        f'<line class="window" x1="0" y1="{at}" x2="{length}" y2="{at}"/>'
        for at in range(window_length, length, window_length)
    ]
    for segment in segments:
        drawn = "".join(_shape(area) for area in areas(segment))
        shapes.append(f'<a href="#segment-{segment.number}">{drawn}</a>')
    return (
        f'<svg class="mask" viewBox="0 0 {length} {length}" role="img" aria-label="attention mask">'
        f"{''.join(shapes)}</svg>"
    )


def _shape(area: Area) -> str:
    title = f"<title>{html.escape(area.title)}</title>"
    x, y = area.columns.start, area.rows.start
    if area.is_stairs:
        stairs = "h1v1" * len(area.rows)
        return f'<path class="{area.kind}" d="M{x},{y}{stairs}H{x}z">{title}</path>'
    size = f'width="{len(area.columns)}" height="{len(area.rows)}"'
    return f'<rect class="{area.kind}" x="{x}" y="{y}" {size}>{title}</rect>'
