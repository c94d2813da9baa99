"""The start and the end of a run:  python -m benchmarks startup [COMMIT]

The default run, its data prepared, from the command to the first trained step, and from the return of its program to
the end of the process; beside the same of an earlier commit, which is checked out in a temporary folder and runs with
the same libraries and data of its own. Starts alternate; medians, with the smallest and largest. Then the time that one
CPU thread needs for an initial weight. On a machine that others use, the CPU seconds of the whole process tell more than
its time. The last line is JSON.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.report import Record
from benchmarks.trees import COMPARED, ROOT, checked_out, environment, python, summary

ROUNDS = 5
POLL_SECONDS = 0.005
FIGURES = ("seconds_to_first_step", "seconds_of_exit", "cpu_seconds")

# `python -m train`, with a note of when its program returned.
PROGRAM = """
import runpy, sys, time
import train.main
def cli(command=train.main.cli):
    code = command()
    open(note, "w").write(str(time.time()))
    return code
note, train.main.cli = sys.argv.pop(1), cli
runpy.run_module("train", run_name="__main__")
"""
WEIGHTS = """
import time, torch
from glm.counter_random import key_of, normal_
torch.set_num_threads(1)
weight = torch.zeros(4096, 2048)
started = time.thread_time()
normal_(weight, 0.02, key_of(1, "w"), full_width=2048)
print((time.thread_time() - started) / weight.numel() * 1e9)
"""


def run(compared: str = COMPARED) -> None:
    """Print the figures of this tree and of a commit."""
    with tempfile.TemporaryDirectory() as folder, checked_out(compared, folder) as tree:
        trees = {"this": ROOT, compared: tree}
        for name, place in trees.items():  # prepares the data and the caches of compiled files
            start(place, Path(folder) / name, "warm")
        record = Record("startup")
        starts: dict[str, list[tuple[float, float, float]]] = {name: [] for name in trees}
        weights: dict[str, list[float]] = {name: [] for name in trees}
        for number in range(ROUNDS):
            for name, place in trees.items():
                starts[name].append(start(place, Path(folder) / name, str(number)))
                weights[name].append(float(python(place, "-c", WEIGHTS)))
    figures = {
        figure: {name: [measured[index] for measured in starts[name]] for name in trees}
        for index, figure in enumerate(FIGURES)
    }
    figures |= {
        "nanoseconds_a_weight": weights,
    }
    for figure, found in figures.items():
        for name, values in found.items():
            print(f"{figure:24}{name:10}{summary(values)}")
        pairs = zip(found["this"], found[compared], strict=True)
        print(f"{'':24}{'ratio':10}{summary([this / other for this, other in pairs])}")
    print(record.text(compared=compared, **figures))


def main(words: list[str]) -> int:
    """Compare with the commit that is named, if one is."""
    run(*words[:1])
    return 0


def start(tree: Path, folder: Path, name: str) -> tuple[float, float, float]:
    """Train one step.

    Returns:
        Seconds from the command to the step's line in metrics.jsonl, and from the program's return to the end of the
        process; CPU seconds of all of it.
    """
    run_folder, note = folder / name, folder / f"{name}.returned"
    folder.mkdir(exist_ok=True)
    words = [f"run.dir={run_folder}", f"data.cache_dir={folder / 'cache'}"]
    words += ["run.stop_after_samples=8", "optim.global_batch_size=8", "optim.micro_batch_size=8"]
    used_before = cpu_seconds()
    started = time.time()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(note), *words],
        cwd=folder,
        env=environment(tree),
        stdout=subprocess.DEVNULL,
    )
    metrics, first_step = run_folder / "metrics.jsonl", 0.0
    while process.poll() is None:
        if not first_step and metrics.exists() and metrics.stat().st_size:
            first_step = time.time()
        time.sleep(POLL_SECONDS)
    ended = time.time()
    if process.returncode != 75 or not first_step:
        raise SystemExit(f"{tree}: the run ended with {process.returncode} instead of 75")
    return first_step - started, ended - float(note.read_text()), cpu_seconds() - used_before


def cpu_seconds() -> float:
    """Of all processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
