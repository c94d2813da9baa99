"""One self-contained HTML page with a run's curves:  python -m train.report runs/default

Inline SVG, no script from elsewhere: the page can be mailed, and opens without a network.
"""

import argparse
import html
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, TypeVar

from configs.errors import (
    EXIT_DONE,
    EXIT_PEER_FAILED,
    EXIT_USER_INPUT,
    RecordError,
    RunFolderError,
    UserError,
)
from configs.nearby import did_you_mean, runs_near
from configs.objectives import is_key
from configs.records import read_file, read_text
from configs.run_files import (
    Event,
    MetricsLine,
    finite,
    number,
    read_events,
    read_metrics,
)
from configs.run_paths import CONFIG, METRICS, REPORT, RunPaths
from configs.run_state import shown_state
from configs.terminal import tell, visible
from configs.version import VERSION, ShowVersion
from train.failures import may_pass
from train.small_files import replace_file

T = TypeVar("T")

# Of all pages that this command writes: it replaces no other file.
_MARK = '<meta name="generator" content="glm-pretraining">'
_LARGEST_PAGE = 2**30
_WIDTH, _HEIGHT = 560, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 12, 28
_COLOURS = ("#2a6fbb", "#c8553d", "#3d9a6c", "#8a5fb0", "#b58900", "#3aa6b9", "#c2578e", "#7d8b2f")
# Lines are drawn from at most this many points; each is the mean of its stretch.
_POINTS = 400


@dataclass(frozen=True)
class Chart:
    """Curves that share axes."""

    title: str
    keys: tuple[str, ...]
    """Of metrics; a chart of a loss has that of each objective besides."""
    is_marked: bool = False
    """Few points: draw each."""


CHARTS = (
    Chart("Training loss (nats per token)", ("train/loss",)),
    Chart("Held-out loss (nats per token)", ("valid/loss",), True),
    Chart("Learning rate", ("optim/lr",)),
    Chart("Gradient norm before clipping", ("optim/grad_norm", "optim/grad_norm_embedding")),
    Chart("Global batch size (rows)", ("optim/global_batch_size",)),
    Chart("Tokens per second", ("speed/tokens_per_second",)),
)

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --quiet: #68758a; --line: #d8dee8; --page: #fff; --card: #f6f8fb }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6ebf3; --quiet: #98a5b9; --line: #364154; --page: #141a23; --card: #1c2430 } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); margin: 2rem auto;
  max-width: 1200px; padding: 0 1rem }
h1 { margin-bottom: 0 } h2 { font-size: 1rem; margin: 0 0 .4rem } .quiet { color: var(--quiet) }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(520px, 100%), 1fr)); gap: 1rem }
.card { background: var(--card); border-radius: 8px; padding: 1rem; overflow-x: auto }
svg { width: 100%; height: auto } svg text { fill: var(--quiet); font-size: 11px } .grid { stroke: var(--line) }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; padding: .15rem .8rem .15rem 0;
  vertical-align: top } pre { white-space: pre-wrap; margin: 0; font-size: 13px }
.key { display: inline-block; margin-right: 1rem } .dot { display: inline-block; width: .7em; height: .7em;
  border-radius: 50%; margin-right: .35em }
"""


def render(folder: Path, report: Callable[[str], None] = lambda _: None) -> str:
    """Render the page of one run.

    Args:
        folder: of the run.
        report: told what cannot be read; the page says it too.

    Raises:
        RecordError: its metrics cannot be read.
        RunFolderError: the folder holds none.
        OSError: the file system failed.
    """
    remarks = list[str]()

    def remark(text: str) -> None:
        remarks.append(text)
        report(text)

    lines = read_metrics(folder, remark)
    if not lines:
        advice = "" if RunPaths(folder).config.exists() else did_you_mean(runs_near(folder))
        raise RunFolderError(
            f"{folder} has no {METRICS} with at least one line. "
            + (advice or "Give a run folder: python -m train.report runs/default")
        )
    name = _escaped(folder.resolve().name)
    charts = "".join(_chart(chart, lines) for chart in CHARTS)
    state = _or_none(lambda: shown_state(folder), remark) or "unknown"
    events = _or_none(lambda: read_events(folder, remark), remark) or []
    text = _or_none(lambda: read_text(RunPaths(folder).config), remark) or f"(no {CONFIG})"
    position = [lines[-1].get(key, 0) for key in ("samples_seen", "tokens_seen", "step")]
    notes = "".join(f'<p class="quiet">{_escaped(each)}</p>' for each in remarks)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">{_MARK}<title>{name}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head><body>
<h1>{name}</h1>
<p class="quiet">{_escaped(state)} - {position[0]:,} samples,
{position[1]:,} tokens, {position[2]:,} steps</p>{notes}
<div class="card"><h2>Now</h2>{_summary(lines)}</div><br>
<div class="charts">{charts}</div><br>
<div class="card"><h2>Events</h2>{_events(events)}</div><br>
<div class="card"><h2>Configuration</h2><pre>{_escaped(text)}</pre></div>
</body></html>
"""


def _or_none(read: Callable[[], T], remark: Callable[[str], None]) -> T | None:
    """What can be read; None if nothing is there, or after a remark."""
    try:
        return read()
    except FileNotFoundError:
        return None
    except RecordError as error:
        remark(str(error))
        return None


def _escaped(text: str) -> str:
    return html.escape(visible(text))


def _summary(lines: Sequence[MetricsLine]) -> str:
    shown = []
    for key in ("train/loss", *with_objectives(("valid/loss",), lines)):
        values = [value for line in lines if (value := number(line.get(key))) is not None]
        if values:
            shown.append(f"<tr><td>{key}</td><td>{_number(values[-1])}</td></tr>")
    return f"<table>{''.join(shown)}</table>"


