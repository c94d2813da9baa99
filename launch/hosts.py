"""Clusters without a scheduler: one pdsh line that starts a run on the hosts listed in a file.

    python -m launch pdsh experiment=glm_130b cluster.hostfile=hosts

The file has a line `HOST` or `HOST slots=N` for each node, like the DeepSpeed launcher's; `#` begins a comment. HOST
may name several hosts as SLURM does: nid[0001-0008,12].
"""

import re
import shlex
from pathlib import Path

from configs import derive
from configs.errors import ConfigError, RecordError, UserError
from configs.files import read_text
from configs.load import load_config
from configs.scheduler import expand_nodes
from configs.schema import Config
from configs.terminal import visible
from launch.options import parse
from launch.slurm import environment
from launch.torchrun import several_nodes

_LINE = re.compile(r"(\S+)(?:\s+slots=(\d{1,9}))?", re.ASCII)


def pdsh(words: list[str]) -> str:
    """Render the line. It is typed in the working directory of the run, which all hosts must see at the same path.

    Args:
        words: overrides; `cluster.hostfile` among them.

    Raises:
        UserError: the configuration cannot run, or the file does not name hosts that fit it.
    """
    overrides = parse(words, (), ()).overrides
    config = load_config(overrides)
    if config.cluster.hostfile is None:
        raise ConfigError(
            [
                "cluster.hostfile is not set. Try cluster.hostfile=FILE, with a line HOST for each node."
            ]
        )
    hosts = read_hosts(Path(config.cluster.hostfile))
    _check(config, hosts)
    names = list(hosts)[: config.cluster.nodes]
    remote = [
        f"cd {shlex.quote(str(Path.cwd()))}",
        *environment(config.cluster),
        several_nodes(config, overrides, names[0]),
    ]
    # By default pdsh connects to 32 hosts at a time: those ranks would wait forever for the others.
    line = f"pdsh -R ssh -S -f {len(names)} -w {','.join(names)}"
    return f"{line} {shlex.quote(' && '.join(remote))}"


def read_hosts(path: Path) -> dict[str, int | None]:
    """Read the hosts and their numbers of slots (None: not given), in the file's order.

    Raises:
        UserError: the file cannot be read, or has lines of another form.
    """
    try:
        text = read_text(path)
    except RecordError as error:
        raise UserError(f"cluster.hostfile: {error} Write a line HOST for each node.") from error
    except OSError as error:
        raise UserError(f"cluster.hostfile ({path}) cannot be read: {error.strerror}.") from error
    hosts: dict[str, int | None] = {}
    found = list[str]()
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.partition("#")[0].strip()
        if not line:
            continue
        match = _LINE.fullmatch(line)
        names = expand_nodes(match[1]) if match else None
        if match is None or names is None:
            found.append(
                f'{path}, line {number}: "{visible(line)}" is not of the form HOST or HOST slots=N. Correct the line.'
            )
            continue
        for name in names:
            if name in hosts:
                found.append(f"{path}, line {number}: {name} is named twice. Delete the line.")
            else:
                hosts[name] = None if match[2] is None else int(match[2])
    if not hosts and not found:
        found.append(f"{path} names no host. Write a line HOST for each node.")
    if found:
        raise ConfigError(found)
    return hosts


def _check(config: Config, hosts: dict[str, int | None]) -> None:
    wanted, ranks = config.cluster.nodes, derive.ranks_per_node(config)
    found = list[str]()
    if len(hosts) < wanted:
        found.append(
            f"cluster.nodes ({wanted}) must not exceed the hosts of cluster.hostfile ({len(hosts)}). "
            f"Try cluster.nodes={len(hosts)}."
        )
    found += [
        f"{host} has slots={slots}, but runs {ranks} ranks. Try cluster.gpus_per_node={slots}."
        for host, slots in list(hosts.items())[:wanted]
        if slots is not None and slots < ranks
    ]
    if found:
        raise ConfigError(found)
