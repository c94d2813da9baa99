"""Commands that need PyTorch: this process becomes `python -m MODULE`, so that signals and exit codes are its own."""

import os
import sys
from typing import NoReturn


def preflight(words: list[str]) -> NoReturn:
    """Check the nodes; under srun or torchrun every rank gets here."""
    become("train.preflight", words)


def dryrun(words: list[str]) -> NoReturn:
    """Build every rank of a run on this machine and check that they fit together."""
    become("train.dryrun", words)


def become(module: str, words: list[str]) -> NoReturn:
    """Let `python -m module words` take the place of this process."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", module, *words])