def _events(events: Sequence[tuple[Event, dict[str, Any]]]) -> str:
    rows = []
    for event, details in events:
        text = ", ".join(f"{key}: {value}" for key, value in details.items())
        rows.append(
            f"<tr><td>{_escaped(event.event)}</td><td class='quiet'>{_escaped(text)}</td></tr>"
        )
    return f"<table>{''.join(rows)}</table>"


def with_objectives(keys: Sequence[str], lines: Sequence[MetricsLine]) -> list[str]:
    """Keys, and after each loss those of single objectives: whichever the run counts, as its last line has them."""
    found: list[str] = []
    for key in keys:
        found.append(key)
        if key.endswith("/loss"):
            found += [
                name
                for name in lines[-1]
                if name.startswith(f"{key}_") and is_key(name.removeprefix(f"{key}_"))
            ]
    return found


def _chart(chart: Chart, lines: Sequence[MetricsLine]) -> str:
    curves = {key: points(lines, key) for key in with_objectives(chart.keys, lines)}
    curves = {key: curve for key, curve in curves.items() if curve}
    if not curves:
        return ""
    xs = [x for curve in curves.values() for x, _ in curve]
    ys = [y for curve in curves.values() for _, y in curve]
    x_low, x_high, y_low, y_high = min(xs), max(xs), min(ys), max(ys)
    pad = (y_high - y_low) * 0.05 or abs(y_high) * 0.1 or 1.0
    y_low, y_high = y_low - pad, y_high + pad

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / ((x_high - x_low) or 1)
        up = (y - y_low) / (y_high - y_low)
        return (
            _LEFT + across * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM),
        )

    drawn = [_grid(y_low, y_high, x_low, x_high, place)]
    legend = []
    for colour, (key, curve) in zip(cycle(_COLOURS), curves.items(), strict=False):
        places = [place(x, y) for x, y in curve]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        drawn.append(
            f'<polyline fill="none" stroke="{colour}" stroke-width="1.6" points="{path}"/>'
        )
        if chart.is_marked:
            drawn += [
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places
            ]
        legend.append(
            f'<span class="key"><span class="dot" style="background:{colour}"></span>{key}</span>'
        )
    return (
        f'<div class="card"><h2>{chart.title}</h2><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{chart.title}">{"".join(drawn)}</svg><div class="quiet">{"".join(legend)}</div></div>'
    )


def _grid(
    y_low: float,
    y_high: float,
    x_low: float,
    x_high: float,
    place: Callable[[float, float], tuple[float, float]],
) -> str:
    parts = []
    for value in ticks(y_low, y_high):
        _, y = place(x_low, value)
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_number(value)}</text>'
        )
    for value, anchor in ((x_low, "start"), (x_high, "end")):
        x, _ = place(value, y_low)
        parts.append(
            f'<text x="{x:.1f}" y="{_HEIGHT - 8}" text-anchor="{anchor}">{value:,.0f} samples</text>'
        )
    return "".join(parts)


def ticks(low: float, high: float) -> list[float]:
    """Three to eight round numbers (1, 2 or 5 times a power of ten apart) within [low, high]."""
    power = 10.0 ** math.floor(math.log10((high - low) / 3))
    step = next(
        factor * power for factor in (5, 2, 1) if 3 * factor * power <= (high - low) * (1 + 1e-9)
    )
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def points(lines: Sequence[MetricsLine], key: str) -> list[tuple[float, float]]:
    """(samples_seen, value) of the finite values of a key, averaged over stretches if there are many."""
    found = [
        (float(line.get("samples_seen") or 0), value)
        for line in lines
        if (value := finite(line.get(key))) is not None
    ]
    stretch = -(-len(found) // _POINTS) or 1
    return [
        (found[min(start + stretch, len(found)) - 1][0], _mean(found[start : start + stretch]))
        for start in range(0, len(found), stretch)
    ]


def _mean(part: Sequence[tuple[float, float]]) -> float:
    return sum(value for _, value in part) / len(part)


def _number(value: float) -> str:
    if value != 0 and (abs(value) < 1e-2 or abs(value) >= 1e5):
        return f"{value:.2e}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _write(output: Path, page: str) -> None:
    """Put the page in its place; a file there that is no such page is not ours to replace.

    Raises:
        RunFolderError: it cannot be written.
    """
    try:
        if not is_own_page(output):
            raise RunFolderError(
                f"{output} is no page that this command has written: it is not replaced. Move it away, or choose another "
                "place with --output FILE."
            )
        replace_file(output, page)
    except OSError as error:
        raise RunFolderError(
            f"{output} cannot be written: {error.strerror}. Choose another place with --output FILE."
        ) from error


def is_own_page(output: Path) -> bool:
    """True if nothing stands there, or a page of this program.

    Raises:
        OSError: the file system failed.
    """
    try:
        return not output.is_symlink() and _MARK.encode() in read_file(output, _LARGEST_PAGE)[:4096]
    except (FileNotFoundError, NotADirectoryError):
        return True
    except RecordError:
        return False


def cli(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m train.report", description="A run's curves as one page."
    )
    parser.add_argument(VERSION, action=ShowVersion)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--output", type=Path, help=f"default: {REPORT} in the run folder")
    options = parser.parse_args(arguments)
    output = options.output or RunPaths(options.run).report

    def report(text: str) -> None:
        tell(text, sys.stderr)

    try:
        _write(output, render(options.run, report))
    except UserError as error:
        report(str(error))
        return EXIT_USER_INPUT
    except OSError as error:
        report(f"{options.run} cannot be read: {error.strerror}.")
        return EXIT_PEER_FAILED if may_pass(error) else EXIT_USER_INPUT
    tell(str(output))
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(cli())
