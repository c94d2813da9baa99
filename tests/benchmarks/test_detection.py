"""The benchmark of the detector: the peers' rules by hand, what counts as found, and its tables."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks import detection
from benchmarks.detection import OURS, Alarms, Found, alarm_lines, cost_lines, found_lines
from benchmarks.peer_rules import PEERS, FirstMaximum, SigmaRule, ZClip
from benchmarks.step_records import FAULTS, NOISES, Noise, healthy


def sigma(*, is_skipped: bool) -> SigmaRule:
    """Active after 1, 2, 3, 4: mean 2.5, deviation sqrt(5 / 3) = 1.291."""
    rule = SigmaRule(4, 4, 2.0, is_skipped=is_skipped)
    assert not any(rule.observe(value) for value in (1.0, 2.0, 3.0, 4.0))
    return rule


@pytest.mark.parametrize("is_skipped", [True, False])
def test_sigmas_are_those_of_the_steps_before(is_skipped: bool) -> None:
    assert not sigma(is_skipped=is_skipped).observe(2.5 + 2.58)
    assert sigma(is_skipped=is_skipped).observe(2.5 + 2.59)
    assert sigma(is_skipped=is_skipped).observe(2.5 - 2.59) == is_skipped


def test_an_outlier_hides_the_next_one_from_the_mean() -> None:
    rule = sigma(is_skipped=True)
    assert rule.observe(100.0) and not rule.observe(100.0)


def test_after_nan_each_step_is_left_out_until_it_is_forgotten() -> None:
    rule = sigma(is_skipped=True)
    assert [rule.observe(value) for value in (math.nan, 2.0, 3.0, 2.0, 3.0, 2.0)] == [
        *[True] * 5,
        False,
    ]
    metric = sigma(is_skipped=False)
    assert [metric.observe(value) for value in (math.nan, 99.0, 3.0)] == [False] * 3


def test_zclip_takes_in_what_is_left_of_a_clipped_norm() -> None:
    """Warm-up 1, 3: mean 2, deviation 1. 7: z 5, clipped to 2 + 2.5 / (5 / 2.5) = 3.25; mean .5 * 2 + .5 * 3.25 = 2.625."""
    rule = ZClip(alpha=0.5, warm_up=2, limit=2.5)
    assert not any(rule.observe(value) for value in (1.0, 3.0))
    assert rule.observe(7.0)
    assert rule._mean == pytest.approx(2.625, abs=1e-5)
    assert rule._variance == pytest.approx(0.5 * 1 + 0.5 * 0.625**2, abs=1e-5)
    assert not rule.observe(math.nan) and not rule.observe(1e9)


def test_the_first_maximum_is_never_renewed() -> None:
    rule = FirstMaximum(first=2, factor=10.0)
    found = [rule.observe(value) for value in (50.0, 1.0, 499.0, 500.0, 5.0, math.nan)]
    assert found == [False, False, False, True, False, False]


def test_a_fault_changes_nothing_before_it() -> None:
    series = healthy(0, NOISES[0], 1000)
    for fault in FAULTS:
        at = series.change_at if fault.is_at_change else 700
        faulty = series.copy()
        fault.write(faulty, at)
        pairs = [
            (series.losses, faulty.losses),
            (series.norms, faulty.norms),
            (series.embedding_norms, faulty.embedding_norms),
            (series.loss_scales, faulty.loss_scales),
        ]
        for before, after in pairs:
            np.testing.assert_array_equal(before[:at], after[:at])
        assert any((before[at:] != after[at:]).any() for before, after in pairs), fault.name


def test_all_faults_are_written_where_each_rule_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """On short runs; after NaN the mean and its deviation are NaN for a whole window, and all steps are left out."""
    monkeypatch.setattr(detection, "FAULT_STEPS", 1600)
    monkeypatch.setattr(detection, "FAULTS_AT", {"": 1400})
    monkeypatch.setattr(detection, "FOUND_WITHIN", 160)
    found = {(each.rule, each.fault): each for each in detection.detection(NOISES[0], [0])}
    assert len(found) == len(FAULTS) * (1 + len(PEERS))
    assert all(each.noise == "t4 white" and len(each.steps) == 1 for each in found.values())
    not_found = [
        fault for (rule, fault), each in found.items() if rule == OURS and each.steps == [None]
    ]
    assert not_found == [
        "gradient x 5, 20 steps after x 50",  # within the noise after the mixture's change
        "loss + .3 from here on",  # too few steps to know its drift
    ]
    assert found[OURS, "one gradient x 50"].steps == [1]
    assert found[OURS, "one gradient x 50"].alarms == [1]
    assert found["6 sigma of 128", "gradient x 5, 20 steps after x 50"].steps == [None]
    assert found["6 sigma of 128", "gradient x 50, 20 steps after NaN"].alarms[0] >= 128
    assert found["10 x the first 100", "loss x 1.002 a step"].steps == [None]


def test_tables() -> None:
    alarms = [
        Alarms("a rule", "t4 white", 20_000, {"loss": [1, 0], "norm": [4, 2]}),
        Alarms("a rule", "t3 white", 20_000, {"loss": [0, 0], "norm": [0, 1]}),
    ]
    _, head, loss, norm = alarm_lines(alarms)
    assert head.split() == ["t4", "white", "t3", "white"]
    assert loss.split() == ["a", "rule,", "loss", "0.2", "0.0"]
    assert norm.split() == ["a", "rule,", "norm", "1.5", "0.2"]
    found = [Found("a rule", "a fault", "t4 white", [3, None, 7, 7], [1, 0, 1, 1])]
    name, head, line = found_lines(found)
    assert (name, line.split()) == (
        "a fault",
        ["a", "rule", "3", "of", "4,", "step", "3", "..", "7"],
    )
    never = list(found_lines([Found("r", "f", "t4 white", [None], [0])]))[-1]
    assert never.split() == ["r", "0", "of", "1"]
    assert list(cost_lines({10: [100.0, 120.0, 90.0]}))[1].split() == [
        "10",
        "signals",
        "100",
        "(90",
        "..",
        "120)",
    ]


def test_the_noise_has_its_tails_and_its_correlation() -> None:
    white, correlated = (
        Noise(4, each).draw(np.random.default_rng(0), 200_000) for each in (0.0, 0.9)
    )
    for drawn in (white, correlated):
        assert drawn.std() == pytest.approx(1.0, abs=0.05)
    assert np.corrcoef(white[1:], white[:-1])[0, 1] == pytest.approx(0.0, abs=0.02)
    assert np.corrcoef(correlated[1:], correlated[:-1])[0, 1] == pytest.approx(0.9, abs=0.02)
    # Of a normal distribution .006 % lie beyond four deviations; of t4 .5 %.
    assert 0.003 < (abs(white) > 4).mean() < 0.007


def test_the_record_has_every_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(detection, "NOISES", NOISES[:1])
    monkeypatch.setattr(detection, "costs", lambda: {10: [1.0]})
    counted = Alarms(OURS, "t4 white", 10, {"back": [0], "out": [1]})
    found = Found(OURS, "a fault", "t4 white", [None], [0])
    monkeypatch.setattr(detection, "detection", lambda noise: [found])
    monkeypatch.setattr(detection, "false_alarms", lambda noise: [counted])
    assert detection.main(["--json", str(tmp_path / "found.json")]) == 0
    stored = json.loads((tmp_path / "found.json").read_text())
    assert stored["benchmark"] == "detection" and stored["microseconds"] == {"10": [1.0]}
    assert stored["found"][0]["steps"] == [None] and stored["alarms"][0]["counts"]["out"] == [1]
    assert "OLMo-core" in capsys.readouterr().out
