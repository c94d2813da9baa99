"""Where the ranks of a run's last attempt are, and which of them are slow, from its events."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from configs.run_files import Event
from configs.run_status import SLOW_RANK
from train.report.event_fields import BEGINNINGS, amount, count

MOST_RANKS = 2**14
"""A layout of more ranks is not drawn."""


@dataclass(frozen=True)
class Layout:
    """The tp x pp x dp grid of an attempt, and its nodes."""

    tp: int
    pp: int
    dp: int
    samples_seen: int
    """Position at which the attempt began."""
    nodes: tuple[tuple[str, int, int], ...]
    """(name, first rank, number of ranks) in the order of the ranks; empty: not recorded."""
    slow: Mapping[int, float]
    """Ranks that are slow now, with the share by which each takes longer."""

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        return self.tp * self.pp * self.dp


def last_layout(events: Sequence[tuple[Event, Mapping[str, Any]]]) -> Layout | None:
    """The layout that a run was last trained on; None if its events do not say."""
    found: Layout | None = None
    slow = dict[int, float]()
    for event, details in events:
        if event.event in BEGINNINGS:
            slow.clear()
            found = _layout(details, slow)
        elif event.event == SLOW_RANK:
            rank, excess = details.get("rank"), details.get("excess")
            if type(rank) is not int:
                continue
            slow.pop(rank, None)
            share = amount(excess)
            if details.get("state") == "slow" and share is not None:
                slow[rank] = share
    return found


def _layout(details: Mapping[str, Any], slow: Mapping[int, float]) -> Layout | None:
    sizes = [details.get(name) for name in ("tp", "pp", "dp")]
    if not all(type(size) is int and 0 < size <= MOST_RANKS for size in sizes):
        return None
    tp, pp, dp = (int(size) for size in sizes if size is not None)
    if tp * pp * dp > MOST_RANKS:
        return None
    nodes = _nodes(details.get("nodes"), tp * pp * dp)
    return Layout(tp, pp, dp, count(details.get("samples_seen")) or 0, nodes, slow)


def _nodes(value: Any, world_size: int) -> tuple[tuple[str, int, int], ...]:
    """The nodes of an event; none unless they hold each rank once."""
    if not isinstance(value, list):
        return ()
    found = list[tuple[str, int, int]]()
    next_rank = 0
    for entry in value:
        if not isinstance(entry, list) or len(entry) != 3:
            return ()
        name, first, size = entry
        if not isinstance(name, str) or first != next_rank or type(size) is not int or size < 1:
            return ()
        found.append((name, next_rank, size))
        next_rank += size
    return tuple(found) if next_rank == world_size else ()
