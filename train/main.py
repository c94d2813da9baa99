"""Pretrain GLM:  python -m train [key=value ...]

    python -m train                                                        one process, a small run in minutes
    torchrun --standalone --nproc-per-node 4 -m train parallel.tp=2 parallel.pp=2
    python -m launch estimate experiment=glm_130b                          what a large run would be

This file reads the command line and turns errors into messages and exit codes; train/run.py composes the run. The
libraries are imported after the configuration was checked, so that a typing mistake is answered at once.
"""

import os
import sys
import warnings

from configs.errors import (
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_PEER_FAILED,
    EXIT_USER_INPUT,
    ConfigError,
    DistributedError,
    UserError,
)
from configs.load import describe_key, help_text, load_config, to_yaml
from train.world import World, die_with_parent, prepare_environment

# What gloo and NCCL say when the other side is gone.
_PEER_SIGNS = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL", "gloo")


def cli(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    world = World()
    try:
        world = World.from_environment()
        if words and words[0] in ("--help", "-h"):
            sys.stdout.write((describe_key(words[1]) if len(words) > 1 else help_text()) + "\n")
            return EXIT_DONE
        if "--print-config" in words:
            words = [word for word in words if word != "--print-config"]
            sys.stdout.write(to_yaml(load_config(words, world.size)))
            return EXIT_DONE
        return train(words, world)
    except ConfigError as error:
        return _user_error(error, world.is_main)
    except UserError as error:
        return _user_error(error, world.is_main)
    except DistributedError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_PEER_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except RuntimeError as error:
        if world.size == 1 or not any(sign in str(error) for sign in _PEER_SIGNS):
            raise
        sys.stderr.write(f"[rank {world.rank}] lost a peer: {str(error).splitlines()[0]}\n")
        # A dead peer leaves collectives that never end; a normal exit would wait for them.
        sys.stderr.flush()
        os._exit(EXIT_PEER_FAILED)


def train(overrides: list[str], world: World) -> int:
    """Train as configured; returns the exit code.

    Raises:
        UserError: something that the user can mend.
        DistributedError: a peer failed.
    """
    config = load_config(overrides, world.size)
    die_with_parent(world)
    warnings.filterwarnings("ignore", module="megatron|deepspeed|torch.distributed")
    # Late on purpose: PyTorch, DeepSpeed and Megatron-core take seconds to import, and DeepSpeed chooses its
    # accelerator meanwhile.
    from train.device import resolve_device

    device = resolve_device(config.device, world)
    prepare_environment(world, device.type)
    from train.run import run

    return run(config, overrides, world, device)


def _user_error(error: UserError, speaks: bool) -> int:
    if speaks:
        sys.stderr.write(f"{error}\n")
    return EXIT_USER_INPUT


if __name__ == "__main__":
    sys.exit(cli())
