"""The torchrun command that starts a run; on several nodes the same line is typed on each of them."""

import shlex
from collections.abc import Sequence

from configs import derive
from configs.load import load_config
from configs.schema import Config
from launch.options import parse

PORT = 29400


def torchrun(words: list[str]) -> str:
    """Render the command for `cluster.nodes` x `cluster.gpus_per_node` processes (at least one whole model).

    Args:
        words: of the command line.

    Raises:
        ConfigError: the configuration cannot run.
    """
    overrides = parse(words, (), ()).overrides
    config = load_config(overrides)
    if config.cluster.nodes > 1:
        return several_nodes(config, overrides, "$HEAD_NODE")
    restarts = f"--max-restarts {config.cluster.max_restarts}"
    ranks = f"--nproc-per-node {derive.planned_world_size(config)}"
    return " ".join(
        ["torchrun --standalone", restarts, ranks, "-m train", *map(shlex.quote, overrides)]
    )


def several_nodes(config: Config, overrides: Sequence[str], head: str) -> str:
    """The command that each of several nodes runs.

    Args:
        config: checked.
        overrides: the words that made it.
        head: name of the node where they meet, or a shell variable that holds it.
    """
    words = [
        # Each start of the ranks gets a store of its own, whatever each node's torchrun has counted.
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1",
        "torchrun",
        f"--nnodes {config.cluster.nodes}",
        f"--max-restarts {config.cluster.max_restarts}",
        f"--rdzv-backend c10d --rdzv-id {shlex.quote(derive.run_name(config))}",
        f'--rdzv-endpoint "{head}:{PORT}"',
        f"--nproc-per-node {derive.ranks_per_node(config)}",
        "-m train",
    ]
    return " ".join([*words, *map(shlex.quote, overrides)])
