"""Schedules as history: a resume may change what lies ahead, never what was.

A start that continues with another learning rate, batch or embedding shrink records the schedules that held until then.
Should the run go back to before that position, it trains the same steps again under the same schedules.
"""

from dataclasses import replace

from configs.interventions import EarlierSchedule, Interventions
from configs.load import diff
from configs.schema import Config

# Keys of the configuration that a plan is a function of (train/plan.py), and all that data are.
_OPTIM = (
    *("lr", "min_lr", "schedule", "warmup_samples", "decay_samples", "wsd_decay_samples"),
    *("total_samples", "schedule_samples", "global_batch_size", "batch_ramp"),
)
_SCHEDULES = (*(f"optim.{key}" for key in _OPTIM), "stability.embedding_shrink")
_DATA = ("data.", "objective.")
# Under data., but without effect on what is trained, or without a change of it.
_SAME_DATA = ("data.accept_changed", "data.cache_dir", "data.local_copy", "data.skip_samples")


def continued(
    known: Interventions, stored: Config | None, config: Config, position: int
) -> Interventions:
    """The interventions of a run that continues under a configuration.

    Args:
        known: those so far.
        stored: configuration of the start before; None: it is not known.
        config: of this start.
        position: samples seen where it continues.
    """
    if stored is None or not position:
        return known
    changes = [change.partition(":")[0] for change in diff(stored, config)]
    has_new_schedule = any(_is_below(key, _SCHEDULES) for key in changes)
    has_new_data = any(key.startswith(_DATA) and not _is_below(key, _SAME_DATA) for key in changes)
    rewarmup = config.optim.rewarmup_samples if has_new_schedule or has_new_data else 0
    if not has_new_schedule and not rewarmup:
        return known
    kept = [each for each in known.schedules if each.until_samples <= position]
    # A run that was set back to before earlier changes: what held at this position is what held before them.
    later = known.schedules[len(kept) :]
    before = later[0] if later else None
    entry = EarlierSchedule(
        until_samples=position,
        optim=stored.optim if before is None else before.optim,
        embedding_shrink=(
            stored.stability.embedding_shrink if before is None else before.embedding_shrink
        ),
        rewarmup_samples=rewarmup,
    )
    return replace(known, schedules=[*kept, entry])


def _is_below(key: str, names: tuple[str, ...]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)
