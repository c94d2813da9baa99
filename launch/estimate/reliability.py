"""How often to save, and how much of the time is left for progress. Young 1974; Daly 2006.

With a mean time M between failures of the whole cluster, exponentially distributed, a block of d seconds per save and
R seconds from a failure to the next step, an interval t between saves takes
    M exp(R / M) (exp((t + d) / M) - 1)
seconds of wall time on average, of which t are progress (Daly 2006).
"""

import math


def best_interval(block_seconds: float, mtbf_seconds: float) -> float:
    """Seconds between saves that waste the least time: Daly's correction of Young's sqrt(2 d M)."""
    ratio = block_seconds / (2 * mtbf_seconds)
    if ratio >= 1:
        return mtbf_seconds
    root = math.sqrt(2 * block_seconds * mtbf_seconds)
    return root * (1 + math.sqrt(ratio) / 3 + ratio / 9) - block_seconds


def goodput(
    interval_seconds: float, block_seconds: float, restart_seconds: float, mtbf_seconds: float
) -> float:
    """Share of the wall time that is progress; 0 if failures are so frequent that the wall time overflows."""
    try:
        blocks = math.expm1((interval_seconds + block_seconds) / mtbf_seconds)
        wall = mtbf_seconds * math.exp(restart_seconds / mtbf_seconds) * blocks
    except OverflowError:
        return 0.0
    return interval_seconds / wall
