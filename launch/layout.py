"""How many ranks to start on the nodes that are left, as `name=value` lines for job scripts of your own."""

from pathlib import Path

from configs import derive
from configs.errors import ConfigError
from configs.load import load_config
from configs.schema import Config
from launch.options import parse
from launch.status import samples_seen


def layout(words: list[str]) -> str:
    """Choose the largest number of nodes on which every batch still to come divides among the replicas.

    Args:
        words: overrides, `--nodes N` (nodes that are available; default: `cluster.nodes`), and `--run FOLDER` (the run
            whose status.json says how far it has come; default: the configuration's).

    Raises:
        ConfigError: the configuration cannot run, or there are too few nodes.
    """
    request = parse(words, (), ("--nodes", "--run"))
    config = load_config(request.overrides)
    there = min(request.number("--nodes", config.cluster.nodes), config.cluster.nodes)
    run = Path(request.values.get("--run", [derive.run_dir(config)])[-1])
    seen = samples_seen(run)
    counts = [counts for first, counts in node_counts(config) if first <= seen][-1]
    nodes = next((count for count in counts if count <= there), None)
    if nodes is None:
        raise ConfigError(
            [
                f"--nodes ({there}) is too few: the run needs {min(counts)} nodes for its batches after {seen:,} "
                f"samples. Wait for them, or try a smaller parallel.tp x parallel.pp."
            ]
        )
    ranks = nodes * derive.ranks_per_node(config)
    values = {
        "nodes": nodes,
        "ranks": ranks,
        "ranks_per_node": derive.ranks_per_node(config),
        "dp": derive.data_parallel_size(config, ranks),
        "samples_seen": seen,
    }
    return "\n".join(f"{name}={value}" for name, value in values.items())


def node_counts(config: Config) -> list[tuple[int, list[int]]]:
    """For each stretch of the run, the numbers of whole nodes that it can train on, largest first.

    Args:
        config: a checked configuration; `cluster.nodes` is the largest number of nodes.

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
