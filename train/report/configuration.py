"""The configuration of the runs: its changes, the differences between several runs, and the whole of it."""

from collections.abc import Iterator, Sequence
from typing import Any

from configs.run_paths import CONFIG
from configs.terminal import visible
from train.report.panel import Panel
from train.report.read import RunData

_GROUP = "Configuration"


def panels(runs: Sequence[RunData]) -> list[Panel]:
    """The panels of all runs."""
    return [*_changes(runs), *_differences(runs), *_texts(runs)]


def _changes(runs: Sequence[RunData]) -> list[Panel]:
    rows = [
        [run.name, event.at, visible(str(change), keep="")]
        for run in runs
        for event in run.placed_events
        if event.kind == "config_change" and isinstance(event.details.get("changes"), list)
        for change in event.details["changes"]
    ]
    if not rows:
        return []
    return [
        Panel(
            key="configuration/changes",
            title="Configuration changes",
            group=_GROUP,
            kind="table",
            data={},
            note="What a resume has changed, and the sample at which it did.",
            columns=("run", "sample", "change"),
            rows=rows,
            is_wide=True,
        )
    ]


def _differences(runs: Sequence[RunData]) -> list[Panel]:
    """The keys in which the runs of a page differ."""
    if len(runs) < 2:
        return []
    flat = [dict(_flat(run.config)) for run in runs]
    keys = dict.fromkeys(key for each in flat for key in each)
    rows = [
        [key, *(each.get(key) for each in flat)]
        for key in keys
        if any(each.get(key) != flat[0].get(key) for each in flat)
    ]
    return [
        Panel(
            key="configuration/differences",
            title="Differences between the runs",
            group=_GROUP,
            kind="table",
            data={},
            note="" if rows else "Their configurations are equal.",
            columns=("key", *(run.name for run in runs)),
            rows=rows,
            is_wide=True,
        )
    ]


def _texts(runs: Sequence[RunData]) -> list[Panel]:
    return [
        Panel(
            key="configuration/text" if len(runs) == 1 else f"configuration/text/{number}",
            title="Configuration" if len(runs) == 1 else f"Configuration: {run.name}",
            group=_GROUP,
            kind="text",
            data={
                "text": visible(run.config_text) or f"(no {CONFIG})",
                "overrides": visible(run.overrides),
            },
            is_wide=True,
        )
        for number, run in enumerate(runs)
    ]


def _flat(values: dict[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{visible(str(key), keep='')}", visible(str(value), keep="")
