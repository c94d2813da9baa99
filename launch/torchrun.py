"""The torchrun command that starts a run; on several nodes the same line is typed on each of them.

python -m launch torchrun experiment=glm_10b_1node             # look at it
python -m launch torchrun experiment=glm_10b_1node --submit    # start it here
"""

import shlex
from collections.abc import Sequence

from configs import derive
from configs.errors import UserError
from configs.load import load_config
from configs.schema import Config
from launch.become import become
from launch.options import parse

PORT = 29400


def torchrun(words: list[str]) -> str:
    """Render the command for `cluster.nodes` x `cluster.gpus_per_node` processes (at least one whole model).

    Args:
        words: overrides; with `--submit` this process is replaced by the command, if the run needs one node only.

    Raises:
        UserError: the configuration cannot run, or `--submit` is given and the run needs several nodes.
    """
    request = parse(words, ("--submit",), ())
    overrides = request.overrides
    config = load_config(overrides)
    starts = "--submit" in request.switches
    if config.cluster.nodes > 1:
        if starts:
            raise UserError(_needs_others(config, overrides))
        return several_nodes(config, overrides, "$HEAD_NODE")
    restarts = ["--max-restarts", str(config.cluster.max_restarts)]
    ranks = ["--nproc-per-node", str(derive.planned_world_size(config))]
    options = [*restarts, *ranks, "-m", "train", *overrides]
    if starts:
        become("train.torchrun", options)
    # torchrun --standalone would listen on every address of the machine.
    return shlex.join(["python", "-m", "train.torchrun", *options])


def several_nodes(config: Config, overrides: Sequence[str], head: str) -> str:
    """The command that each of several nodes runs.

    Args:
        config: a checked configuration.
        overrides: the overrides that it was composed from.
        head: name of the node of the rendezvous, or a shell variable that holds it.
    """
    words = [
        # Each start of the ranks gets a store of its own, even if the nodes' torchruns have counted different restarts.
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


def _needs_others(config: Config, overrides: Sequence[str]) -> str:
    words = shlex.join(overrides)
    return (
        f"--submit starts the ranks of this node, but cluster.nodes is {config.cluster.nodes}. Under SLURM try "
        f"python -m launch slurm {words} --submit; without a scheduler python -m launch pdsh {words} "
        "cluster.hostfile=FILE, or type on each node what this command prints without --submit."
    )
