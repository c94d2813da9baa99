"""What the ranks' checks of each other cost:  python -m benchmarks checks [--json FILE]

Two ranks train the model of the default run, cut over replicas and over tensor-parallel ranks, with checks and without
them in turns within one run. Steps on a shared machine differ by more than the checks cost, so these are measured by
themselves, too, in the same ranks: noting as many waits as the step has, the exchange after a window of steps, and a
comparison of all copies of weights. CPU seconds of all threads of a rank, the larger of the two.
"""

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist

from benchmarks.report import Record, json_file
from benchmarks.stepping import Stepper, opened
from benchmarks.teams import Team
from configs.load import load_config
from train.checksums import WeightChecksums
from train.nodes import hosts_of
from train.own_time import OwnTime
from train.progress import Progress
from train.rank_checks import RankChecks
from train.run_folder import RunFolder
from train.slow_ranks import WINDOW_STEPS
from train.trackers import Trackers
from train.world import World

LAYOUTS = {
    "dp 2": ["optim.micro_batch_size=4"],
    "tp 2": ["parallel.tp=2"],
}
PRECISIONS = ("fp32", "bf16")
ROUNDS = 12
_REPETITIONS = 50


def run() -> None:
    """Print the table."""
    main([])


def main(words: list[str]) -> int:
    """Run the command; returns the exit code."""
    path = json_file(words)
    record = Record("checks")
    print(record.heading())
    print(
        f"{'':12}{'step ms':>8}{'on / off':>9}{'quartiles':>18}{'waits':>7}{'times':>9}{'exchange':>10}{'comparison':>12}"
        f"{'all':>9}"
    )
    figures: dict[str, dict[str, Any]] = {}
    for precision in PRECISIONS:
        for layout, overrides in LAYOUTS.items():
            name = f"{layout} {precision}"
            figures[name] = measured([*overrides, f"precision={precision}"], ROUNDS)
            print(line(name, figures[name]), flush=True)
    if path is not None:
        path.write_text(record.text(figures=figures) + "\n")
    return 0


def measured(words: list[str], rounds: int) -> dict[str, Any]:
    """Train windows with and without checks in turns.

    Args:
        words: of the run.
        rounds: windows of each kind.

    Returns:
        CPU seconds: of a step in each window ("off", "on"), of noting a step's waits ("times"), of an exchange and of a
        comparison; how many waits a step has, and how many steps lie between two comparisons ("every").
    """
    with Team("benchmarks.checks:checked", 2, words) as team:
        seconds: dict[str, list[float]] = {"off": [], "on": []}
        team.ask("off")  # the first window allocates
        for number in range(rounds):
            # Whoever goes second finds warm caches.
            for kind in ("off", "on") if number % 2 else ("on", "off"):
                seconds[kind].append(max(team.ask(kind)))
        direct = {
            what: max(team.ask(what)) for what in ("waits", "times", "exchange", "comparison")
        }
    every = load_config(words, 2).stability.checksum_every_steps
    return {**seconds, **direct, "every": every}


def shares(figures: dict[str, Any]) -> dict[str, float]:
    """Shares of a step that the checks take."""
    step = statistics.median(figures["off"])
    return {
        "times": figures["times"] / step,
        "exchange": figures["exchange"] / WINDOW_STEPS / step,
        "comparison": figures["comparison"] / figures["every"] / step,
    }


def line(name: str, figures: dict[str, Any]) -> str:
    """A line of the table."""
    pairs = [on / off for on, off in zip(figures["on"], figures["off"], strict=True)]
    low, middle, high = statistics.quantiles(pairs, n=4)
    of = shares(figures)
    spread = f"{low:.3f} .. {high:.3f}"
    return (
        f"{name:12}{1000 * statistics.median(figures['off']):8.1f}{middle:9.3f}{spread:>18}{figures['waits']:7}"
        f"{of['times']:9.3%}{of['exchange']:10.3%}{of['comparison']:12.3%}{sum(of.values()):9.3%}"
    )


@contextlib.contextmanager
def checked(world: World, words: list[str]) -> Iterator[Callable[[str], float]]:
    """Answers "off" and "on" with the CPU seconds of a step in a window, "compare" with those of a comparison."""
    with opened(world, words) as (config, session), TemporaryDirectory() as folder:
        stepper = Stepper(config, session)
        run_folder, hosts = RunFolder(Path(folder)), hosts_of(session)
        checks = RankChecks(config, session, stepper.engine, run_folder, Trackers([]), hosts)
        checksums = WeightChecksums(stepper.engine, session)
        optim = config.optim
        accumulated = optim.global_batch_size // (optim.micro_batch_size * session.topology.dp)

        def window(is_checked: bool) -> float:
            session.barrier()
            started = time.process_time()
            for _ in range(WINDOW_STEPS):
                # Step 1 is never due for a comparison.
                with checks.of_step(1) if is_checked else contextlib.nullcontext():
                    stepper.train(accumulated)
                    session.sum([0.0])  # the loop's exchange
                if is_checked:
                    checks.report(Progress())
            return (time.process_time() - started) / WINDOW_STEPS

        def compare() -> float:
            session.barrier()
            started = time.process_time()
            for _ in range(_REPETITIONS):
                checksums.compare()
            return (time.process_time() - started) / _REPETITIONS

        def exchange() -> float:
            seconds = 0.0
            for _ in range(_REPETITIONS):
                for _ in range(WINDOW_STEPS):
                    with checks.of_step(1):
                        pass
                session.barrier()
                started = time.process_time()
                checks.report(Progress())
                seconds += time.process_time() - started
            return seconds / _REPETITIONS

        num_waits = 0

        def waits() -> int:
            nonlocal num_waits
            with counted_waits() as found:
                stepper.train(accumulated)
                session.sum([0.0])
            num_waits = len(found)
            return num_waits

        answers: dict[str, Callable[[], float]] = {
            "off": lambda: window(False),
            "on": lambda: window(True),
            "waits": waits,
            "times": lambda: noting(num_waits),
            "exchange": exchange,
            "comparison": compare,
        }
        yield lambda what: answers[what]()
        checks.close()
        stepper.engine.close()


@contextlib.contextmanager
def counted_waits() -> Iterator[list[None]]:
    """Grows by an entry for each wait."""
    found: list[None] = []
    wait: Any = dist.Work.wait

    def counted(*arguments: Any) -> Any:
        found.append(None)
        return wait(*arguments)

    with mock.patch.object(dist.Work, "wait", counted):
        yield found


def noting(num_waits: int) -> float:
    """CPU seconds of noting so many waits in a step, beside those of the waits, which end at once here."""

    def waited() -> float:
        started = time.thread_time()
        for _ in range(num_waits):
            dist.Work.wait(work)
        return time.thread_time() - started

    work: Any = None
    own_time = OwnTime(torch.device("cpu"))
    seconds: list[float] = []
    with mock.patch.object(dist.Work, "wait", lambda _: None):
        for _ in range(_REPETITIONS):
            started = time.thread_time()
            with own_time.measured():
                waited()
            seconds.append(time.thread_time() - started - waited())
    own_time.close()
    return statistics.median(seconds)
