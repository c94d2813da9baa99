"""Pretrain GLM:  python -m train [key=value ...]

    python -m train                                                        one process, a small run in minutes
    python -m train.torchrun --nproc-per-node 4 -m train parallel.tp=2 parallel.pp=2
    python -m launch estimate experiment=glm_130b                          what a large run would be

This file reads the command line and turns errors into messages and exit codes; train/run.py composes the run. The
libraries are imported after the configuration was checked, so that a typing mistake is answered at once.
"""

import logging
import os
import sys
import warnings
from pathlib import Path

from configs import derive
from configs.errors import (
    EXIT_BUG,
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_USER_INPUT,
    ConfigError,
    RankError,
)
from configs.load import load_config, to_yaml
from configs.quoting import quoted_lists
from configs.run_paths import RunPaths
from configs.schema import Config
from configs.terminal import LOADING, never_fail_to_print, visible
from configs.version import asks_version, version_text
from train.cuda_environment import prepare_cuda
from train.early import check_names
from train.failures import verdict
from train.terminal.records import printed_lines, say
from train.world import (
    World,
    die_with_parent,
    end_torchrun,
    node_name,
    prepare_environment,
    wait_for_rank_0,
)


def cli(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    never_fail_to_print()
    words = sys.argv[1:] if arguments is None else arguments
    world = World()
    with printed_lines():
        try:
            world = World.from_environment()
            return _answer(words, world)
        except KeyboardInterrupt:
            return _leave(world, EXIT_INTERRUPTED, "")
        except Exception as error:
            return _leave(world, *verdict(error, world))


def _answer(words: list[str], world: World) -> int:
    if "--help" in words or "-h" in words:
        from configs.help import answer

        sys.stdout.write(answer([word for word in words if word not in ("--help", "-h")]) + "\n")
        return EXIT_DONE
    if asks_version(words):
        sys.stdout.write(version_text() + "\n")
        return EXIT_DONE
    if "--print-config" in words:
        words = [word for word in words if word != "--print-config"]
        sys.stdout.write(to_yaml(load_config(words, world.size, position=_furthest)))
        return EXIT_DONE
    return train(words, world)


def _leave(world: World, code: int, message: str) -> int:
    """Print the reason and exit; with several ranks without clean-up, which would wait for peers that may be gone.

    An error in the input or in this program would come again, so torchrun is told not to restart the ranks.
    """
    if message:
        say(_shown(message), logging.ERROR, to_stderr=True, in_log_file=False)
    elif code == EXIT_USER_INPUT and not world.is_main:
        # Rank 0 reports it. torchrun ends all ranks when the first one exits, perhaps before rank 0 has printed.
        wait_for_rank_0(world)
    if code in (EXIT_USER_INPUT, EXIT_BUG):
        end_torchrun(world)
    if world.size > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


@printed_lines()
def train(overrides: list[str], world: World) -> int:
    """Train as configured; returns the exit code.

    Lines are records of the logger `glm_pretraining` (train/terminal/records.py); without a handler they are printed.

    Raises:
        UserError: something that the user can correct.
        DistributedError: a peer failed.
    """
    log = _log if world.is_main else _log_nothing
    config = load_config(overrides, world.size, position=_furthest, log=log)
    die_with_parent(world)
    check_names(config, overrides, world)
    if world.is_main:
        say(LOADING, in_log_file=False)
    warnings.filterwarnings("ignore", module="megatron|deepspeed|torch.distributed")
    prepare_cuda()
    # Late on purpose: PyTorch, DeepSpeed and Megatron-core take seconds to import, and DeepSpeed chooses its
    # accelerator meanwhile.
    from train.device import resolve_device, start_device

    try:
        device = resolve_device(config.device, world)
    except ConfigError as error:
        if world.is_main:
            raise
        # Rank 0 may have a device, and then reports nothing.
        raise RankError(f"[rank {world.rank} on {node_name()}] {error}") from error
    prepare_environment(world, device.type, device.index)
    start_device(device)
    from train.run import run

    return run(config, overrides, world, device)


def _log(words: str) -> None:
    say(_shown(words), to_stderr=True, in_log_file=False)


def _shown(words: str) -> str:
    return quoted_lists(visible(words))


def _log_nothing(_: str) -> None:
    """Print nothing, on ranks other than 0."""


def _furthest(config: Config) -> int:
    """Samples that a run can have seen by now, before its checkpoints are looked at.

    A run that continues may have finished its batch ramp. train/start.py checks its remaining batches once the position
    is known. For a new run all batches are checked at once.
    """
    is_new = not RunPaths(Path(derive.run_dir(config))).config.exists()
    starts_at_0 = (
        config.checkpoint.resume in ("auto", "never") and config.checkpoint.copy_to is None
    )
    return 0 if is_new and starts_at_0 else config.optim.total_samples


if __name__ == "__main__":
    sys.exit(cli())
