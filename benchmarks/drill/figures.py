"""What the runs of the drill came to: the table, and what is wanted of them."""

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.drill import timeline
from benchmarks.drill.run import Outcome
from benchmarks.drill.timeline import Variant, first_words
from tests.helpers.poison import FACTOR

NEAR, WORSE = 0.02, 0.05
"""Shares of the clean loss: within the first the rollback ends, and by the second at least the run without is worse."""


def settings() -> dict[str, Any]:
    """What was fixed before the seeds that are reported."""
    return {
        "learning_rate": timeline.LR,
        "too_high": timeline.TOO_HIGH,
        "clip": timeline.CLIP,
        "gradient_factor": FACTOR,
        "poisoned": timeline.POISONED,
        "enlarged": timeline.ENLARGED,
        "words": first_words(Variant.rollback),
    }


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """Lines of a table in Markdown: a row for each seed."""
    rows = [
        "| seed | clean | rollback | | warn | | rollbacks | data left out, batches | rates lowered | steps left out "
        "| starts | rollbacks of the clean run |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for seed, found in of_seeds(outcomes).items():
        clean, back, warn = (found[each.value] for each in Variant)
        skipped = [_length(each) for each in back.rollbacks]
        rates = [f"{each['learning_rate']:g}" for each in back.rollbacks]
        lowered = ", ".join(rate for rate in rates if rate != "1")
        cells = [
            *(str(seed), _loss(clean), _loss(back), _beside(back, clean)),
            *(_loss(warn), _beside(warn, clean), str(len(back.rollbacks))),
            *(", ".join(map(str, skipped)), lowered or "none"),
            *(str(len(back.left_out)), str(back.starts), str(len(clean.rollbacks))),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def failures(outcomes: Sequence[Outcome]) -> list[str]:
    """What is not as wanted, a line each; none: all is."""
    seeds = of_seeds(outcomes)
    clean = [found["clean"] for found in seeds.values()]
    lines = [f"seed {each.seed}, clean: {each.message}" for each in clean if not each.ended]
    if lines:
        return lines
    near = allowed([each.valid_loss or 0.0 for each in clean])
    num_worse = 0
    for seed, found in seeds.items():
        back, warn, usual = found["rollback"], found["warn"], found["clean"].valid_loss or 0.0
        lines += [f"seed {seed}: {each}" for each in _wrong_with(back, usual, near)]
        num_worse += warn.valid_loss is None or warn.valid_loss >= (1 + WORSE) * usual
    if num_worse < len(seeds) - len(seeds) // 5:
        lines.append(f"without rollback only {num_worse} seeds end {WORSE:.0%} worse")
    return lines


def allowed(clean: Sequence[float]) -> float:
    """How far above the clean loss a run may end: 2 %, or two standard deviations of the clean seeds."""
    spread = statistics.stdev(clean) if len(clean) > 1 else 0.0
    return max(NEAR * statistics.mean(clean), 2 * spread)


def of_seeds(outcomes: Sequence[Outcome]) -> dict[int, dict[str, Outcome]]:
    """The outcomes by seed and variant."""
    found: dict[int, dict[str, Outcome]] = {}
    for each in outcomes:
        found.setdefault(each.seed, {})[each.variant] = each
    return found


def _wrong_with(back: Outcome, usual: float, near: float) -> list[str]:
    if not back.ended or back.valid_loss is None:
        return [back.message]
    found: list[str] = []
    if back.valid_loss > usual + near:
        found.append(
            f"ends at {back.valid_loss:.4f}, which is more than {near:.4f} above {usual:.4f}"
        )
    if not any(each["learning_rate"] < 1 and not each["skip"] for each in back.rollbacks):
        found.append("no rollback lowered the rate at data that are not the cause")
    for first, last in timeline.in_samples(timeline.POISONED):
        if not any(_overlaps(each["skip"], first, last) for each in back.rollbacks):
            found.append(f"the poisoned data from sample {first} on were not left out")
    return found


def _overlaps(ranges: Sequence[Sequence[int]], first: int, last: int) -> bool:
    return any(start < last and first < stop for start, stop in ranges)


def _length(rollback: dict[str, Any]) -> int:
    return sum(stop - start for start, stop in rollback["skip"]) // timeline.BATCH


def _loss(outcome: Outcome) -> str:
    return "did not end" if outcome.valid_loss is None else f"{outcome.valid_loss:.3f}"


def _beside(outcome: Outcome, clean: Outcome) -> str:
    if outcome.valid_loss is None or clean.valid_loss is None:
        return "-"
    return f"{100 * (outcome.valid_loss / clean.valid_loss - 1):+.1f} %"
