"""Fields of events as the report reads them: what an event of another program may hold is taken as absent."""

BEGINNINGS = ("start", "resume")
"""Events with which an attempt begins to train."""


def count(value: object) -> int | None:
    """A position or a number of things; None if it is none."""
    return value if type(value) is int and 0 <= value < 2**62 else None


def amount(value: object) -> float | None:
    """A time since the epoch in seconds, a duration or a share; None if it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if 0 <= value < 2**40 else None
