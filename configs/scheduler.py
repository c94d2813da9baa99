"""Parse time limits and node lists in SLURM's notation."""

import re
from itertools import product

TIME_FORMS = "minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS"
_LONGEST_SECONDS = 100 * 365 * 86400
_NAME = r"[A-Za-z0-9_.-]"
_RANGES = r"\[\d{1,9}(?:-\d{1,9})?(?:,\d{1,9}(?:-\d{1,9})?)*\]"
_NODES = re.compile(rf"(?:{_NAME}|{_RANGES})+", re.ASCII)
_PART = re.compile(rf"({_RANGES})", re.ASCII)
_MOST_NODES = 100_000


def limit_seconds(text: str) -> int | None:
    """Seconds of a time limit in one of sbatch's forms; None if the text has none of these forms.

    Args:
        text: `90` is minutes, `90:30` minutes and seconds, `960:00:00` hours; after days come hours: `3-1`, `0-01:00`.
    """
    days, dash, clock = text.strip().rpartition("-")
    parts = clock.split(":")
    numbers = [days, *parts] if dash else parts
    if len(parts) > 3 or not all(re.fullmatch(r"[0-9]{1,9}", number) for number in numbers):
        return None
    values = [int(part) for part in parts]
    if dash:
        hours, minutes, seconds = [*values, 0, 0][:3]
    elif len(values) == 3:
        hours, minutes, seconds = values
    else:
        hours, (minutes, seconds) = 0, [*values, 0][:2]
    total = ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds
    return total if total <= _LONGEST_SECONDS else None


def expand_nodes(text: str) -> list[str] | None:
    """Expand a node list, such as nid[0010-0012,7] or a,b[1-2]; None if the text is not such a list."""
    found = list[str]()
    for entry in _split(text):
        if not _NODES.fullmatch(entry):
            return None
        parts = [_numbers(part) for part in _PART.split(entry) if part]
        size = 1
        for part in parts:
            size *= len(part)
        if size == 0 or len(found) + size > _MOST_NODES:
            return None
        found += ["".join(name) for name in product(*parts)]
    return found


def _split(text: str) -> list[str]:
    """Cut at the commas outside of brackets."""
    return [entry.strip(" ") for entry in re.split(r",(?![^\[\]]*\])", text)]


def _numbers(part: str) -> list[str]:
    """Expand one part of a node name: the numbers of a range, as wide as its first one, or the part itself."""
    if not part.startswith("["):
        return [part]
    names = list[str]()
    for entry in part[1:-1].split(","):
        first, _, last = entry.partition("-")
        count = int(last or first) - int(first) + 1
        if count > _MOST_NODES:
            return []
        names += [f"{number:0{len(first)}}" for number in range(int(first), int(first) + count)]
    return names
