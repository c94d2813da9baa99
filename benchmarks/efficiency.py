"""Tokens per second of two pipeline stages on two cores, beside one process with one thread.

Each process has one thread, and all train the same model in micro-batches of the same size. In every round the layouts
take turns step by step. What two processes lose without any pipeline, because cores share memory and clock, is measured
as well: two single processes that train side by side.
"""

import statistics
from dataclasses import dataclass

from benchmarks.bubbles import interleaved
from benchmarks.teams import Team
from configs import pipeline
from configs.load import load_config

PP = 2
MICRO_BATCHES = (8, 16)
ROUNDS = 3
WANTED = 0.93
"""Of what the bubble leaves."""
# 12 entries: three in each of the interleaved schedule's four parts.
MODEL = (
    "precision=fp32",
    "model.num_layers=10",
    "model.hidden_size=512",
    "model.num_heads=8",
    "model.ffn_size=1408",
    "model.vocab_size=4096",
    "model.seq_length=512",
    "optim.micro_batch_size=1",
    "optim.global_batch_size=8",
    "optim.total_samples=64",
)
SCHEDULES = {"1F1B": 1, "interleaved": pipeline.DEFAULT_CHUNKS}


@dataclass(frozen=True)
class Efficiency:
    """A schedule at a number of micro-batches."""

    schedule: str
    chunks: int
    num_micro_batches: int
    one: list[float]
    """Tokens per second of one process, in each round."""
    pair: list[float]
    """Of two single processes side by side, together."""
    stages: list[float]
    """Of the two stages."""

    @property
    def speed_up(self) -> list[float]:
        """Of each round, divided by the number of stages."""
        return [two / one / PP for one, two in zip(self.one, self.stages, strict=True)]

    @property
    def of_the_pair(self) -> list[float]:
        """Share of what the same cores do without a pipeline, in each round."""
        return [two / pair for pair, two in zip(self.pair, self.stages, strict=True)]

    @property
    def wanted(self) -> float:
        """Least speed-up divided by the number of stages."""
        return WANTED * self.num_micro_batches / self.slots

    @property
    def slots(self) -> float:
        """See `configs.pipeline.slots`."""
        return pipeline.slots(PP, self.num_micro_batches, self.chunks)


def measured() -> list[Efficiency]:
    """Measure both schedules."""
    two = [*MODEL, f"parallel.pp={PP}"]
    tokens = load_config(list(MODEL), 1).model.seq_length
    rates: dict[tuple[str, int], list[float]] = {}
    with (
        Team("benchmarks.stepping:steps", 1, list(MODEL)) as one,
        Team("benchmarks.stepping:steps", 1, list(MODEL)) as other,
        Team("benchmarks.stepping:steps", PP, two) as plain,
        Team(
            "benchmarks.stepping:steps", PP, [*two, *interleaved(SCHEDULES["interleaved"])]
        ) as woven,
    ):
        layouts = {"one": (one,), "pair": (one, other), "1F1B": (plain,), "interleaved": (woven,)}
        for number in range(ROUNDS + 1):
            for count in MICRO_BATCHES if number else (PP,):  # the first steps allocate
                for name, teams in layouts.items():
                    for team in teams:
                        team.tell(count)
                    seconds = max(second for team in teams for second in team.answers())
                    if number:
                        rate = len(teams) * count * tokens / seconds
                        rates.setdefault((name, count), []).append(rate)
    return [
        Efficiency(
            *(schedule, chunks, count),
            *(rates[name, count] for name in ("one", "pair", schedule)),
        )
        for schedule, chunks in SCHEDULES.items()
        for count in MICRO_BATCHES
    ]


def table(found: list[Efficiency]) -> list[str]:
    """Lines of text: medians of the rounds, and ranges of the ratios."""
    lines = [
        f"{'schedule':14}{'micro-batches':>14}{'one':>8}{'pair':>8}{'stages':>8}  tokens/s"
        f"{'speed-up / 2':>16}{'range':>16}{'wanted':>8}{'stages / pair':>15}{'range':>16}{'bubble leaves':>15}"
    ]
    for each in found:
        rates = "".join(
            f"{statistics.median(rate):8,.0f}" for rate in (each.one, each.pair, each.stages)
        )
        lines.append(
            f"{each.schedule:14}{each.num_micro_batches:14}{rates}{'':10}"
            f"{statistics.median(each.speed_up):16.3f}{_range(each.speed_up):>16}{each.wanted:8.3f}"
            f"{statistics.median(each.of_the_pair):15.3f}{_range(each.of_the_pair):>16}"
            f"{each.num_micro_batches / each.slots:15.3f}"
        )
    return lines


def _range(values: list[float]) -> str:
    return f"{min(values):.3f} .. {max(values):.3f}"
