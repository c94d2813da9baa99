"""Statistics against a plain count over the same samples."""

import numpy as np
import pytest

from configs.objectives import Objective
from configs.schema import ObjectiveConfig
from data_pipeline.dataset import GLMDataset, Source
from data_pipeline.look.stats import Lengths, chosen_indices, gather, render, table
from tests.helpers.streams import CountingStream, read_mask_segments
from tests.helpers.tiny import SPECIAL

SOURCES = [("small", 20_000, 0.25), ("large", 90_000, 0.75)]


@pytest.fixture(scope="module")
def dataset() -> GLMDataset:
    sources = [Source(name, CountingStream(size), weight) for name, size, weight in SOURCES]
    return GLMDataset(sources, SPECIAL, ObjectiveConfig(), 128, 5)


def test_sums_are_those_of_a_plain_count(dataset: GLMDataset):
    found = gather(dataset, range(100, 500))
    samples = [dataset[index] for index in range(100, 500)]
    by_name = {
        "[MASK]": [s for s in samples if s.objective is Objective.MASK],
        "[gMASK]": [s for s in samples if s.objective is Objective.GMASK],
    }
    for name, group in by_name.items():
        shares = found.objectives[name]
        assert shares.samples == len(group) > 50
        assert shares.targets == sum(int(s.loss_mask.sum()) for s in group)
        assert shares.padding == sum(int((s.segment_ids == 0).sum()) for s in group)
    assert found.sources["large"].samples == 300
    assert found.sources["small"].samples == 100
    assert sum(s.stored for s in found.sources.values()) == sum(
        dataset.locate(index)[1].length for index in range(100, 500)
    )
    segments = [segment for s in by_name["[MASK]"] for segment in read_mask_segments(s)]
    lengths = sorted(length + 1 for segment in segments for length in segment.span_lengths)
    assert sorted(found.spans["[MASK]"].counts.elements()) == lengths
    assert found.redraws == sum(s.redraws for s in samples)


def test_sources_tell_which_epochs_they_are_in(dataset: GLMDataset):
    found = gather(dataset, range(3000))
    for name, (first, last) in found.epochs.items():
        seen = {
            row.epoch for source, row in map(dataset.locate, range(3000)) if source.name == name
        }
        assert (first, last) == (min(seen), max(seen))
    assert found.epochs["small"][1] > 0


@pytest.mark.parametrize("count", [1, 2, 19, 1000])
def test_quantiles_are_those_of_numpy(count: int):
    numbers = np.random.default_rng(count).poisson(30, count)
    lengths = Lengths()
    for part in np.array_split(numbers, 3):
        lengths.add(part)
    shares = [0, 0.05, 0.5, 0.95, 1]
    expected = [f"{int(x):,}" for x in np.quantile(numbers, shares, method="inverted_cdf")]
    assert lengths.describe() == [f"{count:,}", f"{numbers.mean():,.1f}", *expected]


def test_nothing_has_no_lengths():
    assert Lengths().describe() == ["0", "-", "-", "-", "-", "-", "-"]


def test_chosen_indices_cover_the_range_and_keep_no_step():
    assert list(chosen_indices(5, 9, 10)) == [5, 6, 7, 8]
    start, stop, most = 10**9, 10**12, 1000
    chosen = np.array(chosen_indices(start, stop, most))
    part = (stop - start) / most
    assert (np.floor((chosen - start) / part).astype(int) == np.arange(most)).all()
    assert len(set((chosen % 4).tolist())) == 4
    assert len(set(np.diff(chosen).tolist())) > 900
    assert list(chosen_indices(start, stop, most)) == chosen.tolist()


def test_tables_are_aligned(dataset: GLMDataset):
    assert table([["a", "bb"], ["ccc", "1"]]) == "a    bb\nccc   1"
    text = render(gather(dataset, range(400)))
    assert "large       300   75.00%" in text
    assert "all         400  100.00%" in text
    assert "Span plans redrawn: " in text
