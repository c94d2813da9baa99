"""The sbatch script of a run: rendered from its configuration, kept in its run folder, sent with --submit.

This file renders the settings of one run. What the script does is the same for every run (templates/slurm.sh): it
starts the ranks with srun and warns the run before the time limit. When the ranks have ended it reads the run's
status.json and srun's messages, and then ends, restarts the ranks on the nodes that are left, or requeues the job.
"""

import re
import shlex
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from configs import derive
from configs.errors import ConfigError
from configs.load import load_config
from configs.run_paths import LOG, SLURM, SLURM_SCRIPT, STOP, RunPaths
from configs.schema import ClusterConfig, Config, DeviceKind
from configs.terminal import visible
from launch.layout import node_counts
from launch.missing import tell_what_is_missing
from launch.options import Request, parse
from launch.script_words import array, command_words, comment, directive
from launch.submit import store, submit
from launch.sweep import Variant, table, variants

# sbatch options that ask for GPUs, or for none: by number, or as a generic resource.
_GPU_OPTION = re.compile(r"--gpus|-G|--gres[= ](none$|.*gpu)")


def slurm(words: list[str]) -> str:
    """Write the script of a run or a sweep into its folder; with --submit, send it.

    Args:
        words: overrides, and `--submit`, `--print`, `--chain N`, `--sweep key=value,value`, `--table`.

    Returns:
        Where the script is and how to send it, with --print the script itself, after --submit what was sent, with --table
        the results of a sweep's runs.

    Raises:
        UserError: the configuration cannot run, or SLURM refuses the job.
    """
    request = parse(words, ("--submit", "--print", "--table"), ("--chain", "--sweep"))
    links = request.number("--chain", 1)
    if {"--print", "--submit"} <= request.switches:
        raise ConfigError(["--print only shows the script. Leave out --print or --submit."])
    axes = request.values.get("--sweep", [])
    if "--table" in request.switches:
        if found := _table_problems(request):
            raise ConfigError(found)
        return table(variants(request.overrides, axes))
    if axes:
        runs = variants(request.overrides, axes)
        name = derive.run_name(load_config(request.overrides))
        folder = Path("runs") / f"{name}-sweep"
    else:
        config = load_config(request.overrides)
        runs = [Variant(request.overrides, {}, config)]
        name, folder = derive.run_name(config), Path(derive.run_dir(config))
    recorded = [word for word in words if word != "--print"]  # the script is the same
    script = render(runs, recorded, name, str(folder), ends_when_stopped=links > 1)
    for run in runs:
        tell_what_is_missing(run.config)
    folders = [folder, *(Path(run.folder) for run in runs)]
    if "--submit" not in request.switches:
        path = store(folder, SLURM_SCRIPT, script)
        if "--print" in request.switches:
            return script
        return f"The script is {path}. Submit it from this folder:\n    sbatch {shlex.quote(str(path))}"
    paths = RunPaths(folder)
    path, jobs = submit(folders, SLURM_SCRIPT, script, links)
    what = f" ({len(runs)} runs)" if axes else f"; stop it with: touch {paths.stop_file}"
    return f"Submitted {path} as job {', then '.join(jobs)}. Logs: {paths.slurm}{what}"


def render(
    runs: Sequence[Variant],
    words: Sequence[str],
    name: str,
    folder: str,
    ends_when_stopped: bool = False,
) -> str:
    """Render the script of one run, or of a job array with one task per run.

    Args:
        runs: the runs, with the same `cluster.*` keys.
        words: words of the command line, recorded in a comment.
        name: name of the job.
        folder: folder of the script and of its log.
        ends_when_stopped: True: a stopped job ends, and the next job of its chain continues; False: it goes back to the
            queue.

    Raises:
        ConfigError: a folder's name cannot be used in a script, or the runs' `cluster.*` keys differ.
    """
    folders = dict.fromkeys([folder, *(run.folder for run in runs)])
    found = [problem for path in folders if (problem := folder_problem(path))]
    if any(run.config.cluster != runs[0].config.cluster for run in runs):
        found.append(
            "A job array gives each run the same nodes and time: --sweep cannot vary cluster.*. Submit one sweep per value."
        )
    if found:
        raise ConfigError(found)
    config = runs[0].config
    is_array = len(runs) > 1
    lines = [
        "#!/bin/bash",
        comment(f"# python -m launch slurm {shlex.join(words)}"),
        f"# Kept as {folder}/{SLURM_SCRIPT}; send it from the same folder with: sbatch {folder}/{SLURM_SCRIPT}",
        *directives(config, name, f"{folder}/{SLURM}/job_{'%A_%a' if is_array else '%j'}.txt"),
        *([f"#SBATCH --array=0-{len(runs) - 1}"] if is_array else []),
        "",
        *environment(config.cluster),
        *_choice(runs),
        *settings(config, f"{folder}/{SLURM_SCRIPT}", ends_when_stopped),
    ]
    return "\n".join(lines) + "\n" + body()


