"""What a pipeline makes of its cores, and how long its stages wait:  python -m benchmarks parallel [--json FILE]

First the idle share of a step on four stages whose layers sleep (benchmarks/bubbles.py), then the speed of two stages
that compute (benchmarks/efficiency.py). Needs two idle cores.
"""

from dataclasses import asdict

from benchmarks import bubbles, efficiency
from benchmarks.report import Record, json_file


def run() -> None:
    """Print both tables."""
    main([])


def main(words: list[str]) -> int:
    """Run the command; returns the exit code."""
    path = json_file(words)
    record = Record("parallel")
    print(record.heading())
    idle = bubbles.measured()
    print("\n".join(bubbles.table(idle)), flush=True)
    speeds = efficiency.measured()
    print("\n".join(efficiency.table(speeds)), flush=True)
    if path is not None:
        figures = {
            "bubbles": [asdict(each) for each in idle],
            "efficiency": [asdict(each) | {"wanted": each.wanted} for each in speeds],
        }
        path.write_text(record.text(**figures) + "\n")
    return 0
