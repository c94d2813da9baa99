"""One training sample as a human reads it.

python -m data_pipeline show PREFIX --index 17 --objective mask
"""

from collections.abc import Sequence

from configs.folding import fold
from configs.terminal import visible
from data_pipeline.instructions import InstructionRow
from data_pipeline.look.explain import Explanation, HiddenSpan, SegmentView
from data_pipeline.storage.document_index import DocumentSlice
from data_pipeline.tokenizer import Tokenizer

# More documents than this are summed up.
_NAMED_DOCUMENTS = 4
_TEXT_INDENT = " " * 4


def render(
    explanation: Explanation,
    tokenizer: Tokenizer,
    facts: Sequence[tuple[str, str]],
    width: int | None = None,
) -> str:
    """Describe a sample: per segment the context with its blanks, then every target in the order of prediction.

    Args:
        explanation: of the sample.
        tokenizer: writes the tokens as text.
        facts: what else is known of it, each with its name.
        width: columns of the terminal; None: lines are as long as their text.
    """
    sample = explanation.sample
    lines = [fold(headline(explanation), width), ""]
    rows = [*origin(explanation), *facts]
    lines += [_beside(f"{name:<10} ", visible(text, keep=""), width) for name, text in rows]
    for segment in explanation.segments:
        context = sample.tokens[segment.context.start : segment.context.stop]
        lines += [
            "",
            segment_title(segment),
            *(
                [_beside("  from: ", describe_pieces(segment.pieces), width)]
                if segment.pieces
                else []
            ),
            _folded("  context: " + _indent(tokenizer.decode(context.tolist())), width),
        ]
        lines += [
            _folded(f"  {_target(span, segment, explanation, tokenizer)}", width)
            for span in segment.spans
        ]
    return "\n".join(lines)


def headline(explanation: Explanation) -> str:
    """What kind of sample it is, in one line."""
    sample = explanation.sample
    length = len(sample.tokens)
    padding = int((sample.segment_ids == 0).sum())
    windows = length // explanation.window_length
    return (
        f"sample {sample.index:,}: {sample.objective.label}, {length:,} tokens in "
        f"{_count(windows, 'window')}, {_count(len(explanation.segments), 'segment')}, "
        f"{_count(int(sample.loss_mask.sum()), 'target')}, {padding:,} padding, "
        f"{_count(sample.redraws, 'plan')} redrawn"
    )


def origin(explanation: Explanation) -> list[tuple[str, str]]:
    """Where the sample is read: (name, text) rows."""
    source, row = explanation.source, explanation.row
    if isinstance(row, InstructionRow):
        records = ", ".join(f"{place.data_set} {place.number:,}" for place in row.places)
        return [("source", f"{source.name}, epoch {row.epoch:,}"), ("records", records)]
    size = len(source.stream)
    stop = row.start + row.length
    wrapped = "" if stop <= size else f", going on at its front to {stop - size:,}"
    found = [
        ("source", f"{source.name}, epoch {row.epoch:,}, row {row.number:,} of it"),
        ("tokens", f"{row.start:,} to {min(stop, size):,} of {size:,}{wrapped}"),
    ]
    if explanation.pieces:
        found.append(("documents", describe_pieces(explanation.pieces)))
    return found


def segment_title(segment: SegmentView) -> str:
    """Name a segment by its window and its places in the row."""
    stop = segment.spans[-1].places.stop if segment.spans else segment.context.stop
    hidden = stop - segment.context.stop
    return (
        f"segment {segment.number} (window {segment.window}): tokens {segment.context.start:,} to {stop - 1:,}, "
        f"{len(segment.context):,} context, {hidden:,} target"
    )


def span_title(span: HiddenSpan, segment: SegmentView) -> str:
    """Name the blank that a target fills, its positions and where its text lies."""
    first, last = span.positions
    if not segment.context:
        return f"without a context (positions {first:,} to {last:,})"
    if first >= len(segment.context):
        return f"after the context (positions {first:,} to {last:,})"
    where = (
        f", document {span.pieces[0].document:,} token {span.pieces[0].start:,}"
        if span.pieces
        else ""
    )
    return f"blank {span.blank} of {segment.num_blanks} (position {first:,}{where})"


def describe_pieces(pieces: Sequence[DocumentSlice]) -> str:
    """Name documents and which of their tokens are meant."""
    named = [_piece(piece) for piece in pieces]
    if len(pieces) > _NAMED_DOCUMENTS:
        left = _count(len(pieces) - 2, "document")
        named = [named[0], f"... {left} ...", named[-1]]
    return "; ".join(named)


def _piece(piece: DocumentSlice) -> str:
    if (piece.start, piece.stop) == (0, piece.length):
        return f"document {piece.document:,} (whole, {_count(piece.length, 'token')})"
    return f"document {piece.document:,} (tokens {piece.start:,} to {piece.stop:,} of {piece.length:,})"


def _target(
    span: HiddenSpan, segment: SegmentView, explanation: Explanation, tokenizer: Tokenizer
) -> str:
    sample = explanation.sample
    targets = sample.targets[span.places.start : span.places.stop]
    text = _indent(tokenizer.decode(targets.tolist()))
    cut = "" if span.is_whole else "  (its end is cut off)"
    return f"{span_title(span, segment)}: <sop> -> {text}{cut}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _indent(text: str) -> str:
    return visible(text).replace("\n", "\n" + _TEXT_INDENT)


def _beside(name: str, text: str, width: int | None) -> str:
    """A fact with its name, of which further lines stand below the text."""
    return fold(f"{name}{text}", width, " " * len(name), cuts_words=True)


def _folded(text: str, width: int | None) -> str:
    """Text of a corpus, whose own lines stay lines."""
    return "\n".join(fold(line, width, _TEXT_INDENT, cuts_words=True) for line in text.split("\n"))
