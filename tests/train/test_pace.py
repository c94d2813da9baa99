"""Steps that become much slower: said once, not for a single slow step, and again only after they were fast."""

import os

import pytest

from train.pace import Pace, busy_hint


def said(pace: Pace, *times: float, num_samples: int = 8) -> list[str]:
    return [text for time in times if (text := pace.observe(time, num_samples))]


@pytest.fixture(autouse=True)
def busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (9.0, 5.0, 1.0))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def test_who_has_chosen_the_number_of_threads_gets_no_hint(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    hint = busy_hint()
    assert hint is not None and hint.endswith("while other programs need it.")


def test_three_steps_of_ten_times_the_usual_are_said_once_with_the_load():
    pace = Pace()
    assert not said(pace, 5.0, 5.0, *[0.1] * 20, 2.0, 0.1, 2.0, 2.0)
    (text,) = said(pace, *[2.0] * 200)
    assert text.startswith("Steps take 2.00 s now, 20 times as long as before (0.10 s).")
    assert busy_hint() in text and "load 9.0" in text and "OMP_NUM_THREADS=1" in text


def test_it_is_said_again_after_steps_were_fast():
    pace = Pace()
    said(pace, *[0.1] * 20)
    assert len(said(pace, *[2.0] * 5)) == 1
    assert not said(pace, 0.5, *[2.0] * 5), "never fast in between"
    assert not said(pace, *[0.1] * 5)
    assert len(said(pace, *[2.0] * 5)) == 1


def test_a_larger_batch_may_take_longer():
    pace = Pace()
    said(pace, *[0.1] * 20)
    assert not said(pace, *[2.0] * 10, num_samples=160)
    assert len(said(pace, *[21.0] * 10, num_samples=160)) == 1


def test_nothing_is_said_before_the_usual_is_known(monkeypatch: pytest.MonkeyPatch):
    assert not said(Pace(), *[0.1] * 6, *[5.0] * 5)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.1, 0.1, 0.1))
    pace = Pace()
    (text,) = said(pace, *[0.1] * 20, *[2.0] * 9)
    assert "not why" in text and busy_hint() is None
