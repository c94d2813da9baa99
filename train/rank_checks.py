"""What the ranks find out about each other while they train: copies of weights that differ, and ranks that are slow.

Both are said in the log, in events.jsonl and, where wandb is on, as its alerts, with the hosts of the ranks.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence

from configs.run_status import SLOW_RANK
from configs.schema import Config
from train.checksums import Difference, WeightChecksums
from train.engine import Engine
from train.nodes import Hosts
from train.own_time import OwnSeconds, OwnTime
from train.progress import Progress
from train.run_folder import RunFolder
from train.session import Session
from train.slow_ranks import WINDOW_STEPS, SlowRanks, Verdict, window_of
from train.trackers import Trackers

# Parameters that an event lists: what has spread through a whole model is no news.
_LISTED = 20


class RankChecks:
    """Watches the steps of a run; one rank alone has nothing to compare.

    Every rank makes one of these at the same time, and calls its methods at the same steps.

    Args:
        config: of the run.
        session: the open process groups.
        engine: of this rank.
        folder: rank 0 writes its events.
        trackers: of this rank.
        hosts: where the ranks are.
    """

    def __init__(
        self,
        config: Config,
        session: Session,
        engine: Engine,
        folder: RunFolder,
        trackers: Trackers,
        hosts: Hosts,
    ) -> None:
        self._session, self._folder, self._trackers = session, folder, trackers
        self._differences: list[Difference] = []
        self._steps: list[OwnSeconds] = []
        self._step = 0
        self._own_time: OwnTime | None = None
        self._remove_hook: Callable[[], None] = _do_nothing
        if session.topology.world_size == 1:
            return
        self._hosts = hosts.names
        self._every = config.stability.checksum_every_steps
        if self._every is not None:
            self._checksums = WeightChecksums(engine, session)
            self._remove_hook = engine.add_hook(lambda _: self._compare())
        if hosts.untimed:
            trackers.log(
                f"Slow ranks are not looked for: on {hosts.untimed[0]} /proc has no schedstat, which the times of ranks on CPU need."
            )
            return
        self._own_time = OwnTime(session.device)
        self._slow_ranks = SlowRanks(session.topology.stages)

    @contextlib.contextmanager
    def of_step(self, number: int) -> Iterator[None]:
        """Check a step while it is trained.

        Args:
            number: of the step in the run, from 1.
        """
        self._step = number
        if self._own_time is None:
            yield
            return
        with self._own_time.measured():
            yield
        self._steps.append(self._own_time.last)

    def report(self, progress: Progress) -> str | None:
        """Say what was found in the step that `progress` ends with; collective every few steps.

        Returns:
            What was said of copies that differ; None: none do. The run may go on, which is for the caller to decide.
        """
        if len(self._steps) == WINDOW_STEPS:
            window = self._exchange()
            self._steps.clear()
            if self._session.topology.rank == 0:
                for verdict in self._slow_ranks.observe(window):
                    self._report_slow(verdict, progress)
        found, self._differences = self._differences, []
        return self._report_differences(found, progress) if found else None

    def close(self) -> None:
        """Stop watching."""
        self._remove_hook()
        self._remove_hook = _do_nothing
        if self._own_time is not None:
            self._own_time.close()

    def _compare(self) -> None:
        """Just before the update, which in ZeRO-1 writes the weights anew."""
        if self._every is not None and self._step % self._every == 0:
            self._differences = self._checksums.compare()

    def _exchange(self) -> list[OwnSeconds]:
        """The windows of all ranks."""
        size = len(OwnSeconds._fields)
        # A rank alone writes its places, so their sums are what it wrote.
        values = [0.0] * (size * self._session.topology.world_size)
        first = size * self._session.topology.rank
        values[first : first + size] = window_of(self._steps)
        values = self._session.sum(values)
        return [OwnSeconds(*values[at : at + size]) for at in range(0, len(values), size)]

    def _report_slow(self, verdict: Verdict, progress: Progress) -> None:
        host = self._hosts[verdict.rank]
        self._folder.event(
            SLOW_RANK,
            rank=verdict.rank,
            host=host,
            state="slow" if verdict.is_slow else "over",
            step=progress.step,
            samples_seen=progress.samples_seen,
            excess=round(verdict.excess, 3),
        )
        self._trackers.alert("Slow rank", slow_words(verdict, host))

    def _report_differences(self, found: Sequence[Difference], progress: Progress) -> str:
        text = difference_words(found, self._hosts, progress.step)
        if self._session.topology.rank == 0:
            listed = [
                {
                    "parameter": each.parameter,
                    "ranks": list(each.ranks),
                    "hosts": [self._hosts[rank] for rank in each.ranks],
                    "holders": len(each.holders),
                }
                for each in found[:_LISTED]
            ]
            self._folder.event(
                "weights_differ",
                step=progress.step,
                samples_seen=progress.samples_seen,
                parameters=len(found),
                differences=listed,
            )
            self._trackers.alert("Copies of weights differ", text)
        return text


def _do_nothing() -> None:
    pass


def slow_words(verdict: Verdict, host: str) -> str:
    """Say that a rank is slow, or no longer."""
    who = f"Rank {verdict.rank} on {host}"
    what = "than before" if verdict.is_alone else "than the other ranks of its pipeline stage"
    if not verdict.is_slow:
        return f"{who} is no longer slower {what}."
    return (
        f"{who} is slow: without its waits for others it takes {100 * verdict.excess:.0f} % longer {what}, "
        "and all ranks wait for it. python -m launch preflight measures its node."
    )


def difference_words(found: Sequence[Difference], hosts: Sequence[str], step: int) -> str:
    """Say which copies differ.

    Args:
        found: at least one.
        hosts: of all ranks.
        step: in which they were compared.
    """
    first = found[0]
    named = ", ".join(f"rank {rank} on {hosts[rank]}" for rank in first.ranks)
    others = f" So are those of {len(found) - 1:,} other parameters." if len(found) > 1 else ""
    which = (
        f"wrong on {named}, of {len(first.holders)} ranks that hold it"
        if first.is_known
        else f"not the same on {named}, and nobody can say which is right"
    )
    return (
        f"Silent error: in step {step:,} the bits of {first.parameter} are {which}.{others} A device, its memory or the network "
        "has changed them. python -m launch preflight checks the nodes; checkpoints from before it are not affected."
    )
