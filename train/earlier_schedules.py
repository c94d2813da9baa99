"""Schedules as history: a resume may change what lies ahead, never what was.

A start that continues with another learning rate, batch or embedding shrink records the schedules that held until then.
Should the run go back to before that position, it trains the same steps again under the same schedules.
"""

from dataclasses import replace

from configs import derive
from configs.interventions import EarlierSchedule, Interventions
from configs.load import diff
from configs.schema import Config, OptimConfig, Schedule

_DATA = ("data.", "objective.")
# Under data., but without effect on what is trained, or without a change of it.
_SAME_DATA = (
    *("data.accept_changed", "data.cache_dir", "data.local_copy", "data.skip_samples"),
    "data.valid_paths",
)


def continued(
    known: Interventions, stored: Config | None, config: Config, position: int, now: float
) -> Interventions:
    """The interventions of a run that continues under a configuration.

    Args:
        known: those so far.
        stored: configuration of the start before; None: it is not known.
        config: of this start.
        position: samples seen where it continues.
        now: time of the start, in seconds since the epoch.
    """
    if stored is None or not position:
        return known
    has_new_rate = _rate(stored.optim) != _rate(config.optim)
    has_new_schedule = has_new_rate or _others(stored) != _others(config)
    kept = [each for each in known.schedules if each.until_samples < position]
    # Of a start that has trained nothing, or of a run that was set back: what held until here is what held before them.
    later = known.schedules[len(kept) :]
    before = later[0] if later else None
    here = before if before is not None and before.until_samples == position else None
    warms_up = has_new_rate or _has_new_data(stored, config)
    warms_up = warms_up or (has_new_schedule and here is not None and here.rewarmup_samples > 0)
    rewarmup = config.optim.rewarmup_samples if warms_up else 0
    if not has_new_schedule and not rewarmup:
        return known
    entry = EarlierSchedule(
        until_samples=position,
        optim=stored.optim if before is None else before.optim,
        embedding_shrink=(
            stored.stability.embedding_shrink if before is None else before.embedding_shrink
        ),
        rewarmup_samples=rewarmup,
        time=now,
    )
    # New schedules hold from here on; new data leave those changes of the schedules that are still ahead.
    ahead = [] if has_new_schedule else [each for each in later if each.until_samples > position]
    return replace(known, schedules=[*kept, entry, *ahead], revision=known.revision + 1)


def _rate(optim: OptimConfig) -> tuple[object, ...]:
    """What the learning rate is a function of (train/plan.py), resolved: a key may change without changing it."""
    rise = (optim.lr, optim.schedule, derive.warmup_samples(optim))
    if optim.schedule is Schedule.constant:
        return rise
    fall = (derive.min_lr(optim), derive.decay_samples(optim))
    return (*rise, *fall, optim.schedule is Schedule.wsd and derive.wsd_decay_samples(optim))


def _others(config: Config) -> tuple[object, ...]:
    """What the other schedules are functions of, resolved."""
    optim = config.optim
    return optim.global_batch_size, derive.batch_ramp(optim), config.stability.embedding_shrink


def _has_new_data(stored: Config, config: Config) -> bool:
    keys = (change.partition(":")[0] for change in diff(stored, config))
    return any(key.startswith(_DATA) and key not in _SAME_DATA for key in keys)
