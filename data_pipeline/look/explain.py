"""Where every token of a sample comes from: index -> source, epoch, row, window, segment, span, document.

A sample holds no record of its making, for a run builds millions. This module reads one back: it fills each blank
with its target, and compares what comes out with the stored tokens, so that what is shown has been checked.
"""

# pyright: basic
# NumPy's index arithmetic has no useful types in strict mode.
from dataclasses import dataclass

import numpy as np

from configs.schema import ObjectiveConfig
from data_pipeline.dataset import GLMDataset, Source
from data_pipeline.instructions import InstructionRow
from data_pipeline.objective import maker_of
from data_pipeline.packing import Sample
from data_pipeline.rows import Row
from data_pipeline.storage.document_index import DocumentSlice
from data_pipeline.storage.shard_part import ShardPart
from data_pipeline.tokenizer import Tokenizer

# The blank of a target that has no context to have one in.
_NO_CONTEXT = -1


@dataclass(frozen=True)
class HiddenSpan:
    """One hidden stretch: what is predicted from one `<sop>` on."""

    blank: int
    """Which blank of its segment it fills, from 1, in the order of the text; 0: it has no context."""
    places: range
    """Places in the row."""
    positions: tuple[int, int]
    """Position ids of its first and last token."""
    is_whole: bool
    """False if its end was cut off, as the glm_130b rule does."""
    stored: tuple[int, int] | None
    """Half-open range of its tokens in the row's stored tokens; None: not known, because an earlier span was cut."""
    pieces: list[DocumentSlice]
    """The documents that it is taken from."""


@dataclass(frozen=True)
class SegmentView:
    """One segment as it was made."""

    number: int
    """Number of the segment in the row, from 1, as in `segment_ids`."""
    window: int
    """Number of its window in the row, from 1."""
    context: range
    """Places of the context in the row."""
    num_blanks: int
    """Number of mask tokens in the context; a target that was cut off entirely has no entry in `spans`."""
    spans: list[HiddenSpan]
    """Hidden spans, in the order of prediction."""
    stored: tuple[int, int] | None
    """Half-open range of its tokens in the row's stored tokens; None: the stored tokens do not match the segment."""
    pieces: list[DocumentSlice]
    """The documents that it is taken from."""


@dataclass(frozen=True)
class Explanation:
    """A sample with the places in the corpus that it comes from."""

    sample: Sample
    source: Source
    row: Row
    window_length: int
    segments: list[SegmentView]
    pieces: list[DocumentSlice]
    """The documents of the whole row."""


def explain(
    dataset: GLMDataset, index: int, objective: ObjectiveConfig, tokenizer: Tokenizer
) -> Explanation:
    """Build the sample at `index` and trace it back to the stored tokens.

    Args:
        dataset: data set of the sample.
        index: index of the sample.
        objective: objective that the data set was opened with.
        tokenizer: tokenizer that it was opened with.

    Raises:
        DataError: a shard cannot be read.
    """
    sample = dataset[index]
    source, row = dataset.locate(index)
    if isinstance(row, InstructionRow):
        return _explain_records(sample, source, row, objective, tokenizer.special.eop)
    maker, seq_length = maker_of(row.objective), len(sample.tokens)
    window_length = seq_length // maker.num_windows(objective)
    slices = maker.slices(row.length, seq_length, objective)
    stored = _read(source, row)
    segments: list[SegmentView] = []
    window, cursor = -1, 0
    for number in range(1, int(sample.segment_ids.max(initial=0)) + 1):
        places = np.flatnonzero(sample.segment_ids == number)
        if int(places[0]) // window_length != window:
            window = int(places[0]) // window_length
            cursor = slices[window][0]
        view = _segment(sample, number, places, window, cursor, stored, tokenizer, source, row)
        cursor = view.stored[1] if view.stored else cursor
        segments.append(view)
    pieces = _pieces(source, row, 0, row.length)
    return Explanation(sample, source, row, window_length, segments, pieces)


def blank_ids(tokenizer: Tokenizer) -> tuple[int, int, int]:
    """Ids of the tokens that stand for what is hidden."""
    return tokenizer.special.mask, tokenizer.special.gmask, tokenizer.smask


