"""Check the nodes:

    srun python -m launch preflight [overrides] [--exclude-file FILE]
                                    [--patience SECONDS]

    --exclude-file FILE   rank 0 adds the hosts that must not join, one per line
    --patience SECONDS    how long to wait for a node that does not answer
                          (120)

For example: srun python -m launch preflight experiment=glm_130b
--exclude-file bad_nodes.txt. It also runs under torchrun.
"""

import os
import sys
from pathlib import Path

from configs.errors import (
    EXIT_PEER_FAILED,
    EXIT_USER_INPUT,
    ConfigError,
    DistributedError,
    UserError,
)
from configs.load import load_config
from configs.terminal import tell
from configs.version import asks_version, version_text
from train.cuda_environment import prepare_cuda
from train.world import World, let_nccl_fail, node_name, prepare_environment

_OPTIONS = {"--exclude-file", "--patience"}


def cli(arguments: list[str] | None = None) -> int:
    """Run the check in this rank; returns the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    if "--help" in words or "-h" in words:
        sys.stdout.write(str(__doc__))
        return 0
    if asks_version(words):
        sys.stdout.write(version_text() + "\n")
        return 0
    world = World()
    try:
        world = World.from_environment()
        return _check(words, world)
    except UserError as error:
        if world.is_main:
            tell(str(error), sys.stderr)
        return EXIT_USER_INPUT
    except DistributedError as error:
        tell(str(error), sys.stderr)
        return EXIT_PEER_FAILED


def _check(words: list[str], world: World) -> int:
    options, overrides = _sorted(words)
    patience = options.get("--patience", "120")
    if not patience.isdecimal() or int(patience) < 1:
        raise ConfigError([f"--patience ({patience}) must be whole seconds. Try --patience 120."])
    # How many nodes the run needs depends on its checkpoint, so training checks that.
    config = load_config(overrides)
    prepare_cuda()
    # PyTorch takes seconds to import, so mistakes on the command line are reported first.
    from train.device import resolve_device, start_device
    from train.preflight.check import check_nodes
    from train.preflight.meeting import Meeting
    from train.preflight.probes import Probes

    meeting = Meeting.open(world, node_name(), float(patience))
    try:
        device = resolve_device(config.device, world)
    except ConfigError as error:
        if world.is_main:
            raise
        raise DistributedError(f"[rank {world.rank}] {meeting.host}: {error}") from error
    prepare_environment(world, device.type, device.index)
    let_nccl_fail()
    start_device(device)
    path = options.get("--exclude-file")
    return check_nodes(
        config, meeting, device, Path(path) if path else None, float(patience), Probes()
    )


def _sorted(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """Options with their values, and the overrides."""
    options: dict[str, str] = {}
    overrides: list[str] = []
    rest = iter(words)
    for word in rest:
        name, _, value = word.partition("=")
        if name not in _OPTIONS:
            overrides.append(word)
            continue
        options[name] = value or next(rest, "")
        if not options[name]:
            raise ConfigError([f"{name} needs a value. See python -m launch preflight --help"])
    return options, overrides


if __name__ == "__main__":
    exit_code = cli()
    sys.stdout.flush()
    # Threads of a process group that failed must not delay the end of the process.
    os._exit(exit_code)
