"""Shares of a preparation that a job array divides among its tasks: `--part 3/8`, or `--part slurm`."""

import os
from dataclasses import dataclass

from configs.errors import DataError


@dataclass(frozen=True)
class Share:
    """Task `index` of `count`, counted from 1."""

    index: int = 1
    count: int = 1

    def __str__(self) -> str:
        """The share as it is typed: I/N."""
        return f"{self.index}/{self.count}"


def parse_share(text: str) -> Share:
    """Read `I/N`, or take them from SLURM for `slurm`.

    Raises:
        DataError: the text is neither, or this process is not a task of a job array.
    """
    if text == "slurm":
        return _slurm_share()
    index, _, count = text.partition("/")
    if index.isascii() and count.isascii() and index.isdigit() and count.isdigit():
        share = Share(int(index), int(count))
        if 1 <= share.index <= share.count:
            return share
    raise DataError(f"--part {text} must be I/N. Type --part 1/8 to --part 8/8, or --part slurm.")


def _slurm_share() -> Share:
    names = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_COUNT")
    values = [os.environ.get(name, "") for name in names]
    if not all(value.isascii() and value.isdigit() for value in values):
        raise DataError(
            "--part slurm: this is not a task of a SLURM job array (SLURM_ARRAY_TASK_ID, _MIN and _COUNT are not all "
            "set). Submit with sbatch --array=1-8, or type --part 1/8."
        )
    task, first, count = map(int, values)
    share = Share(task - first + 1, count)
    if share.index > share.count:
        raise DataError(
            f"--part slurm: task {task} of an array that begins at {first} and has {count} tasks: number them without "
            "gaps, as in sbatch --array=1-8."
        )
    return share
