"""Commands that need PyTorch: this process becomes `python -m train.NAME`, so that signals and exit codes are its own."""

import os
import sys
from typing import NoReturn


def preflight(words: list[str]) -> NoReturn:
    """Check the nodes; under srun or torchrun every rank gets here."""
    _become("train.preflight", words)


def dryrun(words: list[str]) -> NoReturn:
    """Build every rank of a run on this machine and check that they fit together."""
    _become("train.dryrun", words)


def _become(module: str, words: list[str]) -> NoReturn:
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", module, *words])
