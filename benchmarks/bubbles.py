"""Idle share of a step by both schedules, on four stages whose layers sleep (benchmarks/sleeping.py), beside theory.

A stage is busy while it sleeps; whatever else a step takes, from the first pass to the last reduction, counts as
waiting: transfers, autograd, DeepSpeed's hooks, and the processor's other work.
"""

import statistics
from dataclasses import dataclass

from benchmarks.teams import Team
from configs import pipeline

PP = 4
# 24 entries: six on each stage, in one chunk, two or three.
NUM_LAYERS = 22
CHUNKS = (1, 2, 3)
MICRO_BATCHES = (4, 8, 16)
# Of an entry's forward pass; its backward pass takes twice as long.
SECONDS = 0.04
BACKWARD = 2
ROUNDS = 3
TINY = (
    "precision=fp32",
    "model.hidden_size=16",
    "model.num_heads=2",
    "model.ffn_size=16",
    "model.vocab_size=64",
    "model.vocab_multiple=8",
    "model.seq_length=128",
    "optim.micro_batch_size=1",
    "optim.global_batch_size=4",
    "optim.total_samples=64",
)


@dataclass(frozen=True)
class Bubble:
    """Idle shares of a schedule's steps."""

    chunks: int
    num_micro_batches: int
    theory: float
    measured: list[float]
    """Of each round."""

    @property
    def median(self) -> float:
        """Over the rounds."""
        return statistics.median(self.measured)


def words_of(num_layers: int, pp: int, chunks: int) -> list[str]:
    """The run whose layers sleep; one chunk: 1F1B."""
    words = [*TINY, f"model.num_layers={num_layers}", f"parallel.pp={pp}"]
    return words if chunks == 1 else [*words, *interleaved(chunks)]


def interleaved(chunks: int) -> list[str]:
    """Choose the interleaved schedule."""
    return ["parallel.schedule=interleaved", f"parallel.chunks={chunks}"]


def measured() -> list[Bubble]:
    """Measure all schedules; they take turns in every round."""
    shares: dict[tuple[int, int], list[float]] = {
        (count, chunks): [] for count in MICRO_BATCHES for chunks in CHUNKS
    }
    for chunks in CHUNKS:
        with Team(
            "benchmarks.stepping:sleeping_steps", PP, words_of(NUM_LAYERS, PP, chunks), SECONDS
        ) as team:
            team.ask(PP)  # the first step allocates
            for _ in range(ROUNDS):
                for count in MICRO_BATCHES:
                    shares[count, chunks].append(idle_share(team.ask(count)))
    return [
        Bubble(chunks, count, pipeline.bubble(PP, count, chunks), found)
        for (count, chunks), found in shares.items()
    ]


def idle_share(stages: list[tuple[float, float]]) -> float:
    """Share of a step in which its stages are not busy, on average.

    Args:
        stages: of each stage the seconds of its step and those in which it is busy.
    """
    seconds, busy = zip(*stages, strict=True)
    return 1 - statistics.mean(busy) / max(seconds)


def table(bubbles: list[Bubble]) -> list[str]:
    """Lines of text: shares in percent, differences in percentage points."""
    lines = [
        f"{'schedule':14}{'chunks':>7}{'micro-batches':>15}{'theory %':>10}{'measured %':>12}{'difference':>12}  range"
    ]
    for each in bubbles:
        name = "1F1B" if each.chunks == 1 else "interleaved"
        low, high = min(each.measured), max(each.measured)
        lines.append(
            f"{name:14}{each.chunks:7}{each.num_micro_batches:15}{100 * each.theory:10.1f}{100 * each.median:12.1f}"
            f"{100 * (each.median - each.theory):+12.1f}  {100 * low:.1f} .. {100 * high:.1f}"
        )
    return lines
