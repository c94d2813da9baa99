"""The plain collator makes what the glm_130b rule makes: same shapes, same means, so that their speeds compare."""

import random

import numpy as np
import pytest

from benchmarks import plain_collator
from configs.schema import ObjectiveConfig, SliceRule
from data_pipeline.dataset import GLMDataset, Source
from tests.helpers.streams import CountingStream
from tests.helpers.tiny import SPECIAL

NUM_ROWS = 400
STORED = list(range(100, 2100))


@pytest.mark.parametrize("gmask_share", [0.0, 1.0])
def test_rows_have_the_shapes_and_means_of_ours(gmask_share: float):
    build = plain_collator.gmask_row if gmask_share else plain_collator.mask_row
    objective = ObjectiveConfig(slice_rule=SliceRule.glm_130b, gmask_share=gmask_share)
    dataset = GLMDataset([Source("text", CountingStream(10**7))], SPECIAL, objective, 2048, 1)
    theirs = [build(random.Random(seed), STORED, SPECIAL) for seed in range(NUM_ROWS)]
    ours = [dataset[index] for index in range(NUM_ROWS)]
    for row in theirs:
        assert {values.shape for values in row.values()} == {(2048,)}
    for name in ("loss_mask", "is_context"):
        sums = [
            [int(row[name].sum()) for row in theirs],
            [int(getattr(sample, name).sum()) for sample in ours],
        ]
        error = np.hypot(*(np.std(each) / NUM_ROWS**0.5 for each in sums))
        assert abs(np.mean(sums[0]) - np.mean(sums[1])) < 4 * error + 1e-9, name


def test_a_gmask_row_holds_every_stored_token():
    row = plain_collator.gmask_row(random.Random(3), STORED, SPECIAL)
    context = row["tokens"][row["is_context"]].tolist()
    assert context[-1] == SPECIAL.gmask
    assert context[:-1] + row["targets"][row["loss_mask"].astype(bool)].tolist() == STORED
