"""A sample as one self-contained page: what attends to what as a picture, and every token with where it comes from.

No script and nothing from elsewhere: the page can be mailed, and opens without a network.
"""

import html
from collections.abc import Sequence

import numpy as np

from configs.terminal import visible
from data_pipeline.look.explain import Explanation, HiddenSpan, SegmentView, blank_ids
from data_pipeline.look.mask_picture import ASKS_CONTEXT, OWN_SPAN, SEES_CONTEXT, SEES_TARGETS, draw
from data_pipeline.look.show import (
    describe_pieces,
    headline,
    origin,
    segment_title,
    span_title,
)
from data_pipeline.storage.document_index import DocumentSlice
from data_pipeline.tokenizer import Tokenizer

MARK = '<meta name="generator" content="python -m data_pipeline show">'
"""Put into every page, so that `show` recognises a page that it may replace."""

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --quiet: #68758a; --line: #d8dee8; --page: #fff; --card: #f6f8fb;
  --cc: #4a86c5; --tc: #a8c7e6; --tt: #f0b27a; --own: #d9731f; --token: #e9eef5; --blank: #d9731f }
@media (prefers-color-scheme: dark) { :root { --ink: #e6ebf3; --quiet: #98a5b9; --line: #364154; --page: #141a23;
  --card: #1c2430; --cc: #3d77b3; --tc: #2b4a6b; --tt: #8a5a2b; --own: #e08a3c; --token: #263143 } }
body { font: 15px/1.6 system-ui, sans-serif; color: var(--ink); background: var(--page); margin: 2rem auto;
  max-width: 1200px; padding: 0 1rem }
h1 { margin: 0; font-size: 1.5rem } h2 { font-size: 1rem; margin: 0 0 .5rem } .quiet { color: var(--quiet) }
.top { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 1rem; margin: 1rem 0 }
@media (max-width: 800px) { .top { grid-template-columns: 1fr } }
.card { background: var(--card); border-radius: 8px; padding: 1rem; margin-bottom: 1rem }
.top .card { margin: 0 }
table { border-collapse: collapse } td { padding: .15rem .8rem .15rem 0; vertical-align: top }
.mask { width: 100%; height: auto; border: 1px solid var(--line); background: var(--page) }
.mask .cc { fill: var(--cc) } .mask .tc { fill: var(--tc) } .mask .tt { fill: var(--tt) }
.mask .own { fill: var(--own) } .mask a:hover { opacity: .75 }
.window { stroke: var(--line); vector-effect: non-scaling-stroke }
.key { display: block } .dot { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .5em }
.text { white-space: pre-wrap; overflow-wrap: anywhere; margin: .4rem 0 .8rem }
.text span:nth-of-type(odd) { background: var(--token) } .text span:hover, .text span:target { outline: 1px solid }
.blank { background: var(--blank); color: #fff; border-radius: 4px; padding: 0 .35em; font-size: .85em;
  text-decoration: none } .special { color: var(--quiet); font-size: .85em }
.text b { font-weight: normal; font-size: .75em; color: var(--quiet); border-left: 2px solid var(--quiet);
  padding-left: .3em; margin: 0 .2em }
ol { margin: 0; padding-left: 2rem } li { padding: .1rem 0 } li:target { outline: 2px solid var(--blank) }
li .text { display: inline }
"""
_LEGEND = (
    (SEES_CONTEXT, "context sees context, in both directions"),
    (ASKS_CONTEXT, "targets see the whole context"),
    (SEES_TARGETS, "targets see the targets before them"),
    (OWN_SPAN, "the tokens of one blank"),
)


def render_page(
    explanation: Explanation, tokenizer: Tokenizer, facts: Sequence[tuple[str, str]]
) -> str:
    """Render the page; arguments as those of `data_pipeline.look.show.render`."""
    sample = explanation.sample
    title = f"sample {sample.index:,}: {sample.objective.label}"
    rows = "".join(
        f'<tr><td class="quiet">{html.escape(name)}</td><td>{html.escape(visible(text, keep=""))}</td></tr>'
        for name, text in (*origin(explanation), *facts)
    )
    legend = "".join(
        f'<span class="key"><span class="dot" style="background:var(--{kind})"></span>{text}</span>'
        for kind, text in _LEGEND
        if kind != OWN_SPAN or any(len(segment.spans) > 1 for segment in explanation.segments)
    )
    picture = draw(explanation.segments, len(sample.tokens), explanation.window_length)
    cards = "".join(_card(segment, explanation, tokenizer) for segment in explanation.segments)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">{MARK}<title>{html.escape(title)}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head><body>
<h1>{html.escape(title)}</h1>
<p class="quiet">{html.escape(headline(explanation).partition(", ")[2])}</p>
<div class="top"><div class="card"><h2>Attention: a row sees the coloured columns</h2>{picture}</div>
<div><div class="card"><h2>Where it comes from</h2><table>{rows}</table></div><br>
<div class="card"><h2>Colours</h2>{legend}
<p class="quiet">Padding neither sees nor is seen. Lines are borders of windows. Point at an area or a token for
details; click on an area to go to its segment.</p></div></div></div>
{cards}
</body></html>
"""


def _card(segment: SegmentView, explanation: Explanation, tokenizer: Tokenizer) -> str:
    targets = "".join(_target(span, segment, explanation, tokenizer) for span in segment.spans)
    return (
        f'<div class="card" id="segment-{segment.number}"><h2>{html.escape(segment_title(segment))}</h2>'
        f'<div class="quiet">{html.escape(describe_pieces(segment.pieces))}</div>'
        f'<div class="text">{_context(segment, explanation, tokenizer)}</div>'
        f'<div class="quiet">Predicted in this order:</div><ol>{targets}</ol></div>\n'
    )


def _context(segment: SegmentView, explanation: Explanation, tokenizer: Tokenizer) -> str:
    """The visible text: blanks by number, and a mark where another document begins."""
    sample, spans = explanation.sample, {span.blank: span for span in segment.spans}
    special = tokenizer.special
    is_one = len(segment.spans) == 1
    parts: list[str] = []
    run: list[int] = []
    borders = _document_starts(segment)
    place_of_text = segment.stored[0] if segment.stored else 0
    blank = 0

    def flush() -> None:
        if run:
            parts.append(_tokens(run, sample.tokens, explanation, tokenizer, "token"))
            run.clear()

    for place in segment.context:
        token = int(sample.tokens[place])
        if place_of_text in borders:
            flush()
            parts.append(f"<b>document {borders[place_of_text].document:,}</b>")
        if token in blank_ids(tokenizer):
            flush()
            blank += 1
            label = "[gMASK]" if token == special.gmask else f"{blank}"
            span = segment.spans[0] if is_one else spans.get(blank)
            at = span.blank if span else blank
            parts.append(f'<a class="blank" href="#s{segment.number}b{at}">{label}</a>')
            place_of_text += span.stored[1] - span.stored[0] if span and span.stored else 0
        else:
            run.append(place)
            place_of_text += 1
    flush()
    return "".join(parts)


def _document_starts(segment: SegmentView) -> dict[int, DocumentSlice]:
    """Documents by the place in the row's stored tokens where the segment enters them."""
    found: dict[int, DocumentSlice] = {}
    at = segment.stored[0] if segment.stored else 0
    for piece in segment.pieces:
        found[at] = piece
        at += piece.stop - piece.start
    return found


def _target(
    span: HiddenSpan, segment: SegmentView, explanation: Explanation, tokenizer: Tokenizer
) -> str:
    places = list(span.places)
    text = _tokens(places, explanation.sample.targets, explanation, tokenizer, "predicts token")
    title = span_title(span, segment)
    whence = describe_pieces(span.pieces)
    cut = "" if span.is_whole else ' <span class="special">(its end is cut off)</span>'
    return (
        f'<li id="s{segment.number}b{span.blank}" title="{html.escape(whence)}"><span class="quiet">'
        f'{html.escape(title)}:</span> <span class="text">{text}</span>{cut}</li>'
    )


def _tokens(
    places: Sequence[int],
    ids: np.ndarray,
    explanation: Explanation,
    tokenizer: Tokenizer,
    what: str,
) -> str:
    """Tokens as text, each with its numbers as a tooltip."""
    sample = explanation.sample
    parts: list[str] = []
    for group, text in pieces_of_text(tokenizer, [int(ids[place]) for place in places]):
        at = [places[number] for number in group]
        numbers = ", ".join(f"{what} {int(ids[place])}" for place in at)
        positions = ", ".join(str(int(sample.position_ids[place])) for place in at)
        title = f"{numbers}; place {at[0]}, position {positions}"
        is_special = int(ids[at[0]]) in tokenizer.special.to_dict().values()
        style = ' class="special"' if is_special else ""
        parts.append(f'<span{style} title="{title}">{html.escape(visible(text))}</span>')
    return "".join(parts)


def pieces_of_text(tokenizer: Tokenizer, ids: Sequence[int]) -> list[tuple[list[int], str]]:
    """Cut a decoded text between its tokens.

    Tokens that hold parts of one character stay together, and what a tokenizer writes between two tokens (a space
    that belongs to the second) goes to the second.

    Returns:
        Per piece, the places of its tokens in `ids`, and its text; all texts in a row are the decoded ids.
    """
    found: list[tuple[list[int], str]] = []
    before: list[int] = []
    group: list[int] = []
    for place in range(len(ids)):
        group.append(place)
        head = tokenizer.decode(before) if before else ""
        text = tokenizer.decode([*before, *(ids[number] for number in group)])
        is_last = place + 1 == len(ids)
        if not is_last and (text.endswith("\ufffd") or not text.startswith(head)):
            continue
        found.append((group, text[len(head) :]))
        before, group = [ids[number] for number in group], []
    return found
