"""What replicas wait for with parallel.overlap, against tables written by hand."""

from dataclasses import replace

import pytest

from configs.load import load_config
from launch.estimate.network import Layout
from launch.estimate.overlap import waited_for

LAYOUT = Layout.of(load_config(["experiment=glm_130b_h100"]))


def test_one_chunk_hides_as_much_as_its_last_pass_takes() -> None:
    layout = replace(LAYOUT, chunks=1)
    # A backward pass of 2 s, a forward pass of 1 s.
    assert waited_for(layout, 176, 3.0, 5.0, 0.0) == 3.0
    assert waited_for(layout, 176, 3.0, 0.0, 5.0) == 4.0
    assert waited_for(layout, 176, 3.0, 1.5, 0.5) == 0.0


def test_chunks_hide_beside_the_last_group_of_the_chunks_before_them() -> None:
    # 8 stages of 2 chunks, groups of 8: passes of 1 s back and 0.5 s forward. The second chunk's gradients are complete 8
    # seconds before the end, and travel for 6; those of the first one travel for 6, and their last pass hides 1.
    layout = replace(LAYOUT, chunks=2)
    assert waited_for(layout, 176, 3.0, 12.0, 0.0) == 5.0
    # The second chunk's weights are needed after 4 s and arrive from 6 to 12; the first one's from 0 to 6.
    assert waited_for(layout, 176, 3.0, 0.0, 12.0) == 12 - 4.5
    assert waited_for(layout, 176, 3.0, 0.0, 2.0) == pytest.approx(0.5)


def test_more_than_the_last_group_is_waited_for() -> None:
    layout = replace(LAYOUT, chunks=2)
    # The first chunk's cannot begin before the second chunk's are through: -9 + 30 + 30.
    assert waited_for(layout, 176, 3.0, 60.0, 0.0) == 51.0
