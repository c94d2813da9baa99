"""The nodes of a run and the ranks on each, for its record."""

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import torch.distributed as dist

from train.own_time import can_measure
from train.session import Session
from train.world import node_name


class Hosts(NamedTuple):
    """Where the ranks are."""

    names: list[str]
    """The node of each rank."""
    untimed: list[str]
    """The nodes of ranks whose steps cannot be timed."""


def hosts_of(session: Session) -> Hosts:
    """Ask all ranks where they are; collective."""
    found = [("", True)] * session.topology.world_size
    own = (node_name(), can_measure(session.device))
    dist.all_gather_object(found, own, group=session.control_group)
    return Hosts([name for name, _ in found], [name for name, is_timed in found if not is_timed])


def stretches_of_nodes(names: Sequence[str]) -> list[list[str | int]]:
    """Join neighbouring ranks of one node: 768 ranks on 96 nodes are 96 entries.

    Args:
        names: the node of each rank.

    Returns:
        [name, first rank, number of ranks] of each stretch, in the order of the ranks. A node has several where its
        ranks are not neighbours.
    """
    found = list[list[str | int]]()
    first = 0
    for name, ranks in groupby(names):
        count = len(list(ranks))
        found.append([name, first, count])
        first += count
    return found
