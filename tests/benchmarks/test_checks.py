"""The benchmark of the checks between ranks: its table by hand, and that its ranks answer."""

from typing import Any

from benchmarks.bubbles import TINY
from benchmarks.checks import line, shares
from tests.helpers.distributed import run_distributed

FIGURES = {
    "off": [0.2, 0.1, 0.3],
    "on": [0.22, 0.1, 0.33],
    "times": 0.0002,
    "exchange": 0.001,
    "comparison": 0.02,
    "waits": 64,
    "every": 100,
}


def answers(rank: int, world_size: int) -> dict[str, float]:
    """What a rank of the benchmark answers."""
    from benchmarks.checks import checked
    from train.world import World

    words = [*TINY, "model.num_layers=2", "optim.global_batch_size=1", "parallel.tp=2"]
    with checked(World(rank, rank, world_size), words) as answer:
        kinds = ("off", "on", "waits", "times", "exchange", "comparison")
        return {what: answer(what) for what in kinds}


def test_the_table_by_hand() -> None:
    of: dict[str, Any] = shares(FIGURES)
    # A window has five steps, and a hundred steps have one comparison.
    assert {name: round(share, 6) for name, share in of.items()} == {
        "times": 0.001,
        "exchange": 0.001,
        "comparison": 0.001,
    }
    assert line("dp 2 fp32", FIGURES).split() == [
        *("dp", "2", "fp32", "200.0", "1.100", "1.000", "..", "1.100", "64"),
        *("0.100%", "0.100%", "0.100%", "0.300%"),
    ]


def test_its_ranks_answer() -> None:
    for found in run_distributed(answers, 2):
        assert all(found[what] > 0 for what in ("off", "on", "exchange", "comparison"))
        # Two layers with two sums each, forward and backward, and those around them.
        assert found["waits"] >= 8
