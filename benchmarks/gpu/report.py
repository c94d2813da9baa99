"""What a session prints at its end: a table, and in plain words what is known now and what is not."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.gpu.plan import NEVER, SECTIONS

RAN, WRONG, TOO_LONG, FAILED = "ran", "WRONG", "TOO LONG", "FAILED"


@dataclass(frozen=True)
class Ended:
    """How a section ended."""

    section: str
    status: str
    """ran, WRONG (it ran, and a check failed), TOO LONG or FAILED."""
    reason: str
    """Why it did not run to its end, or what is wrong; "" if it ran."""
    seconds: float
    limit_seconds: int
    results: list[dict[str, Any]]


def table(ended: Sequence[Ended]) -> list[str]:
    """A line a section, followed by what it has to say."""
    lines = [f"{'section':<11}{'status':<10}{'seconds':>8}{'planned':>8}  checks"]
    for each in ended:
        checks = [result["is_right"] for result in each.results if "is_right" in result]
        said = [result["text"] for result in each.results if result["what"] == "line"]
        lines.append(
            f"{each.section:<11}{each.status:<10}{each.seconds:>8.1f}{each.limit_seconds:>8}"
            f"  {sum(checks)} of {len(checks)} right"
        )
        lines += [f"    {text}" for text in said]
        if each.reason:
            lines.append(f"    ! {each.reason.splitlines()[-1]}")
    return lines


def closing_lines(ended: Sequence[Ended], is_dry: bool, seconds: float) -> list[str]:
    """What was measured and what was not."""
    tells = {section.name: section.tells for section in SECTIONS}
    status = {each.section: each.status for each in ended}
    done = [name for name in tells if status.get(name) in (RAN, WRONG)]
    open_ones = [name for name in tells if name not in done]
    lines = [f"{len(ended)} sections in {seconds:.0f} s."]
    if is_dry:
        lines.append(
            "A dry run on CPU: nothing was measured; no figure above says anything of a GPU."
        )
        done, open_ones = [], list(tells)
    lines += [f"Measured:      {tells[name]}" for name in done]
    lines += [f"Not measured:  {tells[name]}{_why(status.get(name), is_dry)}" for name in open_ones]
    return [*lines, *(f"Not measured:  {what}" for what in NEVER)]


def _why(status: str | None, is_dry: bool) -> str:
    if status is None:
        return " (not asked for)"
    if is_dry:
        return "" if status == RAN else f" ({status.lower()} in the dry run, too)"
    return f" ({status.lower()}: what it has is in the results)"
