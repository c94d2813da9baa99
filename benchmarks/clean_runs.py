"""Alarms of the detector in real runs without faults:  python -m benchmarks clean_runs [--json FILE]

Ten small models of different sizes, precisions, objectives and schedules train 500 steps each, two at a time. In every one the
learning rate warms up, the batch grows fourfold over the first third, and half-way the mixture changes: Python's
documentation before, half of it source code after. Wanted: no alarm that goes back.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.report import Record, json_file
from data_pipeline.preparation.python_docs import python_docs

NUM_STEPS, RAMP_STEPS, AT_ONCE = 500, 154, 2
_CODE_BYTES = 4_000_000


@dataclass(frozen=True)
class Run:
    """One of the runs."""

    name: str
    precision: str
    num_layers: int
    hidden_size: int
    gmask_share: float
    lr: float
    mixture_steps: int = 0
    """Steps over which the mixture changes, at the full batch; 0: at once."""
    batch: int = 16
    extra: tuple[str, ...] = ()
    """Further words of the command line."""

    def words(self, seed: int, folder: Path) -> list[str]:
        """The command line after `python -m train`."""
        # A quarter, a half and three quarters of the batch, for a third of the ramp's samples each.
        ramp = RAMP_STEPS * self.batch * 9 // 22
        total = ramp + (NUM_STEPS - RAMP_STEPS) * self.batch
        return [
            *(f"run.name={self.name}", f"run.dir={folder / self.name}", f"seed={seed}"),
            *(f"precision={self.precision}", f"model.num_layers={self.num_layers}"),
            *(f"model.hidden_size={self.hidden_size}", "model.num_heads=4"),
            *("model.seq_length=128", "model.vocab_size=264", "data.tokenizer=bytes"),
            f"data.paths=[{folder / 'docs.jsonl'},{folder / 'code.jsonl'}]",
            f"data.stages=[[0,1,0],[{total // 2},0.5,0.5]]",
            f"data.stage_ramp_samples={self.mixture_steps * self.batch}",
            f"data.cache_dir={folder / 'cache'}",
            f"objective.gmask_share={self.gmask_share}",
            *(f"optim.lr={self.lr}", f"optim.global_batch_size={self.batch}"),
            f"optim.micro_batch_size={self.batch // 4}",
            f"optim.batch_ramp={{start: {self.batch // 4}, increment: {self.batch // 4}, samples: {ramp}}}",
            *(f"optim.total_samples={total}", f"eval.every_samples={total}", "eval.num_samples=16"),
            *self.extra,
        ]


_ROLLBACK = ("stability.on_spike=rollback", "checkpoint.save_every_samples=1600")
RUNS = (
    Run("small", "fp32", 2, 64, 0.7, 1e-3),
    Run("small-bf16", "bf16", 2, 64, 0.7, 1e-3, mixture_steps=50),
    Run("long-blanks", "fp32", 4, 64, 1.0, 1e-3),
    Run("short-blanks", "bf16", 2, 96, 0.0, 1e-3),
    Run("high-rate", "fp32", 2, 64, 0.7, 5e-3, mixture_steps=50),
    Run("deep", "bf16", 6, 64, 0.7, 2e-3, extra=_ROLLBACK),
    Run("wide", "fp32", 2, 128, 0.5, 1e-3, extra=_ROLLBACK),
    Run("wsd", "fp32", 3, 64, 0.7, 2e-3, extra=("optim.schedule=wsd",)),
    Run("tokens", "bf16", 3, 64, 0.7, 2e-3, extra=("objective.loss_weighting=token",)),
    Run("small-batch", "fp32", 2, 64, 0.7, 1e-3, batch=8, extra=_ROLLBACK),
)


@dataclass
class Seen:
    """What a run left."""

    run: str
    words: list[str]
    steps: int
    seconds: float
    """Median of a step."""
    first_loss: float
    last_loss: float
    """Medians of the last 20 steps."""
    alarms: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[int] = field(default_factory=list)
    """Steps."""
    rollbacks: int = 0

    @property
    def going_back(self) -> list[dict[str, Any]]:
        """Alarms after which a run goes back."""
        return [alarm for alarm in self.alarms if alarm["alarm"] != "gradient"]


def write_corpora(folder: Path) -> None:
    """Write the two sources: documentation, and the modules that it is from."""
    documents = list(python_docs())
    library = Path(os.__file__).parent
    code, size = [], 0
    for path in sorted(library.glob("*.py")):
        code.append(path.read_text("utf-8", errors="replace"))
        size += len(code[-1])
        if size > _CODE_BYTES:
            break
    for name, texts in (("docs", documents), ("code", code)):
        lines = (json.dumps({"text": text}) + "\n" for text in texts)
        (folder / f"{name}.jsonl").write_text("".join(lines))


def train(run: Run, seed: int, folder: Path) -> Seen:
    """Train one and read what it left.

    Raises:
        SystemExit: it failed.
    """
    words = run.words(seed, folder)
    command = [sys.executable, "-m", "train", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if ended.returncode:
        sys.exit(f"{run.name} ended with exit code {ended.returncode}: {ended.stderr[-2000:]}")
    return seen(run.name, words, folder / run.name)


def seen(name: str, words: list[str], folder: Path) -> Seen:
    """Read a run's folder."""
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    events = [json.loads(line) for line in (folder / "events.jsonl").open()]
    losses = [line["train/loss"] for line in metrics]
    return Seen(
        name,
        [word for word in words if str(folder.parent) not in word],
        len(metrics),
        statistics.median(line["speed/seconds_per_step"] for line in metrics),
        losses[0],
        statistics.median(losses[-20:]),
        [event for event in events if event["event"] == "spike"],
        [event["step"] for event in events if event["event"] == "skip"],
        sum(event["event"] == "rollback" for event in events),
    )


def lines(found: list[Seen]) -> list[str]:
    """A table, and every alarm in words."""
    table = [
        f"{'run':14}{'steps':>6}{'loss':>16}{'go back':>9}{'gradient':>10}{'left out':>10}{'s a step':>10}"
    ]
    for each in found:
        gradient = len(each.alarms) - len(each.going_back)
        table.append(
            f"{each.run:14}{each.steps:6}{each.first_loss:8.2f} ->{each.last_loss:5.2f}{len(each.going_back):9}"
            f"{gradient:10}{len(each.left_out):10}{each.seconds:10.3f}"
        )
    return [*table, *(f"{each.run}: {alarm['text']}" for each in found for alarm in each.alarms)]


def run() -> None:
    """Print the table."""
    main([])


def main(words: list[str]) -> int:
    """Run the command; returns the exit code: 1 where an alarm goes back."""
    path = json_file(words)
    record = Record("clean_runs")
    print(record.heading(), flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_corpora(folder)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            # The first one prepares the corpora for all.
            jobs = [(run, seed, folder) for seed, run in enumerate(RUNS, start=1)]
            found = [train(*jobs[0]), *pool.map(lambda job: train(*job), jobs[1:])]
    print("\n".join(lines(found)))
    if path is not None:
        path.write_text(record.text(runs=[asdict(each) for each in found]) + "\n")
    return 1 if any(each.going_back for each in found) else 0
