"""Steps on a machine that others use too:  python -m benchmarks busy_machine

The default run's steps, at rest and beside four busy loops, in alternating starts: as this program
lets CPU threads wait for each other (train/cpu_threads.py), with OpenMP's own default (spinning), and with one thread.
Medians of seconds a step, and their ratios within one round.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROUNDS = 3
BUSY_LOOPS = 4
# Steps that allocate and compile are left out.
FIRST_STEPS = 10
# A step of spinning threads beside busy loops takes seconds.
STEPS_AT_REST, STEPS_WHEN_BUSY = 40, 20
ROWS = 8

# What each way adds to the environment; a spin count that is given is the user's choice, and stays.
WAYS = {
    "this program": {},
    "spinning (OpenMP's default)": {"GOMP_SPINCOUNT": "300000"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}


def run() -> None:
    """Print a table for a machine at rest, and one for a busy machine."""
    with tempfile.TemporaryDirectory() as folder:
        step_seconds(Path(folder), {}, 0, STEPS_WHEN_BUSY)  # prepares the data
        for count, steps in ((0, STEPS_AT_REST), (BUSY_LOOPS, STEPS_WHEN_BUSY)):
            print(f"beside {count} busy loops on {len(os.sched_getaffinity(0))} cores")
            rounds = []
            with busy_loops(count):
                for number in range(ROUNDS):
                    rounds.append(
                        {
                            way: step_seconds(
                                Path(folder), environment, f"{count}-{number}-{index}", steps
                            )
                            for index, (way, environment) in enumerate(WAYS.items())
                        }
                    )
            for way in WAYS:
                seconds = statistics.median(times[way] for times in rounds)
                ratios = {
                    other: statistics.median(times[way] / times[other] for times in rounds)
                    for other in WAYS
                    if other != way
                }
                compared = ", ".join(f"{ratio:.2f} of {other}" for other, ratio in ratios.items())
                print(f"  {way:<28} {seconds:.3f} s a step: {compared}", flush=True)


def step_seconds(folder: Path, environment: dict[str, str], name: object, steps: int) -> float:
    """Median seconds of a step of the default run."""
    chosen = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "KMP_"))}
    subprocess.run(
        [
            *(sys.executable, "-m", "train", f"run.name={name}", "checkpoint.keep_last=1"),
            *(f"run.stop_after_samples={steps * ROWS}", "log.progress_bar=off"),
            f"data.cache_dir={folder / 'cache'}",
        ],
        env={**chosen, **environment, "PYTHONPATH": os.getcwd()},
        cwd=folder,
        stdout=subprocess.DEVNULL,
        check=False,  # a requested stop ends with 75
    )
    lines = (folder / "runs" / str(name) / "metrics.jsonl").read_text().splitlines()
    return statistics.median(
        json.loads(line)["speed/seconds_per_step"] for line in lines[FIRST_STEPS:]
    )


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """Keep that many processors busy, as far as there are any."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
