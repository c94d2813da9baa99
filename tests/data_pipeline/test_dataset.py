"""The whole chain: samples are a function of seed and index, and lose nothing."""

import json
from dataclasses import replace

import numpy as np
import pytest

from configs.errors import ConfigError, DataError
from configs.schema import LossWeighting, ObjectiveConfig, SliceRule
from data_pipeline.batch import collate
from data_pipeline.dataset import GLMDataset, Source
from data_pipeline.mixing.mixture import Mixture
from data_pipeline.objective import Objective
from data_pipeline.packing import Sample
from tests.helpers.streams import (
    FIRST_TOKEN,
    CountingStream,
    read_gmask_segment,
    read_mask_segments,
)
from tests.helpers.tiny import SPECIAL


def open_dataset(
    num_tokens: int = 50_000,
    objective: ObjectiveConfig | None = None,
    seq_length: int = 512,
    seed: int = 1,
    name: str = "text",
) -> GLMDataset:
    source = Source(name, CountingStream(num_tokens))
    return GLMDataset([source], SPECIAL, objective or ObjectiveConfig(), seq_length, seed)


def stored_tokens(dataset: GLMDataset, first: int, count: int) -> list[int]:
    """Read `count` samples back into the stored tokens that they were made of."""
    tokens: list[int] = []
    for index in range(first, first + count):
        sample = dataset[index]
        if sample.objective is Objective.GMASK:
            tokens += read_gmask_segment(sample)
        else:
            for segment in read_mask_segments(sample):
                assert segment.is_whole
                tokens += segment.stored
    return tokens


@pytest.mark.parametrize("seq_length", [128, 512, 2048])
@pytest.mark.parametrize("short_probability", [0.02, 1.0])
def test_fit_uses_every_stored_token_once_an_epoch_and_loses_no_target(
    seq_length: int, short_probability: float
):
    objective = ObjectiveConfig(short_segment_probability=short_probability)
    dataset = open_dataset(50_000, objective, seq_length)
    for epoch in range(2):
        rows = dataset.rows_per_epoch
        tokens = stored_tokens(dataset, epoch * rows, rows)
        assert sorted(tokens) == list(range(FIRST_TOKEN, FIRST_TOKEN + 50_000))


@pytest.mark.parametrize("num_tokens", [8, 9, 100, 700, 1500])
def test_corpus_smaller_than_a_row_still_trains(num_tokens: int):
    dataset = open_dataset(num_tokens)
    tokens = stored_tokens(dataset, 0, dataset.rows_per_epoch)
    assert sorted(tokens) == list(range(FIRST_TOKEN, FIRST_TOKEN + num_tokens))
    objectives = {dataset[index].objective for index in range(dataset.rows_per_epoch)}
    assert objectives == {Objective.MASK, Objective.GMASK}


def test_original_rule_loses_targets():
    dataset = open_dataset(objective=ObjectiveConfig(slice_rule=SliceRule.glm_130b, gmask_share=0))
    segments = [segment for index in range(20) for segment in read_mask_segments(dataset[index])]
    assert any(not segment.is_whole for segment in segments)


