"""The nodes of a run: every rank once, and few entries however many ranks."""

import json
import os
from itertools import repeat

from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.distributed import run_distributed
from tests.helpers.rank_runs import config_of, rank_session
from train.nodes import hosts_of, stretches_of_nodes


def test_neighbouring_ranks_of_a_node_are_one_entry() -> None:
    assert stretches_of_nodes(["a", "a", "b", "a"]) == [["a", 0, 2], ["b", 2, 1], ["a", 3, 1]]


def test_96_nodes_of_8_ranks_are_a_short_event() -> None:
    names = [f"node{number:03d}.cluster.example" for number in range(96) for _ in range(8)]
    found = stretches_of_nodes(names)
    assert len(found) == 96 and len(json.dumps(found)) < 4096


@given(st.lists(st.sampled_from("abc"), max_size=40))
def test_the_entries_tell_the_node_of_each_rank(names: list[str]) -> None:
    found = stretches_of_nodes(names)
    assert [name for name, _, count in found for name in repeat(name, int(count))] == names
    assert [first for _, first, _ in found] == [
        sum(int(count) for _, _, count in found[:place]) for place in range(len(found))
    ]


def _ask(rank: int, world_size: int) -> list[list[str | int]]:
    os.environ["SLURMD_NODENAME"] = f"node{rank // 2}"
    with rank_session(rank, world_size, config_of((), world_size)) as session:
        return stretches_of_nodes(hosts_of(session).names)


def test_all_ranks_learn_the_same_nodes() -> None:
    expected = [["node0", 0, 2], ["node1", 2, 2]]
    assert run_distributed(_ask, 4) == [expected] * 4
