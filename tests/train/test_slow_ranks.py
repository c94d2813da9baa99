"""The rule that names slow ranks, on times by hand and on times with the noise of shared cores."""

import hashlib

import pytest

from train.own_time import OwnSeconds
from train.slow_ranks import WINDOW_STEPS, SlowRanks, Verdict, window_of

QUIET = OwnSeconds(1.0, 0.0, 0.0)


def took(seconds: float, idle: float = 0.0, kept: float = 0.0) -> OwnSeconds:
    return OwnSeconds(seconds, idle, kept)


def judged(stages: list[list[int]], windows: list[list[OwnSeconds]]) -> list[tuple[int, int, bool]]:
    """(window from 1, rank, is slow) of each verdict."""
    rule = SlowRanks(stages)
    return [
        (number, verdict.rank, verdict.is_slow)
        for number, window in enumerate(windows, start=1)
        for verdict in rule.observe(window)
    ]


def test_three_windows_in_a_row_name_a_rank_and_three_end_it() -> None:
    slow, near = [QUIET, took(1.3), QUIET, QUIET], [QUIET, took(1.07), QUIET, QUIET]
    windows = [slow] * 2 + [near] + [slow] * 5 + [near] * 2 + [slow] + [near] * 4
    assert judged([[0, 1, 2, 3]], windows) == [(6, 1, True), (14, 1, False)]


def test_a_rank_is_named_within_20_steps_wherever_in_a_window_it_becomes_slow() -> None:
    for slow_from in range(1, 2 * WINDOW_STEPS):
        rule = SlowRanks([[0, 1]])
        steps: list[float] = []
        for step in range(1, 100):
            steps.append(1.3 if step >= slow_from else 1.0)
            if step % WINDOW_STEPS:
                continue
            verdicts = rule.observe([window_of([took(each) for each in steps]), QUIET])
            steps.clear()
            if verdicts:
                assert verdicts[0] == Verdict(0, True, pytest.approx(0.3), False)
                assert step - slow_from < 20
                break
        else:
            pytest.fail(f"slow from step {slow_from} on, and never named")


def test_the_limits() -> None:
    for own, is_named in (
        (took(1.149), False),
        (took(1.151), True),
        (took(1.1, 0.079), False),
        (took(1.1, 0.081), True),
    ):
        assert bool(judged([[0, 1]], [[own, QUIET]] * 5)) == is_named
    # Where cores are shared, what counts is time without computing.
    kept = took(1.0, kept=0.06)
    for own, is_named in (
        (took(1.5, 0.0, 0.06), False),
        (took(1.3, 0.079, 0.06), False),
        (took(1.3, 0.081, 0.0), True),
    ):
        assert bool(judged([[0, 1]], [[own, kept]] * 5)) == is_named


def test_stages_are_not_compared_with_each_other() -> None:
    first, last = [QUIET, QUIET], [took(2.0), took(2.0)]
    assert judged([[0, 1], [2, 3]], [[*first, *last]] * 9) == []
    assert judged([[0, 1], [2, 3]], [[*first, took(2.0), took(2.5)]] * 9) == [(3, 3, True)]


def test_two_slow_ranks_of_five_are_both_named_and_nobody_else() -> None:
    window = [took(1.4), QUIET, took(1.3), QUIET, QUIET]
    assert judged([[0, 1, 2, 3, 4]], [window] * 6) == [(3, 0, True), (3, 2, True)]


def test_a_rank_alone_on_its_stage_is_compared_with_its_past() -> None:
    stages = [[0], [1], [2]]
    usual = [took(1.0), took(2.0), took(3.0)]
    slower = [took(1.0), took(2.6), took(3.0)]
    # The first window is not learnt from, three are needed.
    assert judged(stages, [usual] * 4 + [slower] * 4) == [(7, 1, True)]
    assert judged(stages, [slower] * 3 + [usual] * 20) == []
    # A larger batch: all become slower.
    larger = [took(2 * each.work) for each in usual]
    assert judged(stages, [usual] * 6 + [larger] * 9) == []
    rule = SlowRanks(stages)
    found = [rule.observe(window) for window in [usual] * 4 + [slower] * 3]
    assert found[-1] == [Verdict(1, True, pytest.approx(0.3), True)]


def test_a_rank_that_stays_slow_alone_on_its_stage_does_not_become_the_usual() -> None:
    usual = [took(1.0), took(2.0), took(3.0)]
    slower = [took(1.0), took(2.6), took(3.0)]
    assert judged([[0], [1], [2]], [usual] * 6 + [slower] * 60) == [(9, 1, True)]


def noise(*place: int) -> float:
    """A number in [0, 1) that depends on the place alone."""
    digest = hashlib.sha256(repr(place).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


@pytest.mark.parametrize("slow", [None, 3])
def test_noise_names_nobody_and_hides_nobody(slow: int | None) -> None:
    """Eight ranks on two cores: each step takes up to 1.5 times as long, and now and then some rank waits for a disk."""
    windows: list[list[OwnSeconds]] = []
    for window in range(400):
        ranks: list[OwnSeconds] = []
        for rank in range(8):
            steps: list[OwnSeconds] = []
            for step in range(WINDOW_STEPS):
                computing = 1.0 + 0.5 * noise(window // 3, rank) * noise(window, rank, step)
                idle = 0.3 if rank == slow else 0.0
                idle += 0.5 if noise(window, rank, step, 1) < 0.1 else 0.0
                steps.append(OwnSeconds(computing + idle, idle, 1.0))
            ranks.append(window_of(steps))
        windows.append(ranks)
    found = judged([[0, 1, 2, 3], [4, 5, 6, 7]], windows)
    assert found == ([] if slow is None else [(3, slow, True)])


def test_a_window_is_the_median_of_its_steps_and_their_least_idling() -> None:
    steps = [OwnSeconds(1, 5, 0), OwnSeconds(9, 1, 0), OwnSeconds(2, 2, 7)]
    assert window_of(steps) == OwnSeconds(2, 1, 0)


def test_idling_in_most_steps_of_a_shared_machine_is_not_held_against_a_rank() -> None:
    """A thread that waits for Python's lock, which another one of its process has, idles; a slow rank does in every step."""
    kept = [took(1.0, 0.0, 2.0)] * WINDOW_STEPS
    most = [took(1.5, 0.5, 2.0)] * (WINDOW_STEPS - 1) + [took(1.0, 0.0, 2.0)]
    every = [took(1.3, 0.3, 2.0)] * WINDOW_STEPS
    assert judged([[0, 1, 2]], [[window_of(each) for each in (most, kept, kept)]] * 9) == []
    assert judged([[0, 1, 2]], [[window_of(each) for each in (every, kept, kept)]] * 9) == [
        (3, 0, True)
    ]
