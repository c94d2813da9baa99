"""Shares as people read them."""


def percent(share: float, digits: int = 0) -> str:
    """A share, from 0 to 1, as a percentage; one that is too small for a digit is not shown as nothing.

    Args:
        share: part of one.
        digits: behind the point.

    Returns:
        "28%", "under 1%", and "0%" for nothing at all.
    """
    least = 10.0**-digits
    if 0 < 100 * share < least:
        return f"under {least:.{digits}f}%"
    return f"{share:.{digits}%}"
