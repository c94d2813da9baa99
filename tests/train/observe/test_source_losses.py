"""Sums of losses by source: kept and read back bit for bit, whatever the sources are by then."""

import json
import math

from train.observe.source_losses import SourceSums


def test_means_are_of_weighted_rows_and_null_without_any() -> None:
    sums = SourceSums(["a.txt", "b"])
    sums.add("a.txt", 3.0, 0.5)
    sums.add("a.txt", 1.0, 0.5)
    assert sums.means("train/") == {"train/a.txt": 4.0, "train/b": None}
    assert sums.to_list() == [4.0, 1.0, 0.0, 0.0]
    sums.add_list([0.0, 1.0, 2.0, 0.25])
    assert sums.means("") == {"a.txt": 2.0, "b": 8.0}


def test_a_checkpoint_gives_the_same_bits() -> None:
    sums = SourceSums(["a", "b", "c"])
    sums.add("a", 0.1 + 0.2, 1 / 3)
    sums.add("b", math.nan, 1.0)
    sums.add("c", math.inf, 1.0)
    stored = json.loads(json.dumps(sums.state(), allow_nan=False))
    again = SourceSums(["a", "b", "c"], stored)
    assert str(again.to_list()) == str(sums.to_list())
    # A source that is new begins at zero, one that is gone is forgotten.
    other = SourceSums(["z", "a"], stored)
    assert other.to_list() == [0.0, 0.0, 0.1 + 0.2, 1 / 3]
    for damaged in (None, "damaged", {"a": None}, {"a": [1.0]}, {"a": ["x", 1.0]}):
        assert SourceSums(["a"], damaged).to_list() == [0.0, 0.0]
