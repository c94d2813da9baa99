"""The grid: every rank has one place, neighbours in the order that both libraries use."""

import pytest

from configs.schema import ParallelConfig
from train.topology import Topology


@pytest.mark.parametrize("tp, pp, dp", [(1, 1, 1), (2, 2, 2), (8, 4, 3), (1, 3, 2), (4, 8, 24)])
def test_places_are_a_bijection(tp: int, pp: int, dp: int) -> None:
    places = set()
    for rank in range(tp * pp * dp):
        place = Topology(tp, pp, dp, rank)
        assert rank == (place.pp_rank * dp + place.dp_rank) * tp + place.tp_rank
        places.add((place.tp_rank, place.pp_rank, place.dp_rank))
    assert len(places) == tp * pp * dp


def test_tensor_parallel_ranks_are_neighbours_and_stages_are_far_apart() -> None:
    # 2 x 2 x 2 by hand: ranks 0 and 1 share a layer, 0 and 2 are replicas, 0 and 4 are stages.
    places = [(t.pp_rank, t.dp_rank, t.tp_rank) for t in (Topology(2, 2, 2, r) for r in range(8))]
    assert places == [
        (0, 0, 0),
        (0, 0, 1),
        (0, 1, 0),
        (0, 1, 1),
        (1, 0, 0),
        (1, 0, 1),
        (1, 1, 0),
        (1, 1, 1),
    ]


def test_only_first_and_last_stage_read_data() -> None:
    reads = [Topology(1, 4, 1, rank).reads_data for rank in range(4)]
    assert reads == [True, False, False, True]


def test_the_data_parallel_size_is_what_remains() -> None:
    topology = Topology.from_config(ParallelConfig(tp=4, pp=8), rank=5, world_size=768)
    assert topology.dp == 24
    assert str(topology) == "rank 5: pp 0, dp 1, tp 1"
