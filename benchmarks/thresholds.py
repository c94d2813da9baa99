"""What each threshold of the detector trades:  python -m benchmarks thresholds [--json FILE]

One key at a time is moved from its default. Printed: alarms of healthy runs (benchmarks/step_records.py; all kinds of noise
together), and how many of the faults that a threshold decides about are found, after how many steps.
"""

import copy
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from benchmarks.detection import FOUND_WITHIN, Ours
from benchmarks.report import Record, json_file
from benchmarks.step_records import FAULTS, NOISES, Series, healthy
from configs.schema import StabilityConfig

SEEDS, NUM_STEPS = range(2), 10_000
SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    *({"gradient_limit": limit} for limit in (8.0, 12.0, 24.0)),
    *({"loss_limit": limit} for limit in (5.0, 12.0)),
    *({"spike_steps": steps} for steps in ([3, 5], [6, 10], [18, 20])),
    *({"drift_limit": limit} for limit in (5.0, 12.0)),
    *({"spike_window": size} for size in (128, 512)),
)
_FAULTS = {
    fault.name: fault
    for fault in FAULTS
    if fault.name
    in {"gradient x 5, 20 steps after x 50", "loss + .3 from here on", "loss x 1.002 a step"}
}
_AT_SHARE = 0.4
"""Where faults begin: before the mixture changes, at half of the run."""


@dataclass
class Traded:
    """What one setting gives, over all noises and seeds."""

    changed: dict[str, Any]
    going_back: int
    """Alarms that go back, of SEEDS x NOISES runs."""
    left_out: float
    """Steps in 10,000."""
    found: dict[str, list[int | None]]
    """By fault: steps until it is found, of each run."""

    @property
    def label(self) -> str:
        """The setting as it is typed."""
        return " ".join(f"{key}={value}" for key, value in self.changed.items()) or "defaults"


def traded(changed: dict[str, Any]) -> Traded:
    """Count alarms of one setting."""
    config = replace(StabilityConfig(), **changed)
    found: dict[str, list[int | None]] = {name: [] for name in _FAULTS}
    going_back = left_out = 0
    for series in _runs():
        watching, at = Ours(config=config), int(_AT_SHARE * NUM_STEPS)
        for index, record in enumerate(series.records()):
            if index == at:
                for name in _FAULTS:
                    found[name].append(_found(copy.deepcopy(watching), series, name, at))
            told = watching.step(record)
            going_back += "back" in told
            left_out += "out" in told
    num_runs = len(SEEDS) * len(NOISES)
    return Traded(changed, going_back, 1e4 * left_out / (num_runs * NUM_STEPS), found)


def _runs() -> Iterator[Series]:
    return (healthy(seed, noise, NUM_STEPS) for noise in NOISES for seed in SEEDS)


def _found(watching: Ours, series: Series, name: str, at: int) -> int | None:
    """Steps until an alarm of the fault's kind, from where it shows."""
    fault, faulty = _FAULTS[name], series.copy()
    fault.write(faulty, at)
    kind = "out" if name.startswith("gradient") else "back"
    within = fault.shows + 1 if kind == "out" else FOUND_WITHIN
    for number, record in enumerate(faulty.records(since=at)):
        if number >= within:
            return None
        if kind in watching.step(record) and number >= fault.shows:
            return number - fault.shows + 1
    return None


def lines(settings: list[Traded]) -> Iterator[str]:
    """A table."""
    yield f"{'':22}{'go back':>9}{'left out':>10}" + "".join(f"{name:>36}" for name in _FAULTS)
    for each in settings:
        cells = []
        for steps in each.found.values():
            known = [step for step in steps if step is not None]
            after = f", step {statistics.median(known):.0f}" if known else ""
            cells.append(f"{len(known)} of {len(steps)}{after}")
        yield f"{each.label:22}{each.going_back:9}{each.left_out:10.1f}" + "".join(
            f"{cell:>36}" for cell in cells
        )


def run() -> None:
    """Print the table."""
    main([])


def main(words: list[str]) -> int:
    """Run the command; returns the exit code."""
    path = json_file(words)
    record = Record("thresholds")
    print(record.heading(), flush=True)
    settings = [traded(changed) for changed in SETTINGS]
    print("\n".join(lines(settings)))
    if path is not None:
        path.write_text(record.text(settings=[asdict(each) for each in settings]) + "\n")
    return 0
