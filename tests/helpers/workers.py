"""Workers of pytest-xdist: how many, which tests stay together on one, and which of them begin first.

A test file stays on one worker, for what it sets up once for all its tests is dear; the tests of a SLURM cluster share
one. Whole folders are spread over a worker per core, and one more where clusters are among them. One file, `-s` and `--pdb` take no worker, as does `-n 0`.
"""

import os
import shutil
from collections.abc import Iterable

# Of whole clusters or eight ranks at a time: more of them side by side would only wait for each other.
_MOST_WORKERS = 8
_CLUSTERS = "tests/slurm/"
_ONE_WORKER_FOLDERS = (_CLUSTERS,)
# What takes longest begins first, so that no worker is left alone with it at the end.
_LONGEST_FIRST = (
    _CLUSTERS,
    "tests/integration/test_kill.py",
    "tests/train/checkpoint/test_layouts.py",
    "tests/integration/test_starting_again.py",
    "tests/integration/",
    "tests/train/checkpoint/",
    "tests/train/",
    "tests/benchmarks/",
    "tests/data_pipeline/preparation/",
)


def workers_for(arguments: Iterable[str]) -> int:
    """How many workers run what was asked for.

    Args:
        arguments: the files, folders and node ids of the command line.

    Returns:
        0: the tests run in this process.
    """
    arguments = list(arguments)
    are_files = [argument.partition("::")[0].endswith(".py") for argument in arguments]
    if are_files and all(are_files) and len(are_files) < 3:
        return 0
    # The worker with the clusters waits for them most of the time.
    whole = tuple(f"{argument.rstrip('/')}/" for argument in arguments)
    waits = shutil.which("slurmctld") is not None and any(map(_CLUSTERS.startswith, whole))
    return min(len(os.sched_getaffinity(0)) + waits, _MOST_WORKERS)


def group_of(node_id: str) -> str:
    """What stays on the worker of this test: its file, or a folder."""
    file = node_id.partition("::")[0]
    return next((folder for folder in _ONE_WORKER_FOLDERS if file.startswith(folder)), file)


def turn_of(node_id: str) -> int:
    """Smaller for tests that begin earlier."""
    turns = (turn for turn, start in enumerate(_LONGEST_FIRST) if node_id.startswith(start))
    return next(turns, len(_LONGEST_FIRST))
