"""Whole trainings, `python -m train` in processes of their own, on a small text that is read as bytes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu.bench import Bench

_SIZES = {
    False: ("model=tiny", "optim.total_samples=320"),
    True: (
        *("model=tiny", "model.hidden_size=32", "model.ffn_size=88", "model.num_layers=2"),
        *("model.seq_length=128", "optim.total_samples=16"),
    ),
}
_WORDS = (
    *("data.tokenizer=bytes", "model.vocab_size=264", "model.vocab_multiple=8", "optim.lr=1e-3"),
    *("optim.micro_batch_size=2", "optim.global_batch_size=8", "eval.num_samples=8"),
)
# What must be the same in two equal runs.
_COMPARED = ("train/", "valid/", "optim/", "step", "samples_seen", "data/samples_drawn")
# This section's own, which would make the run a rank of it.
_SET_HERE = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "DS_ACCELERATOR")


class Run:
    """A training that has been started.

    Args:
        bench: of the section.
        name: of the run; the same name again continues it.
        words: further overrides.
    """

    def __init__(self, bench: Bench, name: str, *words: str) -> None:
        self.name, self.words = name, words
        self.folder = bench.folder / "runs" / name
        place = bench.folder / "texts"
        place.mkdir(exist_ok=True)
        overrides = [*_SIZES[bench.is_dry], *_WORDS, f"data.paths={_text(place)}"]
        # Each its own: runs that start together would wait for the one that prepares the text.
        overrides += [f"data.cache_dir={place / name}", f"run.dir={self.folder}"]
        environment = {key: text for key, text in os.environ.items() if key not in _SET_HERE}
        self._log = bench.folder / f"{name}.txt"
        with self._log.open("a") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "train", *overrides, *words],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def wait(self) -> None:
        """Wait for its end.

        Raises:
            RuntimeError: it did not end as a finished run does.
        """
        code = self._process.wait()
        if code != 0:
            lines = self._log.read_text(errors="replace").splitlines()
            raise RuntimeError(f"run {self.name} ended with {code}:\n" + "\n".join(lines[-15:]))

    def kill_after(self, steps: int) -> int:
        """Kill it -9 once it has trained so many steps and saved; returns the steps in its metrics then."""
        while self._process.poll() is None:
            if self.steps >= steps and (self.folder / "checkpoints" / "latest").exists():
                self._process.send_signal(signal.SIGKILL)
                self._process.wait()
                return self.steps
            time.sleep(0.01)
        self.wait()
        raise RuntimeError(f"run {self.name} was over before it could be killed")

    @property
    def steps(self) -> int:
        """Complete lines of its metrics."""
        path = self.folder / "metrics.jsonl"
        return path.read_text().count("\n") if path.exists() else 0

    def metrics(self) -> list[dict[str, Any]]:
        """What two equal runs have in common, a step each."""
        lines = (self.folder / "metrics.jsonl").read_text().splitlines()
        return [
            {key: value for key, value in json.loads(line).items() if key.startswith(_COMPARED)}
            for line in lines
        ]

    def losses(self) -> list[float | None]:
        """Of training, by step; None where a step was skipped."""
        return [line["train/loss"] for line in self.metrics()]


def _text(folder: Path) -> Path:
    path = folder / "text.txt"
    if not path.exists():
        pairs = [(i, j) for i in range(40) for j in range(40)]
        documents = [f"{i} times {j} is {i * j}, and {j} times {i} too.\n" for i, j in pairs]
        lines = [text + ("\n" if n % 40 == 39 else "") for n, text in enumerate(documents)]
        path.write_text("".join(lines))
    return path
