"""What the page shows: each subject makes its panels of the runs, in the order of the page."""

from collections.abc import Callable, Sequence

from train.report import (
    attention_mask,
    configuration,
    filled,
    goodput_panels,
    layers,
    losses,
    memory,
    mixture,
    optimisation,
    pipeline_schedule,
    rank_map,
    speed,
    timeline,
)
from train.report.panel import GROUPS, Panel
from train.report.read import RunData

SUBJECTS: tuple[Callable[[Sequence[RunData]], list[Panel]], ...] = (
    timeline.panels,
    losses.panels,
    optimisation.panels,
    layers.panels,
    speed.panels,
    memory.panels,
    goodput_panels.panels,
    mixture.panels,
    filled.panels,
    attention_mask.panels,
    rank_map.panels,
    pipeline_schedule.panels,
    configuration.panels,
)


def all_panels(runs: Sequence[RunData]) -> list[Panel]:
    """The panels of the page, by their section.

    Args:
        runs: all runs of the page; panels name them by their place.
    """
    found = [panel for subject in SUBJECTS for panel in subject(runs)]
    return sorted(found, key=lambda panel: GROUPS.index(panel.group))
