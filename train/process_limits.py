"""What limits the process of a start: the end of its time, and how long it may be silent."""

from collections.abc import Callable

from configs import derive
from train.prepared import Prepared
from train.time_limit import deadline_of
from train.watchdog import Watchdog
from train.world import job_end, process_start


def deadline(prepared: Prepared) -> float | None:
    """When this process is ended, in seconds since the epoch; rank 0 decides for all."""
    if not prepared.world.is_main:
        return None
    usual = derive.time_limit_seconds(prepared.config.cluster.time)
    return deadline_of(prepared.config, process_start(), job_end(usual))


def watchdog_of(prepared: Prepared, alert: Callable[[str, str], None]) -> Watchdog:
    """The watchdog of this rank.

    Args:
        prepared: the start.
        alert: takes a title and a text if it finds a hang, on rank 0.
    """
    folder, world = prepared.folder, prepared.world

    def report(reason: str) -> None:
        if world.is_main:
            alert("Hang", reason)
            folder.fail(reason, "hang")

    return Watchdog(folder.stacks, world.rank, world.size == 1, report)
