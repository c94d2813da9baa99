"""What the ranks compare after each step."""

from types import SimpleNamespace
from typing import Any

import pytest

from configs.errors import DistributedError
from train.loop import Trainer
from train.topology import Topology

LAYOUT = Topology(tp=2, pp=3, dp=2, rank=0)


def check(checksums: list[float]) -> None:
    trainer: Any = SimpleNamespace(session=SimpleNamespace(topology=LAYOUT))
    step: Any = SimpleNamespace(samples_seen=40)
    Trainer._check_checksums(trainer, step, checksums)


def test_ranks_of_a_replica_must_have_read_the_same() -> None:
    # Ranks in order: stage by stage, in it replica by replica, in it the two tensor-parallel ranks.
    stage = [7.0, 7.0, 9.0, 9.0]
    middle = [0.0] * 4  # reads no data
    check([*stage, *middle, *stage])
    for other in ([7.0, 7.0, 9.0, 8.0], [7.0, 7.0, 8.0, 8.0]):
        with pytest.raises(DistributedError, match="replica 1 drew different data .* sample 40"):
            check([*stage, *middle, *other])
