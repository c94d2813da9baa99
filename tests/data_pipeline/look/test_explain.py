"""Every token of a sample is traced back to where it is stored: checked on streams whose tokens are their places."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from configs.schema import Documents, ObjectiveConfig, SliceRule
from data_pipeline.dataset import GLMDataset, Source
from data_pipeline.look.explain import Explanation, explain
from data_pipeline.objective import Objective
from data_pipeline.sentences import SentenceBlanks
from data_pipeline.storage.shard_part import ShardPart
from data_pipeline.storage.shards import open_stream
from data_pipeline.tokenizer import Tokenizer
from tests.helpers.shards import write_with_megatron
from tests.helpers.streams import FIRST_TOKEN, CountingStream, DocumentStream
from tests.helpers.tiny import SPECIAL

SIZE = 30_000
TOKENIZER = cast(Tokenizer, SimpleNamespace(special=SPECIAL, smask=9))
FIT = ObjectiveConfig(short_segment_probability=0.3, single_span_probability=0.2)
ORIGINAL = replace(FIT, slice_rule=SliceRule.glm_130b)


def explained(objective: ObjectiveConfig, seq_length: int, count: int) -> list[Explanation]:
    source = Source("text", CountingStream(SIZE))
    dataset = GLMDataset([source], SPECIAL, objective, seq_length, 7)
    return [explain(dataset, index, objective, TOKENIZER) for index in range(count)]


def place_of(found: Explanation, offset: int) -> int:
    """Place in the stream of one of the row's stored tokens."""
    return (found.row.start + offset) % SIZE


@pytest.mark.parametrize("seq_length", [64, 512])
@pytest.mark.parametrize("objective", [FIT, ORIGINAL])
def test_spans_are_found_where_their_tokens_are_stored(objective: ObjectiveConfig, seq_length: int):
    num_spans = num_cut = 0
    for found in explained(objective, seq_length, 150):
        sample = found.sample
        for segment in found.segments:
            for span in segment.spans:
                num_spans += 1
                num_cut += not span.is_whole
                if span.stored is None:
                    continue
                places = range(span.places.start, span.places.stop)
                predicted = sample.targets[list(places)]
                predicted = predicted[predicted >= FIRST_TOKEN]
                offsets = range(*span.stored)
                assert predicted.tolist() == [
                    FIRST_TOKEN + place_of(found, offset) for offset in offsets
                ]
                assert span.positions == tuple(sample.position_ids[[places[0], places[-1]]])
    assert num_spans > 200
    assert (num_cut > 0) == (objective is ORIGINAL)


def test_segments_of_a_row_use_its_stored_tokens_in_order():
    for found in explained(FIT, 256, 200):
        stretches = [segment.stored for segment in found.segments]
        assert None not in stretches
        used = [place for stretch in stretches if stretch for place in range(*stretch)]
        assert used == list(range(found.row.length))
        assert all(span.stored is not None for s in found.segments for span in s.spans)
        assert sorted(span.blank for span in found.segments[0].spans) == list(
            range(1, found.segments[0].num_blanks + 1)
        )
        windows = [segment.window for segment in found.segments]
        assert windows == sorted(windows)


@pytest.mark.parametrize("slice_rule", list(SliceRule))
def test_isolated_documents_are_traced_segment_by_segment(slice_rule: SliceRule):
    objective = replace(FIT, documents=Documents.isolated, slice_rule=slice_rule)
    stream = DocumentStream(SIZE, 23)
    dataset = GLMDataset([Source("text", stream)], SPECIAL, objective, 128, 7)
    num_segments = 0
    for index in range(100):
        found = explain(dataset, index, objective, TOKENIZER)
        row = [
            int(stream.read(place, place + 1)[0])
            for place in (place_of(found, offset) for offset in range(found.row.length))
        ]
        used: list[int] = []
        for segment in found.segments:
            num_segments += 1
            assert segment.stored is not None
            used += range(*segment.stored)
            for span in segment.spans:
                predicted = found.sample.targets[span.places.start : span.places.stop]
                if span.stored is not None:
                    ids = predicted[predicted != SPECIAL.eop].tolist()
                    assert ids == row[slice(*span.stored)]
        if slice_rule is SliceRule.fit:
            assert used == list(range(found.row.length))
        else:
            assert used == sorted(set(used))
    assert num_segments > 500


