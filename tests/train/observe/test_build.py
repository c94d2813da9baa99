"""What is switched off is not built: it can cost nothing."""

from types import SimpleNamespace
from typing import Any

from tests.helpers.rank_runs import config_of
from train.observe.build import build_observers
from train.plan import TrainingPlan
from train.trackers import Tracker


def test_nothing_is_observed_unless_it_is_asked_for() -> None:
    config = config_of(("optim.total_samples=40",), 1)
    prepared: Any = SimpleNamespace(config=config, folder=None)
    nothing: Any = SimpleNamespace(engine=None)
    plan = TrainingPlan.from_config(config)
    built = build_observers(prepared, nothing, nothing, plan, [], Tracker(), nothing)
    assert built.is_empty
