"""Curves over the samples seen, as inline SVG."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle

from configs.objectives import is_key
from configs.run_files import MetricsLine, finite

_WIDTH, _HEIGHT = 560, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 12, 28
_COLOURS = ("#2a6fbb", "#c8553d", "#3d9a6c", "#8a5fb0", "#b58900", "#3aa6b9", "#c2578e", "#7d8b2f")
# A curve has at most this many points; each is the mean of consecutive values.
_POINTS = 400


@dataclass(frozen=True)
class Chart:
    """Curves that share axes."""

    title: str
    keys: tuple[str, ...]
    """Keys of the metrics to draw; a chart of a loss also shows the loss of each objective."""
    is_marked: bool = False
    """True to draw a dot at each point, for metrics with few points."""


CHARTS = (
    Chart("Training loss (nats per token)", ("train/loss",)),
    Chart("Held-out loss (nats per token)", ("valid/loss",), True),
    Chart("Learning rate", ("optim/lr",)),
    Chart("Gradient norm before clipping", ("optim/grad_norm", "optim/grad_norm_embedding")),
    Chart("Global batch size (rows)", ("optim/global_batch_size",)),
    Chart("Tokens per second", ("speed/tokens_per_second",)),
)


def with_objectives(keys: Sequence[str], lines: Sequence[MetricsLine]) -> list[str]:
    """Insert after each loss the keys of the losses of single objectives that the last line of metrics has."""
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


def draw(chart: Chart, lines: Sequence[MetricsLine]) -> str:
    """Render a chart and its legend as HTML; "" if the lines have none of its values."""
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
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{shown_number(value)}</text>'
        )
    for value, anchor in ((x_low, "start"), (x_high, "end")):
        x, _ = place(value, y_low)
        parts.append(
            f'<text x="{x:.1f}" y="{_HEIGHT - 8}" text-anchor="{anchor}">{value:,.0f} samples</text>'
        )
    return "".join(parts)


def ticks(low: float, high: float) -> list[float]:
    """Three to eight round numbers within [low, high], 1, 2 or 5 times a power of ten apart."""
    power = 10.0 ** math.floor(math.log10((high - low) / 3))
    step = next(
        factor * power for factor in (5, 2, 1) if 3 * factor * power <= (high - low) * (1 + 1e-9)
    )
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def points(lines: Sequence[MetricsLine], key: str) -> list[tuple[float, float]]:
    """Pairs (samples_seen, value) of the finite values of a key; consecutive values are averaged if there are many."""
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


def shown_number(value: float) -> str:
    """Format a number with four digits, or with an exponent if it is very small or large."""
    if value != 0 and (abs(value) < 1e-2 or abs(value) >= 1e5):
        return f"{value:.2e}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
