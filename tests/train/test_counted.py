"""What a run counts by itself is settled when it begins, and keeps its meaning to its end."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from configs.errors import CheckpointError, ConfigError
from configs.objectives import BUILT_IN, Objective
from configs.schema import ObjectiveConfig
from data_pipeline.dataset import GLMDataset, Source
from data_pipeline.sentences import SentenceBlanks
from glm.checkpoint.manifest import Manifest
from glm.loss import ObjectiveSums
from tests.helpers.streams import CountingStream
from tests.helpers.tiny import SPECIAL
from train.counted import counted_keys
from train.metrics import loss_metrics, metric_keys

FIRST = ("mask", "gmask", "mip")
MORE = (*BUILT_IN, Objective("copy", "COPY", "copied texts", maker="nowhere:Nothing"))


def manifest(extra: dict[str, Any]) -> Manifest:
    return cast(Manifest, SimpleNamespace(step=3, extra=extra))


def test_a_new_run_counts_every_objective() -> None:
    assert counted_keys(MORE, None) == (*FIRST, "smask", "copy")


def test_a_run_of_a_version_that_knew_three_counts_three() -> None:
    assert counted_keys(BUILT_IN, manifest({})) == FIRST
    assert [key for key in metric_keys(FIRST) if key.startswith("train/loss")] == [
        "train/loss",
        "train/loss_mask",
        "train/loss_gmask",
        "train/loss_mip",
    ]


def test_a_run_keeps_the_loss_of_an_objective_that_it_no_longer_draws() -> None:
    kept = ["mask", "gmask", "mip", "smask", "copy"]
    assert counted_keys(BUILT_IN, manifest({"objectives": kept})) == tuple(kept)


def test_an_objective_that_its_metrics_have_no_place_for_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"adds copy, .* run.name=NAME"):
        counted_keys(MORE, manifest({"objectives": list(FIRST)}))


@pytest.mark.parametrize("stored", ["mask", [1], ["mask", "mask"], ["../mask"], ["x"] * 2000, {}])
def test_a_list_that_is_none_is_refused(stored: Any) -> None:
    with pytest.raises(CheckpointError, match="written by another program"):
        counted_keys(BUILT_IN, manifest({"objectives": stored}))


def hiding_sentences() -> GLMDataset:
    """[MASK] rows; every tenth token ends a sentence."""
    stream = CountingStream(20_000)
    is_end = np.arange(40_000) % 10 == 0
    sentences = SentenceBlanks(SPECIAL, is_end)
    objective = ObjectiveConfig(gmask_share=0.0, smask_share=0.5)
    return GLMDataset([Source("text", stream)], SPECIAL, objective, 128, 1, sentences=sentences)


def sums_of(dataset: GLMDataset) -> ObjectiveSums:
    """As if every target's loss were its number's square: sentences and spans differ."""
    sums = ObjectiveSums.zeros(len(dataset.objectives))
    for index in range(20):
        sample = dataset[index]
        kinds = sample.objectives[sample.loss_mask]
        for number in range(len(dataset.objectives)):
            count = int((kinds == number).sum())
            sums.losses[number] += count * (number + 1) ** 2 / len(kinds)
            sums.weights[number] += count / len(kinds)
    return sums


def test_sentences_count_by_themselves_in_a_new_run_and_as_masks_in_an_older_one() -> None:
    dataset = hiding_sentences()
    new = loss_metrics("train", sums_of(dataset), dataset.objectives, (*FIRST, "smask"))
    assert new["train/loss_mask"] == pytest.approx(1)
    assert new["train/loss_smask"] == pytest.approx(16)
    assert 1 < new["train/loss"] < 16
    tokens = [dataset[index].tokens.tolist() for index in range(20)]

    dataset.count_as(FIRST)
    old = sums_of(dataset)
    assert old.weights[0] == pytest.approx(20), "every row is a [MASK] row"
    values = loss_metrics("train", old, dataset.objectives, FIRST)
    assert "train/loss_smask" not in values and values["train/loss_mask"] == values["train/loss"]
    assert [dataset[index].tokens.tolist() for index in range(20)] == tokens
    assert dataset.objectives[3] is Objective.SMASK


def test_a_loss_that_has_no_name_is_never_dropped() -> None:
    sums = ObjectiveSums([0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0])
    with pytest.raises(AssertionError, match="counted as another"):
        loss_metrics("train", sums, BUILT_IN, FIRST)
