"""What more ranks cost beside training:  python -m benchmarks scale [--json FILE]

Data-parallel ranks of a tiny model over gloo: how long they take to open their process groups, with which memory and
sockets, and how long the one exchange of a step takes beside a step of one process. On fewer cores than ranks the times
include waiting for a core. Then the sockets and bytes of the published run's 768 ranks, counted
(benchmarks/control_plane.py).
"""

import statistics
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.bubbles import TINY
from benchmarks.report import Record, json_file
from benchmarks.teams import Team

NUM_RANKS = (1, 2, 4, 8)
PUBLISHED = 768
ROUNDS = 3


@dataclass(frozen=True)
class Size:
    """What a number of ranks was measured at: of the slowest or largest rank."""

    num_ranks: int
    start_seconds: list[float]
    """Of each round."""
    memory_bytes: list[int]
    sockets: int
    peers: int
    """Members of all groups of a rank, without itself."""
    step_seconds: list[float]
    """Medians of each round."""
    exchange_seconds: list[float]


def run() -> None:
    """Print the table."""
    main([])


def main(words: list[str]) -> int:
    """Run the command; returns the exit code."""
    path = json_file(words)
    record = Record("scale")
    print(record.heading())
    sizes = measured()
    print("\n".join(table(sizes)), flush=True)
    large = published()
    print("\n".join(large_table(large)), flush=True)
    if path is not None:
        path.write_text(record.text(sizes=[asdict(each) for each in sizes], published=large) + "\n")
    return 0


def measured() -> list[Size]:
    """Start each number of ranks in every round, and train some steps."""
    found: dict[int, list[dict[str, Any]]] = {num_ranks: [] for num_ranks in NUM_RANKS}
    for _ in range(ROUNDS):
        for num_ranks, rounds in found.items():
            words = [*TINY, "model.num_layers=2", f"optim.global_batch_size={num_ranks}"]
            with Team("benchmarks.control_plane:measured", num_ranks, words) as team:
                starts = team.ask("start")
                team.ask("steps")  # the first step allocates
                rounds.append(
                    {
                        **{key: max(start[key] for start in starts) for key in starts[0]},
                        **of_the_slowest(team.ask("steps")),
                    }
                )
    return [
        Size(
            num_ranks,
            [each["seconds"] for each in rounds],
            [each["memory_bytes"] for each in rounds],
            rounds[-1]["sockets"],
            rounds[-1]["peers"],
            [each["step"] for each in rounds],
            [each["exchange"] for each in rounds],
        )
        for num_ranks, rounds in found.items()
    ]


def of_the_slowest(ranks: list[list[tuple[float, float]]]) -> dict[str, float]:
    """Medians over the steps, each with the seconds of its slowest rank.

    Args:
        ranks: of each rank the (step, exchange) seconds of its steps.
    """
    steps = [
        [max(part) for part in zip(*of_ranks, strict=True)] for of_ranks in zip(*ranks, strict=True)
    ]
    step, exchange = (statistics.median(part) for part in zip(*steps, strict=True))
    return {"step": step, "exchange": exchange}


def published() -> dict[str, Any]:
    """Counted for the published run."""
    words = ["experiment=glm_130b", "precision=fp16", "data.paths=[none]"]
    with Team("benchmarks.control_plane:counted", 1, words, PUBLISHED) as team:
        return team.ask()[0]


def table(sizes: list[Size]) -> list[str]:
    """Lines of text; the last column compares with a step of one process."""
    lines = [
        f"{'ranks':>5}{'groups open s':>15}{'memory MiB':>12}{'sockets':>9}{'peers':>7}{'step ms':>9}{'exchange ms':>13}"
        f"{'of a step':>11}  exchange ms, range"
    ]
    one = statistics.median(sizes[0].step_seconds)
    for each in sizes:
        exchange = statistics.median(each.exchange_seconds)
        low, high = min(each.exchange_seconds), max(each.exchange_seconds)
        lines.append(
            f"{each.num_ranks:5}{statistics.median(each.start_seconds):15.2f}"
            f"{statistics.median(each.memory_bytes) / 2**20:12.1f}{each.sockets:9}{each.peers:7}"
            f"{1000 * statistics.median(each.step_seconds):9.1f}{1000 * exchange:13.2f}{exchange / one:11.1%}"
            f"  {1000 * low:.2f} .. {1000 * high:.2f}"
        )
    return lines


def large_table(large: dict[str, Any]) -> list[str]:
    """Lines of text."""
    tp, pp, dp = large["layout"]
    return [
        f"{tp * pp * dp} ranks (tp {tp}, pp {pp}, dp {dp}), counted: {large['peers']:,} gloo connections a rank, in groups "
        f"of {', '.join(map(str, large['groups']))}; {large['exchange_bytes']:,} bytes an exchange."
    ]
