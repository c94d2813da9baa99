"""The observers of a run, as its configuration asks for them."""

from collections.abc import Callable

from train.engine import Engine
from train.observe.filled_blanks import FilledBlanks
from train.observe.observers import Observer, Observers
from train.plan import TrainingPlan
from train.prepared import Prepared
from train.session import Session
from train.trackers import Tracker


def build_observers(
    prepared: Prepared,
    session: Session,
    engine: Engine,
    plan: TrainingPlan,
    trackers: Tracker,
    watch: Callable[[str], None],
) -> Observers:
    """Build those that `log.*` switches on: what is off is not built, and costs nothing.

    Args:
        prepared: the start.
        session: the open process groups.
        engine: the model in training.
        plan: of the run.
        trackers: get what is measured.
        watch: tells the watchdog what takes long, in a few words.
    """
    observers = list[Observer]()
    if prepared.config.log.samples_every_samples is not None:
        observers.append(FilledBlanks(prepared, session, engine, plan, trackers, watch))
    return Observers(observers, trackers)