def test_original_row_has_four_windows_from_its_four_quarters():
    objective = ObjectiveConfig(
        slice_rule=SliceRule.glm_130b, gmask_share=0, short_segment_probability=0
    )
    sample = open_dataset(10_000, objective, 2048)[0]
    for window in range(4):
        inside = slice(512 * window, 512 * (window + 1))
        assert set(sample.segment_ids[inside]) <= {window + 1, 0}
        assert sample.segment_ids[inside][0] == window + 1
        text = sample.tokens[inside][sample.is_context[inside]]
        visible = text[text != SPECIAL.mask] - FIRST_TOKEN
        assert (visible % 2000 // 500 == window).all()


def test_sample_is_a_function_of_its_index_alone():
    dataset, again = open_dataset(), open_dataset()
    forward = [dataset[index] for index in range(40)]
    backward = [again[index] for index in reversed(range(40))][::-1]
    assert collate(forward).checksum() == collate(backward).checksum()
    assert [sample.index for sample in forward] == list(range(40))


def test_seed_name_and_epoch_change_the_samples():
    samples = [open_dataset()[0], open_dataset(seed=2)[0], open_dataset(name="other")[0]]
    samples.append(open_dataset()[open_dataset().rows_per_epoch])
    assert len({collate([without_index(sample)]).checksum() for sample in samples}) == len(samples)


def without_index(sample: Sample) -> Sample:
    return sample._replace(index=0)


def test_same_text_is_hidden_elsewhere_in_the_next_epoch():
    # The original's masks were a function of the row alone: every epoch repeated them.
    objective = ObjectiveConfig(slice_rule=SliceRule.glm_130b, gmask_share=1.0)
    dataset = open_dataset(50_000, objective)
    epochs: list[dict[int, int]] = []
    for epoch in range(2):
        rows = range(epoch * dataset.rows_per_epoch, (epoch + 1) * dataset.rows_per_epoch)
        samples = [dataset[index] for index in rows]
        epochs.append({read_gmask_segment(each)[0]: int(each.loss_mask.sum()) for each in samples})
    assert epochs[0].keys() == epochs[1].keys()
    assert sum(epochs[0][start] != epochs[1][start] for start in epochs[0]) > 90


def test_other_sources_do_not_change_what_a_source_gives():
    text, code = (
        Source("text", CountingStream(9000), 1.0),
        Source("code", CountingStream(7000), 3.0),
    )
    both = GLMDataset([text, code], SPECIAL, ObjectiveConfig(), 512, seed=1)
    alone = GLMDataset([text], SPECIAL, ObjectiveConfig(), 512, seed=1)
    places = [index for index in range(40) if Mixture.constant([1, 3]).locate(index)[0] == 0]
    assert len(places) == 10
    for number, index in enumerate(places):
        assert both[index].tokens.tolist() == alone[number].tokens.tolist()


def test_sources_without_weights_are_sampled_by_size():
    sources = [Source("large", CountingStream(75_000)), Source("small", CountingStream(25_000))]
    dataset = GLMDataset(sources, SPECIAL, ObjectiveConfig(), 512, seed=1)
    tokens = stored_tokens(dataset, 0, dataset.rows_per_epoch)
    assert len(tokens) == pytest.approx(100_000, rel=0.01)
    assert dataset.shares_at(0) == pytest.approx({"large": 0.75, "small": 0.25}, abs=0.01)


def test_validation_rows_are_fixed_and_unlike_those_of_training():
    source = Source("text", CountingStream(50_000))
    valid = GLMDataset.validation([source], SPECIAL, ObjectiveConfig(), 512, seed=1)
    rows = valid.rows_per_epoch
    first, again = [collate([without_index(valid[i]) for i in (k, k + rows)]) for k in (0, 5)]
    for batch in (first, again):
        assert (batch.tokens[0] == batch.tokens[1]).all()
        assert (batch.loss_mask[0] == batch.loss_mask[1]).all()
    kinds = [valid[index].objective for index in range(10)]
    assert kinds.count(Objective.MASK) == 3
    assert valid[0].tokens.tolist() != open_dataset()[0].tokens.tolist()


def test_row_wraps_around_the_end_of_the_stream():
    dataset = open_dataset(1000, ObjectiveConfig(gmask_share=1.0))
    rows = [np.array(read_gmask_segment(dataset[index])) - FIRST_TOKEN for index in range(40)]
    wrapped = [row for row in rows if (np.diff(row) < 0).any()]
    assert wrapped
    for row in wrapped:
        place = int(np.flatnonzero(np.diff(row) < 0)[0])
        assert (row[place], row[place + 1]) == (999, 0)


def test_fingerprint_changes_with_the_tokens_and_not_with_settings():
    dataset = open_dataset()
    assert dataset.fingerprint == open_dataset(seed=2, seq_length=128).fingerprint
    assert dataset.fingerprint != open_dataset(49_999).fingerprint
    other = replace(SPECIAL, mask=SPECIAL.gmask, gmask=SPECIAL.mask)
    stream = [Source("text", CountingStream(50_000))]
    assert dataset.fingerprint != GLMDataset(stream, other, ObjectiveConfig(), 512, 1).fingerprint


def test_description_is_plain_json_and_changes_with_what_changes_the_samples():
    described = open_dataset().describe()
    assert json.loads(json.dumps(described)) == described
    weighting = ObjectiveConfig(loss_weighting=LossWeighting.token)
    assert open_dataset(objective=weighting).describe() == described
    changed = [
        open_dataset(seed=2),
        open_dataset(seq_length=256),
        open_dataset(49_999),
        open_dataset(objective=ObjectiveConfig(mask_fraction=0.1)),
        open_dataset(name="other"),
    ]
    assert all(dataset.describe() != described for dataset in changed)


def test_objective_whose_spans_never_fit_is_refused_at_once():
    with pytest.raises(ConfigError, match="objective.mask_fraction"):
        open_dataset(objective=ObjectiveConfig(mask_fraction=0.6))
    open_dataset(objective=ObjectiveConfig(mask_fraction=0.6, gmask_share=1.0))


def test_empty_source_is_refused_by_name():
    with pytest.raises(DataError, match="The corpus empty has 0 tokens"):
        open_dataset(0, name="empty")
