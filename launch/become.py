"""Commands that need PyTorch: this process is replaced by `python -m MODULE`, which gets its signals directly."""

import os
import sys
from typing import NoReturn


def preflight(words: list[str]) -> NoReturn:
    """Check the nodes; srun or torchrun starts this on every rank."""
    become("train.preflight", words)


def dryrun(words: list[str]) -> NoReturn:
    """Build every rank of a run on this machine and check that they fit together."""
    become("train.dryrun", words)


def become(module: str, words: list[str]) -> NoReturn:
    """Replace this process by `python -m module words`."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", module, *words])
