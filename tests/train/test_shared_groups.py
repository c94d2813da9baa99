"""On CPU the libraries share the process groups of equal ranks."""

from typing import Any

import pytest
import torch

from tests.helpers.distributed import run_distributed
from tests.helpers.rank_runs import config_of, rank_session
from train.shared_groups import shared_groups


def opened_groups(rank: int, world_size: int, overrides: tuple[str, ...]) -> tuple[int, list[str]]:
    """How many groups an engine's rank has, and which ranks Megatron-core's tensor and data groups have."""
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import _world

    from train.distributed import group_members
    from train.engine.pipeline import PipelineEngine

    config = config_of(overrides, world_size)
    with rank_session(rank, world_size, config) as session:
        engine = PipelineEngine(config, session)
        count = len(_world.pg_map)
        members = group_members()
        # A group of every kind works.
        for group in (session.dp_group, engine.module._grid.dp_proc_group):
            total = torch.ones(1)
            dist.all_reduce(total, group=group)
            assert total == dist.get_world_size(group)
        engine.close()
    return count, [str(members[axis]) for axis in ("tensor", "data")]


def test_one_process_has_one_group() -> None:
    [(count, members)] = run_distributed(opened_groups, 1, ("precision=bf16",))
    assert count == 1
    assert members == ["[0]", "[0]"]


def test_groups_of_other_ranks_stay_apart() -> None:
    ranks = run_distributed(opened_groups, 4, ("precision=bf16", "parallel.tp=2"))
    assert [members for _, members in ranks] == [
        ["[0, 1]", "[0, 2]"],
        ["[0, 1]", "[1, 3]"],
        ["[2, 3]", "[0, 2]"],
        ["[2, 3]", "[1, 3]"],
    ]
    # That of all ranks, which the control plane has to itself; for each library tensor, data, both, and a rank alone.
    assert {count for count, _ in ranks} == {9}


def test_other_devices_keep_every_group_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    monkeypatch.setattr("torch.distributed.new_group", opened.append)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    before = torch.distributed.new_group
    with shared_groups(torch.device("cuda", 0)):
        assert torch.distributed.new_group is before
    with shared_groups(torch.device("cpu")):
        torch.distributed.new_group(range(2))
        torch.distributed.new_group([0, 1])
        torch.distributed.new_group([1])
    assert torch.distributed.new_group is before
    assert opened == [[0, 1], [1]]
