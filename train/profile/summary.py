"""The summary of a trace, as text."""

from configs.terminal import visible
from train.parts import BUBBLE
from train.profile.shares import SHARES, Operator, Shares

_TOP = 10
_WIDTH = 80
_NUMBERS = 32
"""Columns of a row's numbers."""


def summary(shares: Shares, rank: int) -> list[str]:
    """Lines of at most 80 columns.

    Args:
        shares: of a trace, with at least one step.
        rank: its rank.
    """
    total = sum(shares.step_seconds)
    count = len(shares.steps)
    steps = (
        f"step {shares.steps[0]}"
        if count == 1
        else f"steps {shares.steps[0]} to {shares.steps[-1]}"
    )
    where = "GPU" if shares.on_gpu else "CPU"
    lines = [
        f"Rank {rank}, {steps} on {where}: {total / count:.4g} s a step",
        "",
        _row("part", "s a step", "share"),
    ]
    for name in SHARES:
        if seconds := shares.parts.get(name, 0.0):
            lines.append(_row(name, _seconds(seconds / count), _share(seconds, total)))
    parts = sum(shares.parts.values())
    lines += [_row("sum", _seconds(parts / count), _share(parts, total)), ""]
    bubble = shares.parts.get(BUBBLE, 0.0)
    lines.append(f"Pipeline bubble: {_share(bubble, total)} of the step")
    if not shares.on_gpu:
        lines += [
            "On CPU with gloo a transfer stops the thread that computes, and ranks share",
            "cores: this says where the run's time went, not what a GPU would show.",
        ]
    what = "kernels" if shares.on_gpu else "operators by own time"
    lines += ["", _row(f"top {what}", "s a step", "share", "calls")]
    ranked = sorted(shares.operators.items(), key=lambda item: -item[1].seconds)
    for name, operator in ranked[:_TOP]:
        lines.append(_operator_row(name, operator, total, count))
    return lines


def _operator_row(name: str, operator: Operator, total: float, count: int) -> str:
    return _row(
        name,
        _seconds(operator.seconds / count),
        _share(operator.seconds, total),
        f"{operator.calls / count:,.4g}",
    )


def _row(name: str, *numbers: str) -> str:
    room = _WIDTH - _NUMBERS
    shown = visible(name, keep="")
    if len(shown) > room - 1:
        shown = f"{shown[: room - 4]}..."
    return f"{shown:{room}}{numbers[0]:>11}{numbers[1]:>10}{''.join(numbers[2:]):>11}".rstrip()


def _seconds(value: float) -> str:
    return f"{value:.6f}"


def _share(value: float, total: float) -> str:
    return f"{100 * value / total if total else 0.0:.1f} %"
