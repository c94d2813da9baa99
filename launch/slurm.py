"""The sbatch script of a run: rendered from its configuration, kept in its run folder, sent with --submit.

The script is short where it differs from run to run (this file) and the same for all where it acts
(templates/slurm.sh): it starts the ranks with srun, warns the run before the time limit, and when they have ended it
reads the run's status.json and srun's own messages to choose between the end, a restart on the nodes that are left,
and the queue.
"""

import shlex
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from configs import derive
from configs.errors import ConfigError
from configs.load import load_config
from configs.schema import ClusterConfig, Config, DeviceKind
from launch.node_counts import node_counts, ranks_per_node
from launch.options import parse
from launch.submit import store, submit

SCRIPT = "submit.sbatch"


def slurm(words: list[str]) -> str:
    """Render the script of a run; with --submit, send it.

    Args:
        words: overrides, and `--submit`, `--chain N`.

    Returns:
        The script, or after --submit what was sent.

    Raises:
        UserError: the configuration cannot run, or SLURM refuses the job.
    """
    request = parse(words, ("--submit",), ("--chain",))
    links = request.number("--chain", 1)
    config = load_config(request.overrides)
    script = render(config, request.overrides, ends_when_stopped=links > 1)
    folder = Path(derive.run_dir(config))
    path = store(folder, SCRIPT, script)
    if "--submit" not in request.switches:
        return script
    jobs = submit(path, links)
    return f"Sent {path} as job {', then '.join(jobs)}. Logs: {folder / 'slurm'}; stop it with: touch {folder / 'stop'}"


def render(config: Config, overrides: Sequence[str], ends_when_stopped: bool = False) -> str:
    """Render the script of one run.

    Args:
        config: checked.
        overrides: the words that made it; the ranks get the same.
        ends_when_stopped: a chain's next job continues; otherwise a stopped job goes back to the queue.

    Raises:
        ConfigError: the run folder's name cannot stand in a script.
    """
    folder = derive.run_dir(config)
    if problem := folder_problem(folder):
        raise ConfigError([problem])
    typed = " ".join(["python -m launch slurm", *map(shlex.quote, overrides)])
    lines = [
        "#!/bin/bash",
        f"# {typed}",
        f"# Kept as {folder}/{SCRIPT}; send it from the same folder with: sbatch {folder}/{SCRIPT}",
        *directives(config, derive.run_name(config), f"{folder}/slurm/job_%j.txt"),
        "",
        *environment(config.cluster),
        f"run={shlex.quote(folder)}",
        f"command=({train_command(overrides)})",
        *settings(config, f"{folder}/{SCRIPT}", ends_when_stopped),
    ]
    return "\n".join(lines) + "\n" + body()


def directives(config: Config, name: str, output: str) -> list[str]:
    """The #SBATCH lines.

    Args:
        config: checked.
        name: of the job.
        output: file of what the script says, in sbatch's pattern.
    """
    cluster = config.cluster
    ranks = ranks_per_node(config)
    given = {
        "job-name": name,
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "nodes": str(cluster.nodes)
        if cluster.min_nodes in (None, cluster.nodes)
        else f"{cluster.min_nodes}-{cluster.nodes}",
        "ntasks-per-node": str(ranks),
        "gpus-per-node": None if config.device is DeviceKind.cpu else str(ranks),
        "cpus-per-task": _text(cluster.cpus_per_rank),
        "time": cluster.time,
        "signal": f"B:USR1@{cluster.signal_seconds}",
        "exclude": ",".join(cluster.exclude) or None,
        "output": output,
        "open-mode": "append",
    }
    lines = [f"--{option}={shlex.quote(value)}" for option, value in given.items() if value]
    lines.append("--requeue" if cluster.requeue else "--no-requeue")
    if _keeps_nodes(cluster):
        lines.append("--no-kill")
    return [f"#SBATCH {line}" for line in (*lines, *cluster.sbatch_options)]


def environment(cluster: ClusterConfig) -> list[str]:
    """The lines that prepare the shell of the script, which srun hands on to the ranks."""
    names = {entry.partition("=")[0] for entry in cluster.environment}
    lines = list(cluster.setup)
    if cluster.cpus_per_rank is not None and "OMP_NUM_THREADS" not in names:
        lines.append(f"export OMP_NUM_THREADS={cluster.cpus_per_rank}")
    for entry in cluster.environment:
        name, _, value = entry.partition("=")
        lines.append(f"export {name}={shlex.quote(value)}")
    return lines


def settings(config: Config, script: str, ends_when_stopped: bool) -> list[str]:
    """The variables that the fixed part of the script reads."""
    cluster = config.cluster
    options = list(cluster.srun_options)
    if (
        cluster.cpus_per_rank is not None
    ):  # since SLURM 22.05 srun does not take it over from sbatch
        options.insert(0, f"--cpus-per-task={cluster.cpus_per_rank}")
    layouts = "\n".join(
        " ".join(map(str, (first_sample, *counts))) for first_sample, counts in node_counts(config)
    )
    return [
        f"script={shlex.quote(script)}",
        f"container=({cluster.container or ''})",
        f"srun_options=({' '.join(map(shlex.quote, options))})",
        f"ranks_per_node={ranks_per_node(config)}",
        f"min_nodes={cluster.min_nodes or cluster.nodes}",
        f"layouts='{layouts}'",
        f"keeps_nodes={'yes' if _keeps_nodes(cluster) else 'no'}",
        f"exclude={shlex.quote(','.join(cluster.exclude))}",
        f"requeue={'yes' if cluster.requeue else 'no'}",
        f"when_stopped={'end' if ends_when_stopped else 'requeue'}",
        f"max_restarts={cluster.max_restarts}",
    ]


def train_command(overrides: Sequence[str]) -> str:
    """The words that each rank runs."""
    return " ".join(["python -m train", *map(shlex.quote, overrides)])


def body() -> str:
    """The part of the script that is the same for every run."""
    return (resources.files("launch") / "templates" / "slurm.sh").read_text("utf-8")


def folder_problem(folder: str) -> str | None:
    """What is wrong with a run folder's name, which SLURM reads as a pattern; None if nothing is."""
    unusable = sorted(set(folder) & set("%\\'\"\n"))
    if not unusable:
        return None
    return (
        f"The run folder ({folder}) must not contain {' '.join(map(repr, unusable))}: SLURM reads its name as a pattern. "
        "Try run.name=NAME of letters, digits, - and _."
    )


def _keeps_nodes(cluster: ClusterConfig) -> bool:
    """True if the job may outlive one of its nodes."""
    return cluster.min_nodes is not None and cluster.min_nodes < cluster.nodes


def _text(value: int | None) -> str | None:
    return None if value is None else str(value)
