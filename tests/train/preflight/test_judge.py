"""Who may join: every rule by an example that breaks it alone."""

from dataclasses import replace
from typing import Any

import pytest

from train.preflight.judge import GPU_LIMITS, Verdict, judge
from train.preflight.measurement import Measurement, Traffic

GOOD = Measurement(
    host="",
    local_rank=0,
    device="GPU",
    num_devices=2,
    memory_gib=80.0,
    matmul_tflops=600.0,
    memory_gb_per_second=3000.0,
    disk_mb_per_second=500.0,
    clock_offset_seconds=0.01,
    versions={"torch": "2.9", "driver": "550"},
    data={"shards/a": "readable"},
)


def nodes(count: int = 4) -> dict[int, Measurement]:
    """Two ranks on each of `count` nodes, none quite like another."""
    return {
        rank: replace(
            GOOD,
            host=f"node{rank // 2}",
            local_rank=rank % 2,
            matmul_tflops=600.0 + rank,
            disk_mb_per_second=500.0 if rank % 2 == 0 else None,
        )
        for rank in range(2 * count)
    }


def network(count: int = 4, slow: int | None = None) -> dict[int, Traffic]:
    """A ring of nodes; every pair with the slow one is slow."""
    found = {}
    for rank in range(2 * count):
        node = rank // 2
        between = {
            f"node{other}": 5.0 if slow in (node, other) else 40.0
            for other in ((node - 1) % count, (node + 1) % count)
        }
        found[rank] = Traffic(300.0, between)
    return found


def bad(verdicts: list[Verdict]) -> dict[str, list[str]]:
    return {verdict.host: verdict.problems for verdict in verdicts if verdict.problems}


def test_nodes_that_are_nearly_alike_may_all_join() -> None:
    verdicts = judge(nodes(), network(), [], 2, GPU_LIMITS)
    assert bad(verdicts) == {}
    assert [verdict.host for verdict in verdicts] == ["node0", "node1", "node2", "node3"]
    # A node is as fast as its slower rank.
    assert [verdict.matmul_tflops for verdict in verdicts] == [600, 602, 604, 606]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"matmul_tflops": 500.0}, "500 TFLOP/s of matrix products, the median is 60"),
        ({"memory_gb_per_second": 2000.0}, "2000 GB/s of memory, the median is 3000"),
        ({"clock_offset_seconds": -90.0}, "its clock is -90.0 s off"),
        ({"versions": {"torch": "2.8", "driver": "550"}}, "torch is 2.8, elsewhere 2.9"),
        ({"device_errors": ["GPU 3: 2 uncorrected memory errors"]}, "GPU 3: 2 uncorrected"),
        ({"data": {"shards/a": "absent"}}, "data.paths: shards/a is not there"),
        ({"data": {"shards/a": "DataError: torn"}}, "shards/a: DataError: torn"),
    ],
)
@pytest.mark.parametrize("rank", [4, 5])
def test_one_bad_rank_keeps_its_node_out(change: dict[str, Any], words: str, rank: int) -> None:
    ranks = nodes()
    ranks[rank] = replace(ranks[rank], **change)
    found = bad(judge(ranks, network(), [], 2, GPU_LIMITS))
    assert list(found) == ["node2"]
    assert words in "; ".join(found["node2"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_devices": 1}, "1 GPUs, the run puts 2 ranks on each node"),
        ({"disk_mb_per_second": 20.0}, "20 MB/s to disk, the median is 500"),
    ],
)
def test_what_the_first_rank_sees_for_its_node(change: dict[str, Any], words: str) -> None:
    ranks = nodes()
    ranks[2] = replace(ranks[2], **change)
    found = bad(judge(ranks, network(), [], 2, GPU_LIMITS))
    assert list(found) == ["node1"]
    assert words in "; ".join(found["node1"])


def test_more_gpus_than_ranks_are_no_fault() -> None:
    ranks = {rank: replace(one, num_devices=8) for rank, one in nodes().items()}
    assert bad(judge(ranks, network(), [], 2, GPU_LIMITS)) == {}


def test_a_slow_link_is_its_nodes_own_not_its_neighbours() -> None:
    found = bad(judge(nodes(5), network(5, slow=2), [], 2, GPU_LIMITS))
    assert found == {"node2": ["5 GB/s between nodes, the median is 40"]}


def test_slow_neighbours_within_a_node() -> None:
    traffic = network()
    traffic[6] = replace(traffic[6], within_node=20.0)
    found = bad(judge(nodes(), traffic, [], 2, GPU_LIMITS))
    assert found == {"node3": ["20 GB/s within the node, the median is 300"]}


def test_a_sum_that_failed_is_told() -> None:
    traffic = network()
    traffic[1] = replace(traffic[1], error="a sum failed: timed out")
    assert bad(judge(nodes(), traffic, [], 2, GPU_LIMITS)) == {"node0": ["a sum failed: timed out"]}


def test_ranks_that_do_not_answer_are_named() -> None:
    ranks = nodes()
    del ranks[3], ranks[4]
    found = bad(judge(ranks, {}, [3, 4], 2, GPU_LIMITS))
    assert found == {"ranks 3, 4": ["did not answer"]}


def test_data_that_is_nowhere_a_file_is_no_nodes_fault() -> None:
    """The name of a data set, or `python-docs`."""
    ranks = {rank: replace(one, data={"c4": "absent"}) for rank, one in nodes().items()}
    assert bad(judge(ranks, network(), [], 2, GPU_LIMITS)) == {}


def test_measurements_travel_as_they_are() -> None:
    assert Measurement.from_json(GOOD.to_json()) == GOOD
    traffic = network()[3]
    assert Traffic.from_json(traffic.to_json()) == traffic
