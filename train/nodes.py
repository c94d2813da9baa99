"""The nodes of a run and the ranks on each, for its record."""

from collections.abc import Sequence
from itertools import groupby

import torch.distributed as dist

from train.session import Session
from train.world import node_name


def nodes_of(session: Session) -> list[list[str | int]]:
    """Ask all ranks where they are; collective.

    Returns:
        See `stretches_of_nodes`.
    """
    names = [""] * session.topology.world_size
    dist.all_gather_object(names, node_name(), group=session.control_group)
    return stretches_of_nodes(names)


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
