"""The observers that measure time, in the order in which they must be called."""

from collections.abc import Callable

from configs.run_paths import RunPaths
from configs.schema import Config
from train.engine import Engine
from train.observe.observers import Observer
from train.observe.throughput import Throughput
from train.observe.time_split import TimeSplit
from train.session import Session


def timing_observers(
    config: Config,
    session: Session,
    engine: Engine,
    paths: RunPaths,
    log: Callable[[str], None],
    watch: Callable[[str], None],
) -> list[Observer]:
    """The observers of a run's time; they come after all others, whose own time they measure.

    Args:
        config: of the run.
        session: the open process groups.
        engine: of this rank.
        paths: of the run folder.
        log: takes what has to be said on rank 0.
        watch: tells the watchdog what takes long.
    """
    found: list[Observer] = []
    if config.log.profile_steps is not None:
        # Late: it imports PyTorch's profiler.
        from train.observe.profiler import Profiler

        found.append(Profiler(config, session, engine, paths, log, watch))
    every = config.log.details_every_steps
    if every is not None:
        found += [Throughput(every, config, session), TimeSplit(every, config, session)]
    return found
