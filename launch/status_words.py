"""The state of runs as text: a table of several runs, or some lines about one. Imports the standard library only."""

from collections.abc import Mapping, Sequence
from typing import Any

from configs.folding import shown_width
from configs.terminal import hanging, visible

_HEADER = ("name", "state", "samples", "when")
_UNITS = (("day", 86400), ("hour", 3600), ("minute", 60))
_STATES = {
    "interrupted": "interrupted: its process was killed; the same command continues",
    "stopped": "stopped: the same command continues",
}


def age(seconds: float) -> str:
    """How long ago something was; negative seconds, where two machines' clocks differ, read "ahead of this clock"."""
    for unit, length in _UNITS:
        count = int(abs(seconds) // length)
        if count:
            number = f"{count} {unit}{'s' if count > 1 else ''}"
            return f"{number} ago" if seconds > 0 else f"{number} ahead of this clock"
    return "just now"


def described(name: str, found: Mapping[str, Any], now: float, width: int | None) -> str:
    """Describe one run in some lines.

    Args:
        name: the run folder's name, as it is shown.
        found: the fields of its status.json, and why it stopped.
        now: the time, in seconds since the epoch.
        width: columns of the terminal; None: lines are not folded.
    """
    state = found.get("state", "unknown")
    # Between saves status.json stays as it is.
    saved = " at the last save" if state in ("running", "interrupted") else ""
    rows = {
        "run": name,
        "state": _STATES.get(state, state),
        "why": found.get("stop_reason"),
        "slow": found.get("slow_hosts"),
        "samples": f"{found['samples_seen']:,} seen{saved}" if "samples_seen" in found else None,
        "written": age(now - found["time"]) if "time" in found else None,
        "message": found.get("message"),
    }
    return "\n".join(
        hanging(f"{title:<9}", visible(str(text), keep=""), width)
        for title, text in rows.items()
        if text
    )


def table(rows: Sequence[tuple[str, str, str, str]], width: int | None) -> str:
    """Render several runs, one line each: name, state, samples seen, and when that was written.

    Args:
        rows: the cells of each run.
        width: columns of the terminal; in a narrower one each name has a line of its own. None: no limit.
    """
    cells = [_HEADER, *rows]
    widths = [max(shown_width(row[column]) for row in cells) for column in range(len(_HEADER))]
    is_wide = width is not None and sum(widths) + 2 * (len(widths) - 1) > width
    lines = list[str]()
    for name, state, samples, when in cells:
        rest = f"{state:<{widths[1]}}  {samples:>{widths[2]}}  {when}".rstrip()
        beside = name + " " * (widths[0] - shown_width(name))
        lines += [name, f"  {rest}"] if is_wide else [f"{beside}  {rest}"]
    return "\n".join(lines)
