"""Shares as percentages for people."""


def percent(share: float, digits: int = 0) -> str:
    """Format a share as a percentage; a share that would round to zero is shown as "under 1%".

    Args:
        share: from 0 to 1.
        digits: digits after the decimal point.

    Returns:
        Text such as "28%" or "under 1%"; "0%" only for a share of 0.
    """
    least = 10.0**-digits
    if 0 < 100 * share < least:
        return f"under {least:.{digits}f}%"
    return f"{share:.{digits}%}"
