"""Blanks of fixed held-out sentences as the model fills them in the course of the run."""

from collections.abc import Sequence
from typing import Any

from configs.run_paths import SAMPLES
from configs.terminal import visible
from train.report.panel import Panel
from train.report.read import RunData

MAX_POSITIONS = 60
"""Of a longer run, this many evaluations are shown, evenly spread, with the first and the last one."""
_LONGEST = 600
"""Characters of a text."""


def panels(runs: Sequence[RunData]) -> list[Panel]:
    """A panel for each run that has filled blanks."""
    found = list[Panel]()
    for number, run in enumerate(runs):
        lines = [line for line in run.samples if isinstance(line.get("blanks"), list)]
        shown = [lines[place] for place in _spread(len(lines), MAX_POSITIONS)]
        blanks = [_blank(line, each) for line in shown for each in line["blanks"]]
        known = [blank for blank in blanks if blank is not None]
        if not known:
            continue
        note = f"The same held-out sentences each time ({SAMPLES})."
        if len(shown) < len(lines):
            note += f" {len(shown):,} of {len(lines):,} evaluations are shown."
        is_alone = len(runs) == 1
        found.append(
            Panel(
                key="blanks" if is_alone else f"blanks/{number}",
                title="Filled blanks" if is_alone else f"Filled blanks: {run.name}",
                group="Filled blanks",
                kind="blanks",
                data={"blanks": known},
                note=note,
                is_wide=True,
            )
        )
    return found


def _spread(number: int, most: int) -> list[int]:
    if number <= most:
        return list(range(number))
    return sorted({round(place * (number - 1) / (most - 1)) for place in range(most)})


def _blank(line: dict[str, Any], blank: Any) -> dict[str, Any] | None:
    """A filled blank for the page; None if it is damaged."""
    if not isinstance(blank, dict) or not isinstance(blank.get("text"), str):
        return None
    return {
        "at": line.get("samples_seen", 0),
        **{name: _text(blank.get(name)) for name in ("objective", "text", "truth", "filled")},
    }


def _text(value: Any) -> str:
    return visible(str("" if value is None else value))[:_LONGEST]
