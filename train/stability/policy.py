"""What follows a spike: where the run goes back to, which data it leaves out, and when it lowers the learning rate.

The first time, the data are taken for the cause: those between the onset and the finding are left out. A run that spikes
again soon after has seen other data by then, so the data were not the cause, and the learning rate is lowered instead;
further each time, and from a checkpoint further back where one is kept. GLM-130B's team did the same by hand: it skipped
data, shrank the embedding's gradient and lowered the rate (section 3, and the log of the run).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from configs import derive
from configs.errors import DivergenceError
from configs.interventions import Interventions, Rollback
from configs.schema import Config
from data_pipeline.sampler import drawn_index
from train.plan import TrainingPlan
from train.progress import Progress
from train.stability.records import LEAD_STEPS, Alarm
from train.stability.rollback_words import tried


@dataclass(frozen=True)
class Candidate:
    """A checkpoint that the run could go back to."""

    step: int
    samples_seen: int


def decide(
    alarm: Alarm,
    reached: Progress,
    config: Config,
    known: Interventions,
    candidates: Sequence[Candidate],
) -> Rollback:
    """Decide on a rollback; a pure function.

    Args:
        alarm: what was found.
        reached: position of the run after the step at which it was found.
        config: of the run.
        known: what has changed it so far.
        candidates: checkpoints of its history, in any order.

    Returns:
        The decision, without its generation and time.

    Raises:
        DivergenceError: the bound is reached, or no checkpoint is from before the onset; the message says what was tried.
    """
    before = [each for each in candidates if each.step < alarm.onset_step]
    if not before:
        raise DivergenceError(_nowhere(alarm, candidates))
    newest_first = sorted(before, key=lambda each: each.step, reverse=True)
    plan = TrainingPlan.from_config(config, known)
    onset = samples_before(alarm.onset_step, newest_first[0], plan)
    chain = same_spike(onset, config, known)
    if len(chain) >= config.stability.max_rollbacks:
        raise DivergenceError(_given_up(alarm, chain, config))
    back_to = newest_first[0]
    if len(chain) > 1:
        # The checkpoint of the last time may already have been bad.
        further = [each for each in newest_first if each.step < chain[-1].checkpoint_step]
        back_to = further[0] if further else newest_first[-1]
    is_first = not chain
    stability = config.stability
    length = derive.rollback_samples(config)
    return Rollback(
        generation=0,
        reason=alarm.text,
        onset_step=alarm.onset_step,
        found_step=alarm.step,
        onset_samples=onset,
        found_samples=reached.samples_seen,
        checkpoint_step=back_to.step,
        checkpoint_samples=back_to.samples_seen,
        skip=_left_out(alarm, newest_first[0], reached, config, plan, chain, known),
        learning_rate=stability.rollback_lr
        * (1.0 if is_first else stability.relapse_lr ** len(chain)),
        embedding_shrink=stability.rollback_shrink,
        until_samples=reached.samples_seen + length,
        return_samples=length,
    )


def same_spike(onset_samples: int, config: Config, known: Interventions) -> list[Rollback]:
    """The rollbacks that led up to a spike, in order: each began within the horizon of the one before.

    Args:
        onset_samples: samples seen before the spike.
        config: of the run.
        known: what has changed it so far.
    """
    horizon = derive.rollback_samples(config)
    chain: list[Rollback] = []
    for rollback in reversed(known.rollbacks):
        if not chain and onset_samples + horizon < rollback.checkpoint_samples:
            continue  # its user has set the run back to long before it
        if onset_samples > rollback.found_samples + horizon:
            break
        chain.insert(0, rollback)
        onset_samples = min(onset_samples, rollback.onset_samples)
    return chain


def samples_before(step: int, known: Candidate, plan: TrainingPlan) -> int:
    """Samples seen before a step, counted from a checkpoint before it."""
    seen = known.samples_seen
    for _ in range(step - 1 - known.step):
        seen += plan.step_at(seen).num_samples
    return seen


def _left_out(
    alarm: Alarm,
    before: Candidate,
    reached: Progress,
    config: Config,
    plan: TrainingPlan,
    chain: list[Rollback],
    known: Interventions,
) -> list[tuple[int, int]]:
    """The range of the data stream from the onset to past the finding; none for a spike that comes again at other data.

    A spike right after a range that was left out may still be of the same data, which reach further. Then its first outlier
    comes at once. One that has another cause comes about where it came before: LEAD_STEPS and more after the range, which
    begins so far ahead of the first outlier.
    """
    skipped = known.skipped(config.data.skip_samples)
    start = drawn_index(samples_before(alarm.onset_step, before, plan), skipped)
    batch = plan.step_at(reached.samples_seen).num_samples
    if chain:
        certain = drawn_index(samples_before(alarm.first_bad_step, before, plan), skipped)
        ends = [stop for rollback in chain for _, stop in rollback.skip]
        if not any(0 <= certain - end < LEAD_STEPS * batch for end in ends):
            return []
    return [(start, reached.samples_drawn + config.stability.skip_steps * batch)]


def with_rollback(known: Interventions, rollback: Rollback) -> Interventions:
    """The interventions of a run with one more."""
    return replace(known, rollbacks=[*known.rollbacks, rollback], revision=known.revision + 1)


def _given_up(alarm: Alarm, chain: list[Rollback], config: Config) -> str:
    done = "; ".join(f"{number}. {tried(each)}" for number, each in enumerate(chain, start=1))
    return (
        f"The run spikes again and again: {alarm.text}. Tried without success (stability.max_rollbacks="
        f"{config.stability.max_rollbacks}): {done}. Type the same command with a lower optim.lr or "
        "stability.relapse_lr, with a larger stability.max_rollbacks, or look at the data with "
        "python -m data_pipeline show."
    )


def _nowhere(alarm: Alarm, candidates: Sequence[Candidate]) -> str:
    oldest = min((each.step for each in candidates), default=None)
    have = (
        "the run has no checkpoint yet"
        if oldest is None
        else f"the oldest checkpoint is of step {oldest:,}"
    )
    return (
        f"{alarm.text}; no checkpoint is from before it ({have}). Type the same command with a lower optim.lr, or with "
        "more checkpoints: checkpoint.save_every_samples=N checkpoint.keep_last=K."
    )
