"""How a changed configuration changes the schedules of a run that continues, reported before it happens."""

import copy

from configs import derive
from configs.schema import Config, Schedule
from train.plan import StepPlan, TrainingPlan


def schedule_changes(stored: Config, config: Config, samples_seen: int) -> list[str]:
    """Describe how learning rate, batch size and embedding shrink differ from those that the run had.

    Args:
        stored: the configuration that the run was trained with.
        config: the configuration that it continues with.
        samples_seen: position where it continues; nothing changes for a run that has not begun.

    Returns:
        A sentence for each schedule that jumps or ends elsewhere, and how to keep them; none if all stay as they were.
    """
    if not samples_seen:
        return []
    before, after = _step(stored, samples_seen), _step(config, samples_seen)
    at = f"at sample {samples_seen:,}"
    found: list[str] = []
    old, new = stored.optim, config.optim
    if before.learning_rate != after.learning_rate:
        found.append(
            f"learning rate {at}: {before.learning_rate:.2e} -> {after.learning_rate:.2e}{_course(config, samples_seen)}"
        )
    elif _end(stored) != _end(config) and _end(config) > samples_seen:
        found.append(
            f"learning rate {at} stays {after.learning_rate:.2e}{_course(config, samples_seen)}"
        )
    if before.num_samples != after.num_samples:
        found.append(f"batch size {at}: {before.num_samples:,} -> {after.num_samples:,} samples")
    if before.embedding_shrink != after.embedding_shrink:
        found.append(
            f"embedding shrink {at}: {before.embedding_shrink:g} -> {after.embedding_shrink:g}"
        )
    kept = derive.schedule_samples(old)
    if found and derive.schedule_samples(new) != kept:
        same = copy.deepcopy(config)
        same.optim.schedule_samples = kept
        if _values(_step(same, samples_seen)) == _values(before):
            found.append(f"to keep the schedules as they were: optim.schedule_samples={kept}")
    return found


def _course(config: Config, samples_seen: int) -> str:
    """What the learning rate does from a position on."""
    optim = config.optim
    warmup = derive.warmup_samples(optim)
    parts = [f"warm-up ends at sample {warmup:,}"] if samples_seen < warmup else []
    if optim.schedule is not Schedule.constant and samples_seen < derive.decay_samples(optim):
        end = derive.decay_samples(optim)
        parts.append(f"it reaches {derive.min_lr(optim):.2e} at sample {end:,}")
    return f" ({', '.join(parts)})" if parts else ""


def _end(config: Config) -> int:
    return 0 if config.optim.schedule is Schedule.constant else derive.decay_samples(config.optim)


def _step(config: Config, samples_seen: int) -> StepPlan:
    return TrainingPlan.from_config(config).step_at(samples_seen)


def _values(step: StepPlan) -> tuple[float, int, float]:
    return step.learning_rate, step.num_samples, step.embedding_shrink
