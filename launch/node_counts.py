"""On how many nodes a run can go on: every batch that is still to come must divide among the replicas.

The global batch never depends on the number of replicas, so fewer nodes train the same samples more slowly. With a
batch ramp the answer changes on the way: GLM-130B on 95 of its 96 nodes works with 12 replicas during the ramp (48
nodes) and 22 after it (88 nodes).
"""

from configs import derive
from configs.schema import Config


def node_counts(config: Config) -> list[tuple[int, list[int]]]:
    """For each stretch of the run, the numbers of whole nodes that work, largest first.

    Args:
        config: checked; `cluster.nodes` is the largest number of nodes.

    Returns:
        (first sample of the stretch, numbers of nodes) in order; a stretch begins only where the numbers change.
    """
    sizes = [level.batch_size for level in derive.ramp_levels(config.optim)]
    first_samples = [level.first_sample for level in derive.ramp_levels(config.optim)]
    stretches: list[tuple[int, list[int]]] = []
    for index, first_sample in enumerate(first_samples):
        counts = [
            nodes
            for nodes in range(config.cluster.nodes, 0, -1)
            if _works(config, nodes, sizes[index:])
        ]
        if not stretches or counts != stretches[-1][1]:
            stretches.append((first_sample, counts))
    return stretches


def _works(config: Config, nodes: int, batch_sizes: list[int]) -> bool:
    ranks = nodes * derive.ranks_per_node(config)
    replica = config.parallel.tp * config.parallel.pp
    if ranks < replica or ranks % replica:
        return False
    dp = derive.data_parallel_size(config, ranks)
    return all(derive.divides(config.optim, dp, size) for size in batch_sizes)
