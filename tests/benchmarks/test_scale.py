"""The benchmark of larger runs: what it counts at 768 ranks, and what it measures on two."""

from typing import Any

from benchmarks.bubbles import TINY
from benchmarks.scale import Size, large_table, of_the_slowest, table
from tests.helpers.distributed import run_distributed

LARGE = {"layout": [4, 8, 24], "groups": [24, 768], "peers": 790, "exchange_bytes": 12_352}


def counted(rank: int, world_size: int) -> dict[str, Any]:
    """A rank of the published run, and the exchange of two sizes."""
    from benchmarks.control_plane import counted, exchange_bytes
    from configs.load import load_config
    from train.topology import Topology

    words = ["experiment=glm_130b", "precision=fp16", "data.paths=[none]"]
    with counted(None, words, 768) as answer:  # pyright: ignore
        found = answer()
    small = Topology.from_config(load_config(words, 32).parallel, 0, 32)
    return {**found, "small": exchange_bytes(load_config(words, 32), small)}


def test_the_published_run_is_counted_with_its_own_code() -> None:
    found = run_distributed(counted, 1)[0]
    assert found["layout"] == [4, 8, 24]
    # One over all ranks, and one over the replicas.
    assert sorted(found["groups"]) == [24, 768]
    assert found["peers"] == 23 + 767
    # Losses and weights of two objectives, four numbers of a step, and two of each rank.
    assert found["exchange_bytes"] == 8 * (4 + 4 + 2 * 768)
    assert found["small"] == 8 * (4 + 4 + 2 * 32)


def measured_here(rank: int, world_size: int) -> tuple[dict[str, float], list[tuple[float, float]]]:
    """What a rank of the benchmark answers."""
    from benchmarks.control_plane import measured
    from train.world import World

    words = [*TINY, "model.num_layers=2", f"optim.global_batch_size={world_size}"]
    with measured(World(rank, rank, world_size), words) as answer:
        return answer("start"), answer("steps")


def test_two_ranks_are_measured() -> None:
    starts, ranks = zip(*run_distributed(measured_here, 2), strict=True)
    for start in starts:
        # Each group of two connects its ranks; there are sockets to listen on, too.
        assert start["peers"] > 0
        assert start["sockets"] > start["peers"]
        assert start["seconds"] > 0
    assert len(ranks) == 2
    assert all(step > 0 and exchange > 0 for steps in ranks for step, exchange in steps)


def test_the_slowest_rank_of_each_step_counts() -> None:
    ranks = [[(1.0, 0.5), (4.0, 0.1), (2.0, 0.3)], [(3.0, 0.2), (1.0, 0.4), (2.5, 0.1)]]
    assert of_the_slowest(ranks) == {"step": 3.0, "exchange": 0.4}


def test_the_table_compares_with_a_step_of_one_process() -> None:
    one = Size(1, [0.5], [2**20], 12, 0, [0.02, 0.03, 0.01], [0.0001])
    two = Size(2, [0.7], [2**21], 14, 5, [0.05], [0.001, 0.003])
    _, first, second = table([one, two])
    assert first.split()[:9] == ["1", "0.50", "1.0", "12", "0", "20.0", "0.10", "0.5%", "0.10"]
    assert second.split()[:9] == ["2", "0.70", "2.0", "14", "5", "50.0", "2.00", "10.0%", "1.00"]


def test_large_runs_are_told_in_a_sentence() -> None:
    (line,) = large_table(LARGE)
    assert line == (
        "768 ranks (tp 4, pp 8, dp 24), counted: 790 gloo connections a rank, in groups of 24, 768; 12,352 bytes an "
        "exchange."
    )
