"""Checks of the `cluster.*` keys: SLURM would refuse such a job, or it would fail after hours in the queue."""

import re
from collections.abc import Callable

from configs.scheduler import TIME_FORMS, expand_nodes, limit_seconds
from configs.schema import Config

_VARIABLE = re.compile(r"[A-Za-z_]\w*=.*", re.ASCII)


def _time(config: Config) -> list[str]:
    cluster = config.cluster
    limit = limit_seconds(cluster.time)
    if not limit:
        return [
            f"cluster.time ({cluster.time}) must be {TIME_FORMS}, above 0: SLURM's forms. Try cluster.time=24:00:00."
        ]
    if cluster.signal_seconds < limit:
        return []
    return [
        f"cluster.signal_seconds ({cluster.signal_seconds}) must be below cluster.time ({cluster.time} = {limit:,} s), "
        f"or the run is asked to stop before it starts. Try cluster.signal_seconds={max(limit // 4, 1)}."
    ]


def _time_limit(config: Config) -> list[str]:
    limit = config.run.time_limit
    if limit is None or limit_seconds(limit):
        return []
    return [f"run.time_limit ({limit}) must be {TIME_FORMS}, above 0. Try run.time_limit=12:00:00."]


def _nodes(config: Config) -> list[str]:
    cluster = config.cluster
    if cluster.min_nodes is None or cluster.min_nodes <= cluster.nodes:
        return []
    return [
        f"cluster.min_nodes ({cluster.min_nodes}) must not exceed cluster.nodes ({cluster.nodes}). "
        f"Try cluster.min_nodes={max(cluster.nodes - 1, 1)}."
    ]


def _tensor_parallel(config: Config) -> list[str]:
    cluster, tp = config.cluster, config.parallel.tp
    fits = tp < 1 or cluster.gpus_per_node < 1 or cluster.gpus_per_node % tp == 0
    if cluster.nodes <= 1 or fits or cluster.tp_across_nodes:
        return []
    near = next(
        size
        for size in range(min(tp, cluster.gpus_per_node), 0, -1)
        if cluster.gpus_per_node % size == 0 and tp % size == 0
    )
    return [
        f"parallel.tp ({tp}) does not divide cluster.gpus_per_node ({cluster.gpus_per_node}): tensor parallelism would "
        f"go over the network. Try parallel.tp={near}, or cluster.tp_across_nodes=true if that is meant."
    ]


def _words(config: Config) -> list[str]:
    cluster = config.cluster
    found = [
        f"cluster.environment ({entry}) must be NAME=VALUE. Try cluster.environment=NCCL_DEBUG=INFO."
        for entry in cluster.environment
        if not _VARIABLE.fullmatch(entry)
    ]
    found += [
        f"cluster.exclude ({nodes}) must name nodes as SLURM does, such as node042 or nid[010696-010718]. "
        "Try cluster.exclude=[node042,node7]."
        for nodes in cluster.exclude
        if expand_nodes(nodes) is None
    ]
    options = {"srun_options": cluster.srun_options, "sbatch_options": cluster.sbatch_options}
    found += [
        f"cluster.{name} ({option}) must begin with - and stand on one line. Try cluster.{name}=--exclusive."
        for name, given in options.items()
        for option in given
        if not option.startswith("-") or "\n" in option
    ]
    names = {"partition": cluster.partition, "account": cluster.account, "qos": cluster.qos}
    found += [
        f"cluster.{name} ({value}) must be one word. Try cluster.{name}=null for the cluster's default."
        for name, value in names.items()
        if value is not None and not re.fullmatch(r"[\w.,@+-]+", value)
    ]
    return found


CHECKS: tuple[Callable[[Config], list[str]], ...] = (
    _time,
    _time_limit,
    _nodes,
    _tensor_parallel,
    _words,
)
