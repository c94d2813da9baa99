"""Who may join: every rule by an example that breaks it alone."""

from dataclasses import replace
from typing import Any

import pytest

from train.preflight.judge import GPU_LIMITS, Judgement, judge
from train.preflight.measurement import Measurement, Traffic

GOOD = Measurement(
    host="",
    local_rank=0,
    device="GPU",
    num_devices=2,
    memory_gib=80.0,
    free_memory_gib=79.0,
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


def judged(
    ranks: dict[int, Measurement],
    traffic: dict[int, Traffic],
    silent: dict[int, str] | None = None,
    hosts: dict[int, str] | None = None,
) -> Judgement:
    """The judgement on nodes of two ranks; without `hosts` only those that measured themselves are known."""
    known = {rank: one.host for rank, one in ranks.items()} if hosts is None else hosts
    return judge(known, ranks, traffic, silent or {}, 2, GPU_LIMITS)


def bad(judgement: Judgement) -> dict[str, list[str]]:
    return {verdict.host: verdict.problems for verdict in judgement.nodes if verdict.problems}


def test_nodes_that_are_nearly_alike_may_all_join() -> None:
    judgement = judged(nodes(), network())
    assert judgement.is_good
    verdicts = judgement.nodes
    assert [verdict.host for verdict in verdicts] == ["node0", "node1", "node2", "node3"]
    # A node is as fast as its slower rank.
    assert [verdict.matmul_tflops for verdict in verdicts] == [600, 602, 604, 606]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"matmul_tflops": 500.0}, "500 TFLOP/s of matrix products, the median is 60"),
        ({"memory_gb_per_second": 2000.0}, "2000 GB/s of memory, the median is 3000"),
        ({"memory_gib": 40.0}, "40 GiB of GPU memory, the median is 80"),
        ({"free_memory_gib": 60.0}, "60 GiB of GPU memory free, the median is 79"),
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
    found = bad(judged(ranks, network()))
    assert list(found) == ["node2"]
    assert words in "; ".join(found["node2"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_devices": 1}, "1 GPUs, but the run has 2 ranks on each node"),
        ({"disk_mb_per_second": 20.0}, "20 MB/s to disk, the median is 500"),
        (
            {"disk_mb_per_second": None, "disk_error": "runs/a: Read-only file system"},
            "it cannot write to runs/a: Read-only file system",
        ),
    ],
)
def test_what_the_first_rank_sees_for_its_node(change: dict[str, Any], words: str) -> None:
    ranks = nodes()
    ranks[2] = replace(ranks[2], **change)
    found = bad(judged(ranks, network()))
    assert list(found) == ["node1"]
    assert words in "; ".join(found["node1"])


def test_more_gpus_than_ranks_are_no_fault() -> None:
    ranks = {rank: replace(one, num_devices=8) for rank, one in nodes().items()}
    assert bad(judged(ranks, network())) == {}


def test_a_slow_link_is_its_nodes_own_not_its_neighbours() -> None:
    found = bad(judged(nodes(5), network(5, slow=2)))
    assert found == {"node2": ["5 GB/s between nodes, the median is 40"]}


def test_slow_neighbours_within_a_node() -> None:
    traffic = network()
    traffic[6] = replace(traffic[6], within_node=20.0)
    found = bad(judged(nodes(), traffic))
    assert found == {"node3": ["20 GB/s within the node, the median is 300"]}


def without(count: int, *dead: tuple[int, int]) -> dict[int, Traffic]:
    """A ring of nodes in which the sums over some links have failed."""
    found = network(count)
    for rank, told in found.items():
        node = rank // 2
        ends = {
            second if node == first else first for first, second in dead if node in (first, second)
        }
        failed = {f"node{end}" for end in ends}
        works = {host: speed for host, speed in told.between_nodes.items() if host not in failed}
        found[rank] = Traffic(300.0, works, dict.fromkeys(sorted(failed), "timed out"))
    return found


def test_a_sum_that_failed_within_a_node_is_its_own() -> None:
    traffic = network()
    traffic[1] = Traffic(None, traffic[1].between_nodes, {"node0": "timed out"})
    assert bad(judged(nodes(), traffic)) == {
        "node0": ["the all-reduce within the node failed: timed out"]
    }


def test_a_node_is_cut_off_if_no_neighbour_reaches_it_and_they_are_not() -> None:
    judgement = judged(nodes(5), without(5, (1, 2), (2, 3)))
    assert bad(judgement) == {"node2": ["no all-reduce with node1 nor node3 succeeded: timed out"]}
    assert judgement.problems == []


@pytest.mark.parametrize("count", [3, 4, 7])
def test_one_dead_link_blames_neither_end_but_nothing_starts(count: int) -> None:
    judgement = judged(nodes(count), without(count, (0, 1)))
    assert bad(judgement) == {}
    assert judgement.problems == ["The all-reduce between node0 and node1 failed: timed out"]
    assert not judgement.is_good


