"""What follows a spike, decided on hand-written histories of runs."""

from dataclasses import replace
from typing import Any

import pytest

from configs.errors import DivergenceError
from configs.interventions import Interventions, Rollback
from configs.load import load_config
from configs.schema import BatchRampConfig, Config, Schedule
from data_pipeline.sampler import drawn_index
from train.plan import TrainingPlan
from train.progress import Progress
from train.stability.policy import Candidate, decide, same_spike, samples_before, with_rollback
from train.stability.records import Alarm, Kind
from train.stability.rollback_words import described

BATCH = 8
HORIZON = 400
BASE = load_config(
    [
        *(
            "optim.micro_batch_size=2",
            f"optim.global_batch_size={BATCH}",
            "optim.total_samples=9600",
        ),
        *("stability.on_spike=rollback", "stability.spike_steps=[3,5]", "stability.skip_steps=4"),
        *(f"stability.rollback_samples={HORIZON}", "stability.max_rollbacks=4"),
    ]
)
NOTHING = Interventions()
EVERY_TENTH = [Candidate(step, BATCH * step) for step in range(10, 210, 10)]


def config_of(**stability: Any) -> Config:
    return replace(BASE, stability=replace(BASE.stability, **stability))


def alarm(onset_step: int, step: int, kind: Kind = Kind.loss) -> Alarm:
    return Alarm(kind, "loss", step, onset_step, 5.0, 3.0, 20.0)


def reached(step: int, known: Interventions = NOTHING, config: Config = BASE) -> Progress:
    """Position after a step of equal batches."""
    seen = BATCH * step
    return Progress(
        step, seen, 128 * seen, drawn_index(seen, known.skipped(config.data.skip_samples))
    )


def decided(
    onset_step: int, step: int, known: Interventions = NOTHING, config: Config = BASE
) -> Rollback:
    """The decision on a spike that is found at `step`, with a checkpoint at every tenth step before it."""
    candidates = [each for each in EVERY_TENTH if each.step <= step]
    return decide(alarm(onset_step, step), reached(step, known, config), config, known, candidates)


def after(*spikes: tuple[int, int], config: Config = BASE) -> Interventions:
    """The interventions of a run that had such spikes, one after the other."""
    known = NOTHING
    for onset_step, step in spikes:
        known = with_rollback(known, decided(onset_step, step, known, config))
    return known


def test_the_first_spike_leaves_out_its_data_from_the_newest_checkpoint_before_it() -> None:
    assert decided(23, 35) == Rollback(
        generation=0,
        reason="step 35: loss 5, usually 3, 20 MADs above it, since step 23 or later",
        onset_step=23,
        found_step=35,
        onset_samples=22 * BATCH,
        found_samples=35 * BATCH,
        checkpoint_step=20,
        checkpoint_samples=20 * BATCH,
        skip=[(22 * BATCH, (35 + 4) * BATCH)],
        learning_rate=1.0,
        embedding_shrink=1.0,
        until_samples=35 * BATCH + HORIZON,
        return_samples=HORIZON,
    )


def test_a_checkpoint_at_the_onset_is_not_before_it() -> None:
    assert [decided(onset, 35).checkpoint_step for onset in (20, 21, 31)] == [10, 20, 30]


def test_the_order_of_the_checkpoints_does_not_matter() -> None:
    shuffled = [*EVERY_TENTH[1:3], EVERY_TENTH[0]]
    found = decide(alarm(23, 35), reached(35), BASE, NOTHING, shuffled)
    assert found == decided(23, 35)


def test_a_first_rollback_may_lower_the_rate_and_shrink_the_embedding() -> None:
    found = decided(23, 35, config=config_of(rollback_lr=0.7, rollback_shrink=0.2))
    assert (found.learning_rate, found.embedding_shrink) == (0.7, 0.2)
    assert found.skip


def test_a_relapse_at_other_data_lowers_the_rate_and_leaves_the_data_in() -> None:
    known = after((23, 35))
    found = decided(40, 45, known)
    assert found.skip == []
    assert found.learning_rate == 0.5
    assert found.checkpoint_step == 30
    assert found.onset_samples == 39 * BATCH


