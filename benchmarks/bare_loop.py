"""The trainer beside a bare loop over the same layers:  python -m benchmarks bare_loop [--json FILE]

The bare loop (benchmarks/loop_turns.py) has the same model, loss, clipping and optimizer (PyTorch's fused AdamW), and makes
its batches as the trainer does. The trainer is the whole one of `python -m train`; nothing is saved or evaluated while it is
measured. Both compute with one thread, train the same rows in turns, and must reach the same losses. Figures
are CPU seconds of a step - of the trainer those of all its threads: data, sockets, watchdog - and speed is the bare loop's
over the trainer's in the same steps; beside it the same for a bare loop whose batches are there before its time begins.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from benchmarks.report import Record, json_file
from benchmarks.trees import ROOT, summary

TURNS = 5
# The first steps allocate, and make the optimizer's moments.
FIRST_TURNS = 1
# The first step's learning rate is 0: updates show from the third on.
LEAST_COMPARED = 4
DIFFER = {"fp32": 1e-5, "bf16": 2e-3}
"""Most that a step's losses may differ by, relatively: in bf16 the trainer adds up some gradients before it rounds them."""


@dataclass(frozen=True)
class Setting:
    """A model, and how long it is trained."""

    name: str
    words: tuple[str, ...]
    block: int
    """Steps that make a figure."""
    wanted: float
    """Least speed beside the bare loop."""


SETTINGS = (
    Setting("tiny, the default run", (), 20, 0.97),
    Setting(
        "mid, 8 x 512",
        (
            "model.num_layers=8",
            "model.hidden_size=512",
            "model.num_heads=8",
            "model.ffn_size=1408",
            "model.vocab_size=32768",
            "model.seq_length=1024",
            "data.tokenizer=bytes",
            "optim.micro_batch_size=2",
            "optim.global_batch_size=4",
            "optim.clip=1.0",
        ),
        2,
        0.99,
    ),
)
PRECISIONS = ("fp32", "bf16")


@dataclass
class Beside:
    """A setting in one precision."""

    setting: str
    precision: str
    wanted: float
    trainer: list[float]
    """CPU seconds of a step, of each figure."""
    bare: list[float]
    batches: list[float]
    """Of making the bare loop's batches."""
    losses_differ: float
    """Most that the losses of the first steps differed by, relatively."""

    @property
    def speed(self) -> list[float]:
        """The trainer's beside the bare loop's, of each figure."""
        parts = zip(self.trainer, self.bare, self.batches, strict=True)
        return [(bare + batches) / trainer for trainer, bare, batches in parts]

    @property
    def speed_without_batches(self) -> list[float]:
        """The same where the bare loop finds its batches ready."""
        return [bare / trainer for trainer, bare in zip(self.trainer, self.bare, strict=True)]


def run() -> None:
    """Print the table."""
    main([])


def main(words: list[str]) -> int:
    """Run the command; returns the exit code."""
    path = json_file(words)
    record = Record("bare_loop")
    print(record.heading())
    found = []
    for setting in SETTINGS:
        for precision in PRECISIONS:
            found.append(beside(setting, precision))
            print("\n".join(lines(found[-1])), flush=True)
    if path is not None:
        path.write_text(record.text(beside=[asdict(each) for each in found]) + "\n")
    return 0


def beside(setting: Setting, precision: str) -> Beside:
    """Measure a setting in a process of its own.

    Raises:
        SystemExit: the process failed, or the two did not train alike.
    """
    counts = [str(setting.block), str(FIRST_TURNS + TURNS)]
    ended = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-m", "benchmarks.loop_turns", *counts),
            *(*setting.words, f"precision={precision}"),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise SystemExit(f"{setting.name}, {precision}: {ended.stderr.strip()[-2000:]}")
    figures = json.loads(ended.stdout.splitlines()[-1])
    # Later the two drift apart as any two trainings that round differently.
    differ = max(
        abs(ours / bare - 1)
        for ours, bare in figures["losses"][: max(setting.block, LEAST_COMPARED)]
    )
    if not differ <= DIFFER[precision]:
        raise SystemExit(
            f"{setting.name}, {precision}: the losses differ by {differ:.1e}, so the two are not the same training"
        )
    parts = (figures[name][FIRST_TURNS:] for name in ("trainer", "bare", "batches"))
    return Beside(setting.name, precision, setting.wanted, *parts, differ)


def lines(found: Beside) -> Iterator[str]:
    """What is printed of a setting."""
    yield (
        f"{found.setting}, {found.precision}: trainer {statistics.median(found.trainer):.3f} CPU s a step, bare loop "
        f"{statistics.median(found.bare):.3f} and {statistics.median(found.batches):.4f} for batches; losses differ by "
        f"{found.losses_differ:.1e} at most"
    )
    yield f"  speed {summary(found.speed)}; wanted: {found.wanted}"
    yield f"  beside a bare loop whose batches are there {summary(found.speed_without_batches)}"
