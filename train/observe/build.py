"""The observers of a run, as its configuration asks for them."""

from collections.abc import Callable

from train.observe.details import details_observers
from train.observe.filled_blanks import FilledBlanks
from train.observe.observers import Observer, Observers
from train.observe.timing import timing_observers
from train.plan import TrainingPlan
from train.prepared import Prepared
from train.resume import Resumed
from train.session import Session
from train.trackers import Tracker


def build_observers(
    prepared: Prepared,
    session: Session,
    resumed: Resumed,
    plan: TrainingPlan,
    skip_samples: list[list[int]],
    trackers: Tracker,
    watch: Callable[[str], None],
) -> Observers:
    """Build those that `log.*` switches on: what is off is not built, and costs nothing.

    Args:
        prepared: the start.
        session: the open process groups.
        resumed: the run, from which they continue.
        plan: of the run.
        skip_samples: ranges of the data stream that are left out.
        trackers: get what is measured.
        watch: tells the watchdog what takes long, in a few words.
    """
    engine = resumed.engine
    observers = list[Observer]()
    observers += details_observers(prepared, session, resumed, skip_samples)
    if prepared.config.log.samples_every_samples is not None:
        observers.append(FilledBlanks(prepared, session, engine, plan, trackers, watch))
    log, folder = trackers.log, prepared.folder
    observers += timing_observers(prepared.config, session, engine, folder, log, watch)
    return Observers(observers, trackers)
