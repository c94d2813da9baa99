"""What logging costs with everything on:  python -m benchmarks logging

One run of the default model has everything on: the live display on a terminal of its own, wandb (offline), TensorBoard,
details.jsonl every ten steps, filled blanks as often as evaluations. In every second stretch of steps it reports to
metrics.jsonl and to a plain console alone, and nothing is observed. A machine's speed drifts within seconds, so a pair of
stretches makes a ratio; five runs make five medians. The last line is JSON.
"""

import json
import os
import pty
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, cast

import torch

from benchmarks.report import Record
from benchmarks.trees import summary
from configs import derive
from configs.load import load_config
from train.batches import StepBatches
from train.distributed import distributed_session
from train.host_memory import keep_freed_memory
from train.metrics import Metrics
from train.observe.observers import ObservedStep, Observers
from train.prepared import prepared
from train.run_folder import RunFolder
from train.terminal.records import printed_lines
from train.terminal.tracker import ConsoleTracker
from train.topology import Topology
from train.trackers import Tracker, Trackers
from train.training import Training
from train.world import World, prepare_environment

RUNS = 5
DETAILS_EVERY = 10
STRETCH = 2 * DETAILS_EVERY
"""Steps of a stretch: each has the same share of lines of details.jsonl."""
PAIRS = 6
FIRST_STEPS = STRETCH
"""Steps that allocate, before the first pair."""
SAMPLES_EVERY = 2500
COLUMNS, LINES = "160", "50"
EVERYTHING = [
    *("log.progress_bar=on", "log.wandb=offline", "log.tensorboard=true"),
    *(f"log.details_every_steps={DETAILS_EVERY}", f"log.samples_every_samples={SAMPLES_EVERY}"),
]


class Turns(Observers):
    """Stands between the loop and its observers, and lets everything and nearly nothing take turns.

    Args:
        everything: the run's trackers.
        plain: metrics.jsonl and a console that prints lines.
        observers: of the run.
    """

    def __init__(self, everything: Trackers, plain: Tracker, observers: Observers) -> None:
        super().__init__([], everything)
        self._all_observers = observers
        self._everything, self._plain = everything, plain
        self._is_on = True
        self._began = 0.0
        self.seconds: list[float] = []
        """Of a step, in each stretch: with everything, without, with, ..."""
        self._report = everything.log_metrics
        everything.log_metrics = self.log_metrics

    def log_metrics(self, line: Metrics) -> None:
        """Report to whose turn it is."""
        (self._report if self._is_on else self._plain.log_metrics)(line)

    def begin(self, step: int) -> None:
        """See Observer."""
        now = time.perf_counter()
        place, is_odd_stretch = (step - 1) % STRETCH, (step - 1) // STRETCH % 2
        if place == 0:
            if step - 1 > FIRST_STEPS:
                self.seconds.append((now - self._began) / STRETCH)
            self._began = now
            # The first steps are the stretch before the first pair.
            self._is_on = is_odd_stretch == 1
        if self._is_on:
            self._all_observers.begin(step)

    def drawn(self, batches: StepBatches) -> None:
        """See Observer."""
        if self._is_on:
            self._all_observers.drawn(batches)

    def end(self, step: ObservedStep) -> None:
        """See Observer."""
        if self._is_on:
            self._all_observers.end(step)

    def state(self) -> dict[str, Any]:
        """See Observer."""
        return self._all_observers.state()

    def close(self) -> None:
        """See Observer."""
        self._all_observers.close()


def run() -> None:
    """Print the figures."""
    record = Record("logging")
    ratios, steps, added = list[float](), list[float](), list[float]()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(RUNS):
            seconds = in_a_terminal(Path(folder), f"run-{number}")
            on, off = seconds[0::2], seconds[1::2]
            pairs = list(zip(on, off, strict=True))
            ratios.append(statistics.median(a / b for a, b in pairs))
            added.append(1e3 * statistics.median(a - b for a, b in pairs))
            steps.append(1e3 * statistics.median(off))
            print(f"run {number}: {steps[-1]:.1f} ms a step, {added[-1]:+.2f} ms", flush=True)
    print(f"step        {summary(steps)} ms")
    print(f"everything  {summary(added)} ms more")
    print(f"ratio       {summary(ratios)}")
    print(record.text(step_ms=steps, added_ms=added, ratio=ratios))


def in_a_terminal(folder: Path, name: str) -> list[float]:
    """Train in a process whose standard output is a terminal; seconds of a step in each stretch."""
    controller, terminal = pty.openpty()
    result = folder / f"{name}.json"

    def read() -> None:
        while True:
            try:
                if not os.read(controller, 65536):
                    return
            except OSError:  # the process has ended
                return

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    words = [sys.executable, "-m", "benchmarks.logging_cost", str(result), str(folder / name)]
    environment = {**os.environ, "COLUMNS": COLUMNS, "LINES": LINES, "TERM": "xterm-256color"}
    try:
        subprocess.run(words, stdout=terminal, env=environment, check=True)
    finally:
        os.close(terminal)
        reader.join(timeout=5)
        os.close(controller)
    return json.loads(result.read_text())


def measured(folder: Path) -> list[float]:
    """Train the stretches; seconds of a step in each."""
    words = [f"run.dir={folder}", "device=cpu", *EVERYTHING]
    config = load_config(words, 1)
    steps = FIRST_STEPS + 2 * PAIRS * STRETCH + 1
    config.run.stop_after_samples = steps * config.optim.global_batch_size
    world = World()
    prepare_environment(world, "cpu")
    keep_freed_memory()
    torch.set_num_threads(1)
    device, run_folder = torch.device("cpu"), RunFolder(Path(derive.run_dir(config)))
    topology = Topology.from_config(config.parallel, 0, 1)
    with (
        printed_lines(),
        prepared(config, words, world, device, run_folder, None) as ready,
        distributed_session(world, topology, device, ready.rendezvous) as session,
    ):
        training = Training(ready, session)
        training.resume()
        inner = cast(Any, training)  # a benchmark may look inside
        console = ConsoleTracker(folder / "plain.txt", config.log.every_steps, None)
        plain = Trackers([console, inner._metrics])
        turns = Turns(training.trackers, plain, inner._trainer.observers)
        inner._trainer.observers = turns
        training.run()
        training.close()
        training.release()
        training.trackers.close()
    return turns.seconds


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(measured(Path(sys.argv[2]))))
