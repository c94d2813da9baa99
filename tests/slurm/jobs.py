"""Runs of a small model as jobs of the test cluster, started as a user starts them: `python -m launch slurm --submit`."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.helpers.places import ROOT
from tests.helpers.whole_runs import command
from tests.slurm.cluster import Cluster

# tp 2 x pp 2 x dp 2 on CPU, of two layers a stage: steps must last long enough for something to happen meanwhile.
EIGHT_RANKS = (
    "device=cpu",
    "model.num_layers=4",
    "parallel.tp=2",
    "parallel.pp=2",
    "optim.total_samples=48",
)


def nodes(num_nodes: int, ranks: int = 8) -> tuple[str, ...]:
    """Overrides that spread the ranks over nodes."""
    return (f"cluster.nodes={num_nodes}", f"cluster.gpus_per_node={ranks // num_nodes}")


def run_words(folder: Path, *overrides: str) -> list[str]:
    """Overrides of a run of eight ranks below `folder`."""
    return [*command(folder, *EIGHT_RANKS, *overrides)]


def environment(cluster: Cluster | None = None) -> dict[str, str]:
    """Of a login shell with our Python first, whatever launched this test."""
    variables = dict(os.environ if cluster is None else cluster.environment)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        variables.pop(name, None)
    paths = [str(ROOT), variables.get("PYTHONPATH", "")]
    return {
        **variables,
        "PATH": f"{Path(sys.executable).parent}:{variables['PATH']}",
        "PYTHONPATH": ":".join(filter(None, paths)),
        "OMP_NUM_THREADS": "1",
    }


def send(cluster: Cluster, folder: Path, words: list[str], *options: str) -> list[str]:
    """Send a run, or a chain of jobs of it; returns the job numbers."""
    done = subprocess.run(
        [sys.executable, "-m", "launch", "slurm", *words, "--submit", *options],
        cwd=folder,
        env=environment(cluster),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    sent = re.search(r"as job (\d+(?:, then \d+)*)\.", done.stdout)
    assert sent, done.stdout
    return sent[1].split(", then ")


def steps_done(run: Path) -> int:
    """Whole lines of a run's metrics so far."""
    try:
        return (run / "metrics.jsonl").read_text().count("\n")
    except FileNotFoundError:
        return 0


def events(run: Path, kind: str) -> list[dict[str, object]]:
    """What happened in a run, of one kind."""
    lines = (run / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def logs(run: Path) -> str:
    """What the job and its ranks said, for the message of a failed test."""
    files = sorted((run / "slurm").iterdir())
    return "\n".join(f"--- {path.name}\n{path.read_text()[-3000:]}" for path in files)
