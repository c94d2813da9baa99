"""Whole runs in forked ranks: `python -m train` without the seconds that its imports cost."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.helpers.distributed import Ranks
from tests.helpers.places import ROOT
from tests.helpers.tiny import TEXT_RUN

_RENDEZVOUS = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK")

# What must be the same in two equal runs.
COMPARED = ("train/", "valid/", "optim/")


def command(folder: Path, *overrides: str) -> tuple[str, ...]:
    """Overrides of a small run below `folder`, on a corpus that is made there."""
    corpus = folder / "corpus.txt"
    if not corpus.exists():
        lines = [
            f"{i} times {j} is {i * j}, and {j} times {i} is {j * i} too.\n"
            for i in range(40)
            for j in range(40)
        ]
        corpus.write_text(
            "".join(line + ("\n" if n % 40 == 39 else "") for n, line in enumerate(lines))
        )
    return (*TEXT_RUN, f"data.paths={corpus}", f"data.cache_dir={folder / 'cache'}", *overrides)


def start(
    world_size: int,
    overrides: tuple[str, ...],
    errors: Path | None = None,
    **environment: str,
) -> Ranks:
    """Start an attempt; the ranks' results are their exit codes.

    Args:
        world_size: number of ranks.
        overrides: words of the command line.
        errors: takes what is written to stderr.
        environment: variables as a launcher would set them.
    """
    return Ranks(_attempt, world_size, overrides, errors, environment)


def run_attempt(
    world_size: int,
    overrides: tuple[str, ...],
    timeout_seconds: float = 120,
    errors: Path | None = None,
) -> list[int]:
    """Start an attempt and wait for its end; returns the exit codes. `errors` takes what is written to stderr."""
    ranks = start(world_size, overrides, errors)
    try:
        codes = ranks.wait(timeout_seconds)
    finally:
        ranks.kill_all()
    assert None not in codes, "a rank did not end"
    return [int(code or 0) for code in codes]


def typed(
    folder: Path, *overrides: str, timeout_seconds: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run `python -m train` as by hand, without a launcher's variables; what it wrote lies in `folder` meanwhile."""
    out, err = folder / "out.txt", folder / "err.txt"
    ranks = Ranks(_typed, 1, overrides, out, err)
    try:
        (code,) = ranks.wait(timeout_seconds)
    finally:
        ranks.kill_all()
    assert code is not None, "it did not end"
    return subprocess.CompletedProcess(overrides, code, out.read_text(), err.read_text())


def torchrun(
    overrides: tuple[str, ...], ranks: int, max_restarts: int = 0, before: tuple[str, ...] = ()
) -> subprocess.Popen[str]:
    """Start `python -m train` as `python -m launch torchrun` says; its messages arrive on standard error.

    Args:
        overrides: words of the command line.
        ranks: their number.
        max_restarts: how often the launcher starts them again.
        before: a command that runs the words after it.
    """
    words = [*before, sys.executable, "-m", "train.torchrun"]
    words += ["--nproc-per-node", str(ranks), "--max-restarts", str(max_restarts), "-m", "train"]
    environment = {name: value for name, value in os.environ.items() if name not in _RENDEZVOUS}
    return subprocess.Popen(
        [*words, *overrides],
        cwd=ROOT,
        env={**environment, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def metrics(folder: Path) -> list[dict[str, Any]]:
    """All lines of a run's metrics.jsonl."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def compared(folder: Path) -> list[dict[str, Any]]:
    """The part of the lines that two equal runs share, byte for byte."""
    return [
        {
            key: value
            for key, value in line.items()
            if key.startswith(COMPARED) or key in ("step", "samples_seen", "data/samples_drawn")
        }
        for line in metrics(folder)
    ]


def resumed_at(run: Path) -> list[int]:
    """Samples after which each attempt that continued the run went on."""
    lines = (json.loads(line) for line in (run / "events.jsonl").open())
    return [line["samples_seen"] for line in lines if line["event"] == "resume"]


def quietly(arguments: list[str], errors: Path) -> int:
    """Run `python -m train` in this process; its exit code. What it says goes to a file."""
    from train.main import cli

    with errors.open("a") as file, open(os.devnull, "w") as quiet:
        os.dup2(file.fileno(), 2)
        os.dup2(quiet.fileno(), 1)
    return cli(arguments)


def _attempt(
    rank: int,
    world_size: int,
    overrides: tuple[str, ...],
    errors: Path | None,
    environment: dict[str, str],
) -> None:
    from train.main import cli

    os.environ.update(environment)
    if errors is not None:
        with errors.open("a") as file:
            os.dup2(file.fileno(), 2)
    with open(os.devnull, "w") as quiet:
        os.dup2(quiet.fileno(), 1)
    os._exit(cli(list(overrides)))


def _typed(rank: int, world_size: int, overrides: tuple[str, ...], out: Path, err: Path) -> None:
    from train.main import cli

    for name in _RENDEZVOUS:
        os.environ.pop(name, None)
    for path, stream in ((out, 1), (err, 2)):
        with path.open("w") as file:
            os.dup2(file.fileno(), stream)
    code = cli(list(overrides))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
