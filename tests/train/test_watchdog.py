"""The watchdog: when it ends the process, what it leaves behind, and that nothing keeps it from ending the process."""

import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.helpers.killing import run_forked
from train import watchdog
from train.watchdog import StepLimits, Watchdog


def stuck_here() -> None:
    time.sleep(60)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "_GRACE_SECONDS", 0.1)


class Clock:
    """The watchdog's clock, which only the test moves; takes note instead of ending the process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.exit_code: int | None = None
        self._now = 0.0
        self._num_looks = 0
        self._has_changed = threading.Condition()
        clock = SimpleNamespace(monotonic=self._look, sleep=time.sleep, strftime=time.strftime)
        monkeypatch.setattr(watchdog, "time", clock)
        monkeypatch.setattr(watchdog.os, "_exit", self._end)
        monkeypatch.setattr(watchdog, "_POLL_SECONDS", 0.01)

    def move(self, seconds: float) -> None:
        """Let time pass; returns once the watchdog has acted on it."""
        with self._has_changed:
            self._now += seconds
            # The look in progress may have been at the time before; after the third, the second is dealt with.
            enough = self._num_looks + 3
            acted = self._has_changed.wait_for(
                lambda: self._num_looks >= enough or self.exit_code is not None, 60
            )
            assert acted, "the watchdog looks at no clock"

    def pass_unseen(self, seconds: float) -> None:
        """Let time pass without waiting for the watchdog's thread."""
        with self._has_changed:
            self._now += seconds

    def _look(self) -> float:
        with self._has_changed:
            if threading.current_thread().name == "watchdog":
                self._num_looks += 1
                self._has_changed.notify_all()
            return self._now

    def _end(self, code: int) -> None:
        with self._has_changed:
            self.exit_code = code
            self._has_changed.notify_all()
        raise SystemExit  # of the thread alone


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def wait_for_its_thread() -> None:
    """A watchdog that was closed has nothing more to do."""
    for thread in threading.enumerate():
        if thread.name == "watchdog":
            thread.join(60)
            assert not thread.is_alive()


def test_a_process_that_hangs_leaves_its_stacks_and_ends(tmp_path: Path) -> None:
    def work() -> None:
        dog = Watchdog(tmp_path / "stacks", 3, False, (tmp_path / "reason").write_text)
        dog.watch("the step after 40 samples", 0.2)
        stuck_here()

    assert run_forked(work) == 3
    stacks = (tmp_path / "stacks" / "rank00003.txt").read_text()
    assert "[rank 3] the step after 40 samples did not end within" in stacks.splitlines()[0]
    assert "in stuck_here" in stacks and "in _work" in stacks
    assert "the step after 40 samples" in (tmp_path / "reason").read_text()


def test_stacks_of_the_wait_are_not_replaced_by_those_of_learning_that_peers_are_gone(
    tmp_path: Path,
) -> None:
    file = tmp_path / "stacks" / "rank00003.txt"

    def work() -> None:
        dog = Watchdog(tmp_path / "stacks", 3, False, lambda _: None)
        watchdog._GRACE_SECONDS = (
            60.0  # the process goes on while the thread waits for the others' stacks
        )
        dog.watch("a step", 0.1)
        while not dog._has_written:
            time.sleep(0.01)
        before = file.read_bytes()
        dog.close()
        assert file.read_bytes() == before

    assert run_forked(work) == 0


def test_what_ends_in_time_is_left_alone(tmp_path: Path, clock: Clock) -> None:
    dog = Watchdog(tmp_path / "stacks", 0, False, pytest.fail)
    for _ in range(5):
        dog.watch("a step", 0.5)
        clock.move(0.4)
    dog.close()
    wait_for_its_thread()
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert clock.exit_code is None
    assert not (tmp_path / "stacks").exists()


def test_a_dead_disk_does_not_keep_it_from_ending(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "_DISK_SECONDS", 0.3)

    def work() -> None:
        dog = Watchdog(tmp_path / "stacks", 0, False, lambda reason: stuck_here())
        dog.watch("a step", 0.1)
        stuck_here()

    assert run_forked(work) == 3
    said = capfd.readouterr().err
    assert "in stuck_here" in said and "the stacks of its threads are below" in said


def test_the_kernel_ends_a_process_in_which_no_thread_can_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "_ALARM_SECONDS", 0.1)

    def work() -> None:
        dog = Watchdog(tmp_path / "stacks", 0, False, pytest.fail)
        dog.close()  # as if its thread never got a turn
        dog.watch("a step", 0.1)
        stuck_here()

    assert run_forked(work) == -signal.SIGALRM


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # Clock._end
@pytest.mark.parametrize("is_alone", [True, False])
def test_time_in_which_a_lone_process_is_suspended_does_not_count(
    is_alone: bool, tmp_path: Path, clock: Clock
) -> None:
    dog = Watchdog(tmp_path, 0, is_alone, lambda reason: None)
    dog.watch("a step", 3.0)
    clock.move(0.05)
    clock.move(5.0)  # a stopped process finds the clock so much later
    assert clock.exit_code == (None if is_alone else 3)
    for _ in range(70):  # it runs again, and its three seconds do count
        clock.move(0.05)
    assert clock.exit_code == 3
    dog.close()
    wait_for_its_thread()


def test_a_rank_that_was_itself_stopped_says_so_when_it_finds_its_peers_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    monkeypatch.setattr(watchdog, "_POLL_SECONDS", 60.0)  # it was stopped: its thread does not look
    reasons: list[str] = []
    dog = Watchdog(tmp_path, 1, False, reasons.append)
    dog.watch("a step", 3.0)
    clock.pass_unseen(4.0)
    dog.close()
    assert len(reasons) == 1 and "a step did not end" in (tmp_path / "rank00001.txt").read_text()


def test_limits_follow_the_recent_steps_unless_one_is_given() -> None:
    given = StepLimits(7.0)
    given.observe(100.0)
    assert (given.step_seconds, given.rare_seconds) == (7.0, 70.0)

    limits = StepLimits(None)
    assert limits.step_seconds == limits.rare_seconds == 1800.0  # the first step is a rare one
    limits.observe(1.0)
    assert (limits.step_seconds, limits.rare_seconds) == (300.0, 1800.0)
    limits.observe(40.0)
    assert (limits.step_seconds, limits.rare_seconds) == (800.0, 8000.0)
    for _ in range(50):
        limits.observe(2.0)
    assert limits.step_seconds == 300.0