def _explain_records(
    sample: Sample, source: Source, row: InstructionRow, objective: ObjectiveConfig, eop: int
) -> Explanation:
    """One segment a record; its pieces are numbered in its own data set."""
    window_length = len(sample.tokens) // objective.windows_per_row
    segments: list[SegmentView] = []
    for number, record in enumerate(row.places, start=1):
        places = np.flatnonzero(sample.segment_ids == number)
        first, stop = int(places[0]), int(places[-1]) + 1
        split = first + int(sample.is_context[places].sum())
        positions = sample.position_ids[split], sample.position_ids[stop - 1]
        pieces = [DocumentSlice(record.number, 0, record.num_tokens, record.num_tokens)]
        span = HiddenSpan(
            blank=1,
            places=range(split, stop),
            positions=(int(positions[0]), int(positions[1])),
            is_whole=int(sample.targets[stop - 1]) == eop,
            stored=None,
            pieces=[],
        )
        context, window = range(first, split), first // window_length + 1
        segments.append(SegmentView(number, window, context, 1, [span], None, pieces))
    return Explanation(sample, source, row, window_length, segments, [])


def _segment(
    sample: Sample,
    number: int,
    places: np.ndarray,
    window: int,
    start: int,
    stored: np.ndarray,
    tokenizer: Tokenizer,
    source: Source,
    row: Row,
) -> SegmentView:
    num_context = int(sample.is_context[places].sum())
    context, hidden = sample.tokens[places[:num_context]], places[num_context:]
    marks_end = maker_of(row.objective).marks_end
    blanks = np.flatnonzero(np.isin(context, blank_ids(tokenizer)))
    firsts = np.flatnonzero(sample.block_position_ids[hidden] == 1)
    targets = np.split(hidden, firsts[1:]) if len(hidden) else []
    # Blank of each target: the one at its position; of a target behind the context its last, -1 if that is empty.
    numbers = [
        min(int(np.searchsorted(blanks, sample.position_ids[target[0]])), len(blanks) - 1)
        for target in targets
    ]
    is_whole = [
        not marks_end or int(sample.targets[target[-1]]) == tokenizer.special.eop
        for target in targets
    ]
    answers = {
        blank: sample.targets[target][: -1 if marks_end and whole else None]
        for blank, target, whole in zip(numbers, targets, is_whole, strict=True)
    }
    text, offsets = _fill(context, blanks, answers, dict(zip(numbers, is_whole, strict=True)))
    is_read_back = np.array_equal(text, stored[start : start + len(text)])

    def view(blank: int, target: np.ndarray, whole: bool) -> HiddenSpan:
        offset = offsets.get(blank)
        found = None
        if offset is not None and is_read_back:
            found = (start + offset, start + offset + len(answers[blank]))
        positions = sample.position_ids[target]
        return HiddenSpan(
            blank=blank + 1,
            places=range(int(target[0]), int(target[-1]) + 1),
            positions=(int(positions[0]), int(positions[-1])),
            is_whole=whole,
            stored=found,
            pieces=_pieces(source, row, *found) if found else [],
        )

    stretch = (start, start + len(text)) if is_read_back else None
    return SegmentView(
        number=number,
        window=window + 1,
        context=range(int(places[0]), int(places[0]) + num_context),
        num_blanks=len(blanks),
        spans=[view(*each) for each in zip(numbers, targets, is_whole, strict=True)],
        stored=stretch,
        pieces=_pieces(source, row, *stretch) if stretch else [],
    )


def _fill(
    context: np.ndarray,
    blanks: np.ndarray,
    answers: dict[int, np.ndarray],
    is_whole: dict[int, bool],
) -> tuple[np.ndarray, dict[int, int]]:
    """Put the answers into the blanks: the text up to the first blank without its whole answer, and where each lies."""
    parts: list[np.ndarray] = []
    offsets: dict[int, int] = {}
    length = last = 0
    if _NO_CONTEXT in answers:
        return answers[_NO_CONTEXT], {_NO_CONTEXT: 0}
    for number, blank in enumerate(blanks.tolist()):
        parts.append(context[last:blank])
        length += blank - last
        last = blank + 1
        answer = answers.get(number)
        if answer is None:
            break
        offsets[number] = length
        parts.append(answer)
        length += len(answer)
        if not is_whole[number]:
            break
    else:
        parts.append(context[last:])
    return np.concatenate([np.empty(0, np.int64), *parts]), offsets


def _read(source: Source, row: Row) -> np.ndarray:
    size = len(source.stream)
    stop = row.start + row.length
    parts = [
        source.stream.read(row.start, min(stop, size)),
        source.stream.read(0, max(stop - size, 0)),
    ]
    return np.concatenate(parts).astype(np.int64)


def _pieces(source: Source, row: Row, start: int, stop: int) -> list[DocumentSlice]:
    """Documents of the row's stored tokens [start, stop), which go on at the front where the stream ends."""
    stream = source.stream
    if not isinstance(stream, ShardPart):
        return []
    size = len(stream)
    first = (row.start + start) % size
    last = first + stop - start
    found = stream.pieces(first, min(last, size))
    return found + (stream.pieces(0, last - size) if last > size else [])