def directives(config: Config, name: str, output: str) -> list[str]:
    """The #SBATCH lines.

    Args:
        config: a checked configuration.
        name: name of the job.
        output: the script's log, as a file name pattern of sbatch.
    """
    cluster = config.cluster
    ranks = derive.ranks_per_node(config)
    given = {
        "job-name": name,
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "nodes": str(cluster.nodes)
        if cluster.min_nodes in (None, cluster.nodes)
        else f"{cluster.min_nodes}-{cluster.nodes}",
        "ntasks-per-node": str(ranks),
        "gpus-per-node": str(ranks) if _asks_for_gpus(config) else None,
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
    return [directive(line) for line in (*lines, *cluster.sbatch_options)]


def environment(cluster: ClusterConfig) -> list[str]:
    """The lines that prepare the script's environment, which srun passes on to the ranks."""
    names = {entry.partition("=")[0] for entry in cluster.environment}
    lines = list(cluster.setup)
    if cluster.cpus_per_rank is not None and "OMP_NUM_THREADS" not in names:
        lines.append(f"export OMP_NUM_THREADS={cluster.cpus_per_rank}")
    for entry in cluster.environment:
        name, _, value = entry.partition("=")
        lines.append(f"export {name}={shlex.quote(value)}")
    return lines


def _choice(runs: Sequence[Variant]) -> list[str]:
    """The variables in which the runs of an array differ."""
    rendered = [
        [
            f"run={shlex.quote(run.folder)}",
            f"command=({array(['python', '-m', 'train', *run.overrides])})",
            f"layouts='{_layouts(run.config)}'",
        ]
        for run in runs
    ]
    if len(runs) == 1:
        return rendered[0]
    lines = ["case $SLURM_ARRAY_TASK_ID in"]
    for number, assignments in enumerate(rendered):
        lines += [f"{number})", *assignments, ";;"]
    return [*lines, "esac"]


def _layouts(config: Config) -> str:
    return "\n".join(
        " ".join(map(str, (first_sample, *counts))) for first_sample, counts in node_counts(config)
    )


def settings(config: Config, script: str, ends_when_stopped: bool) -> list[str]:
    """The variables that the fixed part of the script reads."""
    cluster = config.cluster
    options = list(cluster.srun_options)
    if (
        cluster.cpus_per_rank is not None
    ):  # since SLURM 22.05 srun does not take it over from sbatch
        options.insert(0, f"--cpus-per-task={cluster.cpus_per_rank}")
    return [
        f"script={shlex.quote(script)}",
        f"logs=$run/{SLURM}",
        f"stop_file=$run/{STOP}",
        f"run_log=$run/{LOG}",
        f"container=({command_words('cluster.container', cluster.container or '')})",
        f"srun_options=({array(options)})",
        f"ask_run=({_beside_the_script(cluster)})",
        f"ranks_per_node={derive.ranks_per_node(config)}",
        f"preflight={'yes' if _checks_nodes(config) else 'no'}",
        f"min_nodes={cluster.min_nodes or cluster.nodes}",
        f"keeps_nodes={'yes' if _keeps_nodes(cluster) else 'no'}",
        f"exclude={shlex.quote(','.join(cluster.exclude))}",
        f"exclude_slow={'yes' if cluster.exclude_slow else 'no'}",
        f"requeue={'yes' if cluster.requeue else 'no'}",
        f"when_stopped={'end' if ends_when_stopped else 'requeue'}",
        f"max_restarts={cluster.max_restarts}",
    ]


def _beside_the_script(cluster: ClusterConfig) -> str:
    """The prefix of a command that the script runs on its own node, in the same container as the ranks."""
    words = command_words("cluster.container", cluster.container or "")
    options = [option for option in cluster.srun_options if option.startswith("--container")]
    if not options:
        return words
    # srun creates containers of this kind.
    step = f'srun --overlap --nodes=1 --ntasks=1 --nodelist="$SLURMD_NODENAME" {array(options)}'
    return f"{step} {words}".rstrip()


def body() -> str:
    """The part of the script that is the same for every run."""
    return (resources.files("launch") / "templates" / "slurm.sh").read_text("utf-8")


def folder_problem(folder: str) -> str | None:
    """The problem with a run folder's name, which SLURM reads as a pattern; None if there is none."""
    controls = {character for character in folder if visible(character, keep="") != character}
    unusable = sorted(set(folder) & set("%\\'\"") | controls)
    if not unusable:
        return None
    return (
        f"The run folder ({visible(folder, keep='')}) must not contain {' '.join(map(repr, unusable))}: SLURM reads its name as a pattern. "
        "Try run.name=NAME of letters, digits, - and _."
    )


def _table_problems(request: Request) -> list[str]:
    found = list[str]()
    if "--sweep" not in request.values:
        found.append("--table shows a sweep. Add the --sweep options that it was sent with.")
    if "--submit" in request.switches or "--chain" in request.values:
        found.append(
            "--table only shows results and sends nothing. Leave out --submit and --chain, or --table."
        )
    return found


def _checks_nodes(config: Config) -> bool:
    """True if each attempt begins with the node check."""
    asked = config.cluster.preflight
    return config.device is not DeviceKind.cpu if asked is None else asked


def _asks_for_gpus(config: Config) -> bool:
    """True unless the run uses no GPUs, or `cluster.sbatch_options` asks for them."""
    says_how = any(_GPU_OPTION.match(option) for option in config.cluster.sbatch_options)
    return config.device is not DeviceKind.cpu and not says_how


def _keeps_nodes(cluster: ClusterConfig) -> bool:
    """True if the job may continue when one of its nodes fails."""
    return cluster.min_nodes is not None and cluster.min_nodes < cluster.nodes


def _text(value: int | None) -> str | None:
    return None if value is None else str(value)