def test_a_relapse_right_behind_the_left_out_data_leaves_out_more_and_lowers_the_rate() -> None:
    """The range [176, 312) lies before what step 23 is trained on now; the first outlier is 8 steps after the onset."""
    known = after((23, 35))
    for onset_step in (15, 18, 22):
        found = decided(onset_step, 32, known)
        start = (onset_step - 1) * BATCH
        assert found.skip == [(start, 32 * BATCH + 312 - 176 + 4 * BATCH)]
        assert found.learning_rate == 0.5
    # Here the first outlier is step 31, as many steps after the range as the first time after the range's beginning.
    assert decided(23, 32, known).skip == []


def test_a_spike_whose_onset_is_taken_to_be_before_the_left_out_data_is_found_behind_them() -> None:
    """The onset is the first step that may be part of it: some before the first outlier."""
    known = after((23, 35))
    found = decided(17, 27, known)
    assert found.skip == [(16 * BATCH, 27 * BATCH + 312 - 176 + 4 * BATCH)]
    assert found.learning_rate == 0.5
    assert with_rollback(known, found).skipped([]) == [[128, 176], [176, 312], [312, 384]]
    # Found before the run came to the range again: these are other data.
    assert decided(14, 21, known).skip == []


def test_a_spike_after_the_horizon_is_another_one() -> None:
    known = after((23, 35))
    last = (35 * BATCH + HORIZON) // BATCH
    assert decided(last + 1, last + 6, known).learning_rate == 0.5
    later = decided(last + 2, last + 7, known)
    assert later.learning_rate == 1.0 and len(later.skip) == 1


def test_a_chain_links_each_rollback_to_the_one_before() -> None:
    known = after((23, 35), (70, 80), (120, 130))
    assert same_spike(160 * BATCH, BASE, known) == known.rollbacks
    assert same_spike(180 * BATCH + 1, BASE, known) == []
    gap = after((23, 35), (100, 110))
    assert [each.skip != [] for each in gap.rollbacks] == [True, True]
    assert same_spike(120 * BATCH, BASE, gap) == gap.rollbacks[1:]


def test_a_rollback_that_lies_ahead_of_a_run_that_was_set_back_has_not_led_up_to_it() -> None:
    known = after((23, 35), (150, 160))
    far_ahead = after((150, 160))
    assert same_spike(30 * BATCH, BASE, far_ahead) == []
    assert decided(31, 36, far_ahead).skip != []
    assert same_spike(40 * BATCH, BASE, known) == known.rollbacks[:1]


def test_the_rate_falls_further_each_time_from_a_checkpoint_further_back() -> None:
    known = NOTHING
    for expected in ((20, 1.0), (20, 0.5), (10, 0.25), (10, 0.125)):
        found = decided(25, 33, known)
        assert (found.checkpoint_step, found.learning_rate) == expected
        known = with_rollback(known, found)


def test_where_no_checkpoint_is_further_back_the_oldest_is_taken() -> None:
    known = after((15, 20), (15, 20))
    found = decide(alarm(15, 20), reached(20, known), BASE, known, EVERY_TENTH[:2])
    assert found.checkpoint_step == 10


def test_the_bound_ends_the_run_with_what_was_tried() -> None:
    known = after((23, 35), (40, 45), config=config_of(rollback_shrink=0.5))
    with pytest.raises(DivergenceError) as caught:
        decided(40, 45, known, config_of(max_rollbacks=2))
    assert str(caught.value) == (
        "The run spikes again and again: step 45: loss 5, usually 3, 20 MADs above it, since step 40 or later. Tried "
        "without success (stability.max_rollbacks=2): 1. back to step 20, samples [176, 312) left out, embedding shrink "
        "x 0.5; 2. back to step 30, learning rate x 0.5, embedding shrink x 0.5. Type the same command with a lower "
        "optim.lr or stability.relapse_lr, with a larger stability.max_rollbacks, or look at the data with "
        "python -m data_pipeline show."
    )
    assert decided(40, 45, known, config_of(max_rollbacks=3)).checkpoint_step == 20