def test_sentence_blanks_are_traced():
    objective = replace(FIT, smask_share=1.0)
    is_end = np.zeros(FIRST_TOKEN + SIZE, dtype=bool)
    is_end[::11] = True
    sentences = SentenceBlanks(replace(SPECIAL, mask=TOKENIZER.smask), is_end)
    source = Source("text", CountingStream(SIZE))
    dataset = GLMDataset([source], SPECIAL, objective, 256, 7, sentences=sentences)
    num_spans = 0
    for index in range(60):
        found = explain(dataset, index, objective, TOKENIZER)
        used = [place for segment in found.segments for place in range(*segment.stored)]
        assert used == list(range(found.row.length))
        num_spans += sum(
            len(s.spans) for s in found.segments if TOKENIZER.smask in found.sample.tokens
        )
    assert num_spans > 50


def test_gmask_target_follows_the_context():
    rows = [found for found in explained(FIT, 64, 60) if found.sample.objective is Objective.GMASK]
    for found in rows:
        (segment,) = found.segments
        (span,) = segment.spans
        assert segment.stored == (0, found.row.length)
        assert span.stored == (len(segment.context) - 1, found.row.length)
    assert len(rows) > 30


def test_documents_of_rows_segments_and_spans_are_named(tmp_path: Path):
    # 3 to 62 tokens a document, token value = 100 + place in the corpus.
    sizes = np.random.default_rng(0).integers(3, 63, 400)
    borders = np.concatenate([[0], sizes.cumsum()])
    documents = [
        [list(range(FIRST_TOKEN + a, FIRST_TOKEN + b))]
        for a, b in zip(borders[:-1], borders[1:], strict=True)
    ]
    write_with_megatron(tmp_path / "m", documents)
    total, kept = int(borders[-1]), (100, 400)
    part = ShardPart(open_stream(str(tmp_path / "m")), FIRST_TOKEN + total, kept)
    dataset = GLMDataset([Source("m", part)], SPECIAL, FIT, 128, 3)

    def tokens_of(pieces) -> list[int]:
        return [
            FIRST_TOKEN + int(borders[piece.document]) + place
            for piece in pieces
            for place in range(piece.start, piece.stop)
        ]

    for index in range(120):
        found = explain(dataset, index, FIT, TOKENIZER)
        row = found.row
        stored = [
            part.read(i % len(part), i % len(part) + 1)[0]
            for i in range(row.start, row.start + row.length)
        ]
        assert tokens_of(found.pieces) == stored
        assert all(piece.document >= 100 for piece in found.pieces)
        for segment in found.segments:
            assert tokens_of(segment.pieces) == stored[slice(*segment.stored)]
            for span in segment.spans:
                assert tokens_of(span.pieces) == stored[slice(*span.stored)]


def test_a_sample_that_is_not_what_is_stored_is_not_explained_away():
    """Tokens that change after the sample was drawn: the trace must not claim to know where they are from."""

    class Changing(CountingStream):
        shift = 0

        def read(self, start: int, stop: int) -> np.ndarray:
            return super().read(start, stop) + self.shift

    stream = Changing(SIZE)
    dataset = GLMDataset([Source("text", stream)], SPECIAL, FIT, 64, 7)
    built = dataset[0]
    object.__setattr__(stream, "shift", 1)

    class Frozen:
        locate = dataset.locate

        def __getitem__(self, index: int):
            return built

    found = explain(Frozen(), 0, FIT, TOKENIZER)
    assert [segment.stored for segment in found.segments] == [None] * len(found.segments)
