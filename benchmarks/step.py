"""A step of the default run, beside that of an earlier commit:  python -m benchmarks step [COMMIT]

Each start trains some steps of the default run, in fp32 and in bf16; the two trees take turns, with the same libraries
and data of their own. Medians of the seconds of a step, without the first ones, and the ratio within each round. The
last line is JSON.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.report import Record
from benchmarks.trees import COMPARED, ROOT, checked_out, environment, summary

ROUNDS = 5
PRECISIONS = ("fp32", "bf16")
# Steps that allocate are left out.
FIRST_STEPS, STEPS, ROWS = 10, 60, 8


def run(compared: str = COMPARED) -> None:
    """Print the figures of this tree and of a commit."""
    figures: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder, checked_out(compared, folder) as tree:
        trees = {"this": ROOT, compared: tree}
        for name, place in trees.items():  # prepares the data
            step_seconds(place, Path(folder) / name, "warm", "fp32")
        record = Record("step")
        for precision in PRECISIONS:
            seconds: dict[str, list[float]] = {name: [] for name in trees}
            for number in range(ROUNDS):
                for name, place in trees.items():
                    run_name = f"{precision}-{number}"
                    seconds[name].append(
                        step_seconds(place, Path(folder) / name, run_name, precision)
                    )
            figures[precision] = seconds
            for name, values in seconds.items():
                print(f"{precision:6}{name:10}{summary(values)} s a step")
            pairs = zip(seconds["this"], seconds[compared], strict=True)
            ratios = summary([this / other for this, other in pairs])
            print(f"{precision:6}{'ratio':10}{ratios}", flush=True)
    print(record.text(compared=compared, seconds=figures))


def main(words: list[str]) -> int:
    """Compare with the commit that is named, if one is."""
    run(*words[:1])
    return 0


def step_seconds(tree: Path, folder: Path, name: str, precision: str) -> float:
    """Median seconds of a step of the default run."""
    folder.mkdir(exist_ok=True)
    run_folder = folder / name
    words = [f"run.dir={run_folder}", f"data.cache_dir={folder / 'cache'}"]
    words += [f"precision={precision}", f"run.stop_after_samples={STEPS * ROWS}"]
    ended = subprocess.run(
        [sys.executable, "-m", "train", *words],
        cwd=folder,
        env=environment(tree),
        stdout=subprocess.DEVNULL,
        check=False,  # a requested stop ends with 75
    )
    if ended.returncode != 75:
        raise SystemExit(f"{tree}: the run ended with {ended.returncode} instead of 75")
    lines = (run_folder / "metrics.jsonl").read_text().splitlines()[FIRST_STEPS:]
    return statistics.median(json.loads(line)["speed/seconds_per_step"] for line in lines)
