"""A resume changes what lies ahead and never what was: schedules in pieces, and the warm-up after a change."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.interventions import EarlierSchedule, Interventions, Rollback
from configs.load import load_config
from configs.schema import BatchRampConfig, Config, Schedule
from train.earlier_schedules import continued
from train.plan import TrainingPlan

FLAT: dict[str, Any] = {
    **{"lr": 1e-3, "schedule": Schedule.constant},
    **{"warmup_samples": 0, "total_samples": 960},
}
BASE = load_config(["optim.micro_batch_size=2", "optim.global_batch_size=8"])
NOTHING = Interventions()


def config_of(shrink: float = 0.1, **optim: Any) -> Config:
    return replace(
        BASE,
        optim=replace(BASE.optim, **{**FLAT, **optim}),
        stability=replace(BASE.stability, embedding_shrink=[[0.0, shrink]]),
    )


def with_data(config: Config, **data: Any) -> Config:
    return replace(config, data=replace(config.data, **data))


def rates(config: Config, known: Interventions, *places: int) -> list[float]:
    plan = TrainingPlan.from_config(config, known)
    return [plan.step_at(place).learning_rate for place in places]


def positions(known: Interventions) -> list[tuple[int, float, int]]:
    return [(each.until_samples, each.optim.lr, each.rewarmup_samples) for each in known.schedules]


A, B, C = (config_of(lr=rate) for rate in (1.0, 0.5, 0.25))


def test_schedules_hold_in_pieces() -> None:
    first = EarlierSchedule(64, config_of(lr=1.0, global_batch_size=4).optim, [[0.0, 0.1]])
    ramp = BatchRampConfig(start=2, increment=2, samples=32)
    second = EarlierSchedule(
        96, config_of(lr=0.5, batch_ramp=ramp).optim, [[0.0, 0.2], [128.0, 1.0]]
    )
    plan = TrainingPlan.from_config(config_of(shrink=1.0, lr=0.25, global_batch_size=16), Interventions([], [first, second]))  # fmt: skip
    found = [plan.step_at(seen) for seen in (0, 63, 64, 95, 96, 800)]
    assert [step.learning_rate for step in found] == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    # The ramp of the second was over when it began to hold.
    assert [step.num_samples for step in found] == [4, 4, 8, 8, 16, 16]
    assert [step.embedding_shrink for step in found] == pytest.approx(
        [0.1, 0.1, 0.6, 0.2 + 0.8 * 95 / 128, 1.0, 1.0]
    )


def test_the_decay_is_a_function_of_the_samples_in_each_piece() -> None:
    cosine = {"schedule": Schedule.cosine, "min_lr": 0.0, "total_samples": 100}
    before, after = config_of(lr=1.0, **cosine), config_of(lr=0.1, **cosine)
    known = continued(NOTHING, before, after, 50, 1.0)
    found = rates(after, known, 0, 25, 49, 50, 75)
    assert found[:2] == rates(before, NOTHING, 0, 25)
    assert found == pytest.approx([1.0, 0.853553, 0.515705, 0.05, 0.0146447], rel=1e-5)


def test_the_rate_warms_up_from_0_after_a_change() -> None:
    known = Interventions([], [EarlierSchedule(64, A.optim, [[0.0, 0.1]], rewarmup_samples=40)])
    assert rates(B, known, 0, 63, 64, 74, 84, 103, 104, 200) == pytest.approx(
        [1.0, 1.0, 0.0, 0.125, 0.25, 0.5 * 39 / 40, 0.5, 0.5]
    )


def test_a_later_change_ends_the_warm_up_of_the_one_before() -> None:
    first = EarlierSchedule(64, A.optim, [[0.0, 0.1]], rewarmup_samples=40)
    second = EarlierSchedule(84, B.optim, [[0.0, 0.1]])
    known = Interventions([], [first, second])
    assert rates(C, known, 74, 83, 84, 94) == pytest.approx([0.125, 0.5 * 19 / 40, 0.25, 0.25])


def test_a_warm_up_and_a_rollback_lower_the_rate_together() -> None:
    rollback = Rollback(
        *(1, "a spike", 0, 0, 0, 0, 0), checkpoint_samples=64, learning_rate=0.5, until_samples=200
    )
    change = EarlierSchedule(64, A.optim, [[0.0, 0.1]], rewarmup_samples=40)
    assert rates(B, Interventions([rollback], [change]), 63, 84, 150) == [1.0, 0.125, 0.25]


def test_a_change_is_recorded_at_its_position() -> None:
    known = continued(NOTHING, A, B, 64, 12.5)
    assert known.schedules == [EarlierSchedule(64, A.optim, [[0.0, 0.1]], 0, 12.5)]
    assert rates(B, known, 0, 63, 64) == [1.0, 1.0, 0.5]


def test_a_second_change_keeps_the_first() -> None:
    known = continued(continued(NOTHING, A, B, 64, 1.0), B, C, 96, 2.0)
    assert positions(known) == [(64, 1.0, 0), (96, 0.5, 0)]
    assert rates(C, known, 0, 64, 95, 96) == [1.0, 0.5, 0.5, 0.25]


def test_nothing_is_recorded_where_nothing_changes() -> None:
    known = continued(NOTHING, A, B, 64, 1.0)
    assert continued(known, B, B, 96, 2.0) is known
    assert continued(known, None, C, 96, 2.0) is known  # of a run whose configuration is not known
    assert continued(NOTHING, A, B, 0, 2.0) is NOTHING  # nothing was trained yet
    other = replace(B, optim=replace(B.optim, weight_decay=0.7, micro_batch_size=4))
    assert continued(known, B, other, 96, 2.0) is known


def test_a_run_set_back_to_before_a_change_comes_to_it_again() -> None:
    known = continued(NOTHING, A, B, 64, 1.0)
    back = continued(known, B, B, 32, 2.0)
    assert back is known
    assert rates(B, back, 32, 63, 64) == [1.0, 1.0, 0.5]


def test_a_change_of_a_run_set_back_replaces_those_ahead_and_not_what_was() -> None:
    known = continued(continued(NOTHING, A, B, 64, 1.0), B, C, 96, 2.0)
    back = continued(known, C, config_of(lr=2.0), 80, 3.0)
    assert positions(back) == [(64, 1.0, 0), (80, 0.5, 0)]
    assert rates(config_of(lr=2.0), back, 0, 64, 79, 80, 96) == [1.0, 0.5, 0.5, 2.0, 2.0]
    further = continued(known, C, config_of(lr=2.0), 32, 3.0)
    assert positions(further) == [(32, 1.0, 0)]


def test_a_second_start_at_one_position_changes_what_was_no_more_than_the_first() -> None:
    """The first one has trained nothing: killed, or typed wrongly."""
    once = continued(NOTHING, A, B, 64, 1.0)
    assert positions(continued(once, A, B, 64, 2.0)) == positions(once)
    assert positions(continued(once, B, C, 64, 2.0)) == [(64, 1.0, 0)]
    twice = continued(continued(once, B, C, 96, 3.0), C, A, 96, 4.0)
    assert positions(twice) == [(64, 1.0, 0), (96, 0.5, 0)]


def test_data_are_followed_by_a_warm_up_only_if_it_is_asked_for() -> None:
    new = with_data(A, weights=[0.5, 0.5])
    assert continued(NOTHING, A, new, 64, 1.0) is NOTHING
    new = replace(new, optim=replace(new.optim, rewarmup_samples=40))
    known = continued(NOTHING, A, new, 64, 1.0)
    assert positions(known) == [(64, 1.0, 40)]
    assert rates(new, known, 63, 64, 84, 104) == [1.0, 0.0, 0.5, 1.0]
    assert continued(known, new, new, 96, 2.0) is known


def test_the_objective_counts_as_data_and_where_they_lie_does_not() -> None:
    warm = config_of(rewarmup_samples=40)
    new = replace(warm, objective=replace(warm.objective, gmask_share=0.1))
    assert positions(continued(NOTHING, warm, new, 64, 1.0)) == [(64, 1e-3, 40)]
    for data in (
        *({"accept_changed": True}, {"cache_dir": "/elsewhere"}, {"local_copy": "/fast"}),
        {"skip_samples": [[640, 720]]},
    ):
        assert continued(NOTHING, warm, with_data(warm, **data), 64, 1.0) is NOTHING


def test_new_data_leave_the_changes_ahead_of_a_run_that_was_set_back() -> None:
    warm = replace(B, optim=replace(B.optim, rewarmup_samples=40))
    known = continued(NOTHING, A, replace(warm, optim=B.optim), 200, 1.0)
    back = continued(known, warm, with_data(warm, weights=[0.5, 0.5]), 64, 2.0)
    assert positions(back) == [(64, 1.0, 40), (200, 1.0, 0)]
    assert rates(warm, back, 63, 64, 84, 199, 200) == [1.0, 0.0, 0.5, 1.0, 0.5]


def test_only_the_rate_and_the_data_are_followed_by_a_warm_up() -> None:
    warm = config_of(rewarmup_samples=40)
    for new in (config_of(shrink=0.5, rewarmup_samples=40), config_of(global_batch_size=16, rewarmup_samples=40)):  # fmt: skip
        assert positions(continued(NOTHING, warm, new, 64, 1.0)) == [(64, 1e-3, 0)]
    assert positions(continued(NOTHING, warm, config_of(lr=1.0, rewarmup_samples=40), 64, 1.0)) == [(64, 1e-3, 40)]  # fmt: skip


def test_a_warm_up_outlives_another_change_at_its_position() -> None:
    warm = config_of(rewarmup_samples=40)
    new = with_data(warm, weights=[0.5, 0.5])
    known = continued(NOTHING, warm, new, 64, 1.0)
    also = replace(new, stability=replace(new.stability, embedding_shrink=[[0.0, 1.0]]))
    assert positions(continued(known, new, also, 64, 2.0)) == [(64, 1e-3, 40)]
    assert positions(continued(known, new, also, 96, 2.0)) == [(64, 1e-3, 40), (96, 1e-3, 0)]


def test_a_longer_run_whose_schedules_are_kept_changes_none() -> None:
    short = config_of(schedule=Schedule.cosine, rewarmup_samples=40)
    kept = config_of(
        schedule=Schedule.cosine, rewarmup_samples=40, total_samples=1920, schedule_samples=960
    )
    assert continued(NOTHING, short, kept, 960, 1.0) is NOTHING
    longer = config_of(schedule=Schedule.cosine, rewarmup_samples=40, total_samples=1920)
    assert positions(continued(NOTHING, short, longer, 960, 1.0)) == [(960, 1e-3, 40)]
    constant = config_of(rewarmup_samples=40)
    assert (
        continued(NOTHING, constant, config_of(rewarmup_samples=40, total_samples=1920), 960, 1.0)
        is NOTHING
    )


def test_a_batch_ramp_that_follows_from_other_keys_is_a_schedule_too() -> None:
    """Its first batch is derived from the micro-batch, which changes with the number of nodes."""
    ramp = BatchRampConfig(samples=320)
    before = config_of(global_batch_size=64, batch_ramp=ramp)
    after = config_of(global_batch_size=64, batch_ramp=ramp, micro_batch_size=16)
    known = continued(NOTHING, before, after, 32, 1.0)
    plan = TrainingPlan.from_config(after, known)
    assert plan.step_at(0) == TrainingPlan.from_config(before).step_at(0)
    assert plan.step_at(0).num_samples == 8
    assert plan.step_at(32) == TrainingPlan.from_config(after).step_at(32)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), min_size=1, max_size=6))
def test_what_was_trained_is_trained_again_in_the_same_way(starts: list[tuple[int, int]]) -> None:
    """Runs go on, are set back and changed at random; what lies before a start never changes at it."""
    configs = [config_of(lr=1.0 / (1 + each), shrink=0.1 * (1 + each)) for each in range(4)]
    known, stored = NOTHING, configs[0]
    for position, number in starts:
        before = TrainingPlan.from_config(stored, known)
        known = continued(known, stored, configs[number], position, 1.0)
        after = TrainingPlan.from_config(configs[number], known)
        assert all(before.step_at(seen) == after.step_at(seen) for seen in range(position))
        is_changed = configs[number] != stored
        if is_changed and position:
            plain = TrainingPlan.from_config(configs[number])
            assert all(plain.step_at(seen) == after.step_at(seen) for seen in range(position, 32))
        ends = [each.until_samples for each in known.schedules]
        assert ends == sorted(set(ends))
        stored = configs[number] if position else stored