def test_other_spikes_do_not_count_for_the_bound() -> None:
    known = after((23, 35), (100, 110), config=config_of(max_rollbacks=1))
    with pytest.raises(DivergenceError):
        decided(120, 130, known, config_of(max_rollbacks=1))
    assert decided(180, 190, known, config_of(max_rollbacks=1)).skip


@pytest.mark.parametrize(
    "candidates, have",
    [
        ([], "the run has no checkpoint yet"),
        (EVERY_TENTH[2:], "the oldest checkpoint is of step 30"),
    ],
)
def test_without_a_checkpoint_from_before_the_onset_the_run_ends(
    candidates: list[Candidate], have: str
) -> None:
    with pytest.raises(DivergenceError) as caught:
        decide(alarm(25, 33), reached(33), BASE, NOTHING, candidates)
    said = str(caught.value)
    assert f"no checkpoint is from before it ({have})" in said
    assert "checkpoint.save_every_samples=N" in said and "step 33: loss 5" in said


def test_positions_with_a_batch_ramp_and_configured_ranges() -> None:
    ramp = BatchRampConfig(start=2, increment=2, samples=30)
    config = replace(
        BASE,
        optim=replace(BASE.optim, batch_ramp=ramp),
        data=replace(BASE.data, skip_samples=[[10, 20], [40, 50]]),
    )
    plan = TrainingPlan.from_config(config)
    sizes, seen = [], 0
    for _ in range(12):
        sizes.append(plan.step_at(seen).num_samples)
        seen += sizes[-1]
    assert sizes == [2, 2, 2, 2, 2, 4, 4, 4, 6, 6, 8, 8]
    candidate = Candidate(3, 6)
    assert [samples_before(step, candidate, plan) for step in (4, 6, 7, 12)] == [6, 10, 14, 42]
    end = Progress(12, 50, 0, 70)
    found = decide(alarm(7, 12), end, config, NOTHING, [candidate])
    # Step 7 begins after 14 samples: number 24 of the stream, whose samples 10 to 20 are left out.
    assert found.onset_samples == 14 and found.skip == [(24, 70 + 4 * BATCH)]
    assert found.checkpoint_samples == 6 and found.until_samples == 50 + HORIZON
    skipped = with_rollback(NOTHING, found).skipped(config.data.skip_samples)
    assert skipped == [[10, 20], [24, 40], [40, 50], [50, 102]]
    assert drawn_index(13, skipped) == 23 and drawn_index(14, skipped) == 102


def test_the_horizon_follows_from_the_length_of_the_run() -> None:
    long = replace(BASE, optim=replace(BASE.optim, total_samples=10**6, schedule=Schedule.constant))
    long.stability = replace(long.stability, rollback_samples=None)
    assert decided(23, 35, config=long).return_samples == 20_000
    short = config_of(rollback_samples=None)
    assert decided(23, 35, config=short).return_samples == 256 * BATCH


def test_a_decision_in_words() -> None:
    first = decided(23, 35)
    assert described(first, None, 120) == (
        "Going back to the checkpoint of step 20 (120 samples are trained again), leaving out samples [176, 312) of the "
        "data stream. Reason: step 35: loss 5, usually 3, 20 MADs above it, since step 23 or later."
    )
    relapse = decided(40, 45, after((23, 35)), config_of(rollback_shrink=0.3))
    assert described(relapse, 30, 120) == (
        "Going back to the checkpoint of step 30 (120 samples are trained again), with the same data, which are not the "
        "cause: it has come again at others, learning rate x 0.5 until sample 760, embedding shrink x 0.3 until sample "
        "760. Reason: step 45: loss 5, usually 3, 20 MADs above it, since step 40 or later."
    )


def test_going_back_past_the_healthy_checkpoint_is_said() -> None:
    said = described(decided(23, 35), 30, 120)
    assert "past that of step 30, which was taken for healthy" in said
    assert "past that" not in described(decided(23, 35), 20, 120)
