"""The observers that measure time, in the order in which they must be called."""

from configs.schema import Config
from train.observe.observers import Observer
from train.observe.throughput import Throughput
from train.observe.time_split import TimeSplit
from train.session import Session


def timing_observers(config: Config, session: Session) -> list[Observer]:
    """The observers of a run's time; they come after all others, whose own time they measure.

    Args:
        config: of the run.
        session: the open process groups.
    """
    found: list[Observer] = []
    if config.log.details_every_steps is not None:
        found += [Throughput(config, session), TimeSplit(config, session)]
    return found
