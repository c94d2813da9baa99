"""The torchrun command that starts a run; on several nodes the same line is typed on each of them."""

import shlex

from configs import derive
from configs.load import load_config

_PORT = 29400


def torchrun(overrides: list[str]) -> str:
    """Render the command for `cluster.nodes` x `cluster.gpus_per_node` processes (at least one whole model).

    Args:
        overrides: words of the command line.

    Raises:
        ConfigError: the configuration cannot run.
    """
    config = load_config(overrides)
    nodes = config.cluster.nodes
    words = ["torchrun"]
    if nodes == 1:
        words.append("--standalone")
    else:
        meeting = f"--rdzv-backend c10d --rdzv-id {shlex.quote(derive.run_name(config))}"
        words += [f"--nnodes {nodes}", meeting, f'--rdzv-endpoint "$HEAD_NODE:{_PORT}"']
    words.append(f"--nproc-per-node {derive.planned_world_size(config) // nodes}")
    return " ".join([*words, "-m train", *map(shlex.quote, overrides)])
