"""A spike after a rollback: of the same data, which reach further than what was left out, or of another cause."""

from configs.interventions import Interventions
from configs.load import load_config
from train.progress import Progress
from train.stability.policy import Candidate, decide, with_rollback
from train.stability.records import LEAD_STEPS, Alarm, Kind

BATCH, SKIP = 8, 24
CONFIG = load_config(
    [
        *(f"optim.global_batch_size={BATCH}", f"optim.total_samples={1000 * BATCH}"),
        f"stability.skip_steps={SKIP}",
    ]
)
CHECKPOINTS = [Candidate(step, step * BATCH) for step in range(0, 200, 10)]


def spike(first_outlier: int, found: int) -> Alarm:
    onset = first_outlier - LEAD_STEPS
    return Alarm(Kind.loss, "loss", found, onset_step=onset, value=5.0, usual=1.0, score=20.0)


def after(step: int, known: Interventions) -> Progress:
    """The run's position after a step."""
    left_out = sum(b - a for rollback in known.rollbacks for a, b in rollback.skip)
    return Progress(step, step * BATCH, 0, step * BATCH + left_out, 0)


def decided(known: Interventions, first_outlier: int, found: int) -> Interventions:
    alarm = spike(first_outlier, found)
    return with_rollback(
        known, decide(alarm, after(found, known), CONFIG, known, CHECKPOINTS[: found // 10])
    )


def test_data_that_reach_further_are_left_out_further() -> None:
    known = decided(Interventions(), first_outlier=101, found=105)
    # From the 92 steps before the onset to 24 batches after the finding.
    assert known.rollbacks[0].skip == [(92 * BATCH, (105 + SKIP) * BATCH)]
    # The data behind are as bad: step 93 is the first one after what was left out.
    known = decided(known, first_outlier=93, found=97)
    (start, stop) = known.rollbacks[1].skip[0]
    assert stop == (97 + 37 + SKIP) * BATCH
    assert start == 84 * BATCH
    assert known.skipped([]) == [
        [84 * BATCH, 92 * BATCH],
        [92 * BATCH, 129 * BATCH],
        [129 * BATCH, stop],
    ]


def test_a_spike_that_comes_where_it_came_before_leaves_nothing_out() -> None:
    first = decided(Interventions(), first_outlier=101, found=105)
    for later in (0, 4, 20):
        known = decided(first, first_outlier=101 + later, found=105 + later)
        assert known.rollbacks[1].skip == []
        assert known.rollbacks[1].learning_rate == 0.5


def test_a_drift_has_no_steps_that_led_up_to_it() -> None:
    drift = Alarm(Kind.drift, "loss", 90, onset_step=40, value=2.0, usual=1.0)
    assert drift.first_bad_step == 40
    assert spike(41, 45).first_bad_step == 41
