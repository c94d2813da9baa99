"""Schedules against the published run's figures, and their rules."""

import pytest

from configs import derive
from configs.load import load_config
from train.plan import TrainingPlan, crosses, interpolate, learning_rate

GLM_130B = TrainingPlan.from_config(load_config(["experiment=glm_130b"]))


def after_steps(count: int) -> int:
    """Samples seen by the published run after so many steps."""
    seen = 0
    for _ in range(count):
        seen += GLM_130B.step_at(seen).num_samples
    return seen


def test_the_published_ramp_reaches_its_full_batch_and_its_end() -> None:
    assert GLM_130B.step_at(0).num_samples == 192
    assert GLM_130B.step_at(5_493_164).num_samples == 4224
    # Step 49,300 is 195,591,480 samples, the "400B tokens" of the paper.
    assert after_steps(49_300) == 195_591_480
    assert GLM_130B.step_at(after_steps(4_296)).num_samples == 4224
    assert GLM_130B.step_at(after_steps(4_295)).num_samples == 4200


@pytest.mark.parametrize(
    "step, nominal", [(2_000, 5.97e-5), (3_000, 8.0e-5), (6_000, 7.94e-5), (22_800, 5.30e-5)]
)
def test_the_published_learning_rate(step: int, nominal: float) -> None:
    assert GLM_130B.step_at(after_steps(step)).learning_rate == pytest.approx(nominal, rel=1e-3)


def test_the_warm_up_of_the_published_run_ends_at_step_2318() -> None:
    assert after_steps(2_317) < 1_098_632 <= after_steps(2_318)


def test_cosine_wsd_and_constant_by_hand() -> None:
    base = [
        "optim.total_samples=1000",
        "optim.lr=1.0",
        "optim.min_lr=0.2",
        "optim.warmup_samples=100",
    ]

    def rates(*overrides: str) -> list[float]:
        optim = load_config([*base, *overrides]).optim
        return [learning_rate(optim, seen) for seen in (0, 50, 100, 550, 900, 950, 1000, 5000)]

    cosine = rates("optim.schedule=cosine")
    assert cosine[:4] == pytest.approx([0.0, 0.5, 1.0, 0.6])
    assert cosine[-2:] == [0.2, 0.2]
    wsd = rates("optim.schedule=wsd", "optim.wsd_decay_samples=100")
    assert wsd == pytest.approx([0.0, 0.5, 1.0, 1.0, 1.0, 0.6, 0.2, 0.2])
    assert rates("optim.schedule=constant") == pytest.approx([0.0, 0.5] + [1.0] * 6)


def test_a_schedule_of_points_is_linear_between_them() -> None:
    points = [[100.0, 0.1], [200.0, 1.0]]
    found = [interpolate(points, seen) for seen in (0, 100, 150, 200, 10**9)]
    assert found == pytest.approx([0.1, 0.1, 0.55, 1.0, 1.0])


def test_something_is_due_once_per_interval_whatever_the_batch() -> None:
    for batch in (1, 3, 7, 24):
        ends = range(batch, 1000, batch)
        due = [end for end in ends if crosses(end - batch, end, 50)]
        assert len(due) == ends[-1] // 50


def test_every_key_may_be_overridden_alone() -> None:
    plan = TrainingPlan.from_config(load_config(["optim.total_samples=40"]))
    seen = 0
    while not plan.is_finished(seen):
        seen += plan.step_at(seen).num_samples
    assert seen >= 40
    assert derive.num_steps(plan.optim) == -(-40 // plan.optim.global_batch_size)