def test_of_two_nodes_neither_is_blamed() -> None:
    judgement = judged(nodes(2), without(2, (0, 1)))
    assert bad(judgement) == {}
    assert judgement.problems == ["The all-reduce between node0 and node1 failed: timed out"]


def test_a_network_in_which_nothing_works_blames_no_node() -> None:
    """Such as a wrong NCCL_SOCKET_IFNAME: it must not exclude the whole cluster."""
    judgement = judged(nodes(4), without(4, (0, 1), (1, 2), (2, 3), (3, 0)))
    assert bad(judgement) == {}
    assert len(judgement.problems) == 4


def test_a_node_that_is_bad_anyway_explains_its_dead_links() -> None:
    ranks = nodes(2)
    ranks[2] = replace(ranks[2], device_errors=["GPU 0: broken"])
    judgement = judged(ranks, without(2, (0, 1)))
    assert bad(judgement) == {"node1": ["GPU 0: broken"]}
    assert judgement.problems == []


def test_one_rank_that_failed_is_enough_for_its_link() -> None:
    traffic = network(4)
    traffic[0] = Traffic(300.0, {"node3": 40.0}, {"node1": "timed out"})
    assert judged(nodes(4), traffic).problems == [
        "The all-reduce between node0 and node1 failed: timed out"
    ]


def test_ranks_that_do_not_answer_keep_their_node_out() -> None:
    ranks = nodes()
    hosts = {rank: one.host for rank, one in ranks.items()}
    del ranks[3], ranks[4], ranks[5]
    silent = {3: "did not answer", 4: "did not answer", 5: "could not measure itself: no GPU"}
    judgement = judged(ranks, {}, silent, hosts)
    assert bad(judgement) == {
        "node1": ["rank 3 did not answer"],
        "node2": ["rank 4 did not answer", "rank 5 could not measure itself: no GPU"],
    }
    assert judgement.problems == []


def test_what_fails_on_every_node_is_no_nodes_fault() -> None:
    """A wrong NCCL_SOCKET_IFNAME, or an installation that knows no kernel for this GPU."""
    ranks = nodes()
    hosts = {rank: one.host for rank, one in ranks.items()}
    silent = dict.fromkeys(ranks, "could not measure itself: no kernel image")
    judgement = judged({}, {}, silent, hosts)
    assert bad(judgement) == {}
    (problem,) = judgement.problems
    assert "On every node: rank 0 could not measure itself: no kernel image" in problem
    traffic = {rank: Traffic(None, {}, {host: "no such interface"}) for rank, host in hosts.items()}
    judgement = judged(ranks, traffic)
    assert bad(judgement) == {}
    assert "the all-reduce within the node failed: no such interface" in judgement.problems[0]


def test_ranks_of_unknown_nodes_are_named_and_no_node_is_blamed() -> None:
    ranks = nodes()
    del ranks[3], ranks[4]
    judgement = judged(ranks, {}, {3: "did not answer", 4: "did not answer"})
    assert judgement.problems == ["Ranks 3, 4 never started: their nodes are not known."]
    assert judgement.bad_hosts == [] and not judgement.is_good


def test_a_node_whose_gpus_are_gone_is_no_cpu_node() -> None:
    ranks = nodes()
    ranks[4] = replace(ranks[4], num_devices=None)
    assert bad(judged(ranks, network())) == {
        "node2": ["0 GPUs, but the run has 2 ranks on each node"]
    }
    cpus = {rank: replace(one, num_devices=None) for rank, one in nodes().items()}
    assert judged(cpus, network()).is_good


def test_what_no_node_can_do_is_no_nodes_fault() -> None:
    full = {
        "disk_mb_per_second": None,
        "disk_error": "runs/a: No space left on device",
        "data": {"shards/a": "DataError: torn"},
    }
    ranks = {rank: replace(one, **full) for rank, one in nodes().items()}
    judgement = judged(ranks, network())
    assert judgement.bad_hosts == []
    assert judgement.problems == [
        "No node can write to runs/a: No space left on device",
        "No node can read data.paths: shards/a: DataError: torn",
    ]


def test_if_rank_0_has_the_wrong_time_the_others_are_not_to_blame() -> None:
    ranks = {
        rank: replace(one, clock_offset_seconds=0.0 if rank < 2 else -90.0)
        for rank, one in nodes().items()
    }
    found = bad(judged(ranks, network()))
    assert found == {
        "node0": [
            "local rank 0: its clock is +90.0 s off",
            "local rank 1: its clock is +90.0 s off",
        ]
    }


def test_data_that_is_nowhere_a_file_is_no_nodes_fault() -> None:
    """The name of a data set, or `python-docs`."""
    ranks = {rank: replace(one, data={"c4": "absent"}) for rank, one in nodes().items()}
    assert bad(judged(ranks, network())) == {}


def test_measurements_travel_as_they_are() -> None:
    assert Measurement.from_json(GOOD.to_json()) == GOOD
    traffic = network()[3]
    assert Traffic.from_json(traffic.to_json()) == traffic
