"""The check of the default run passes what learnt and nothing else."""

import json
from pathlib import Path

import pytest

from benchmarks.default_run_check import failures, report

LEARNT = {
    "valid_loss_mask": 4.0,
    "unigram_loss_mask": 4.5,
    "valid_loss_gmask": 5.0,
    "unigram_loss_gmask": 6.0,
    "top5_model": 0.25,
    "top5_most_frequent": 0.12,
    "num_blanks": 200,
}


def test_a_run_that_learnt_passes():
    assert failures(LEARNT) == []


@pytest.mark.parametrize(
    "worse",
    [
        {"valid_loss_mask": 4.01},
        {"valid_loss_gmask": 5.6},
        {"valid_loss_gmask": float("nan")},
        {"top5_model": 0.23},
        {"num_blanks": 20},
    ],
)
def test_each_shortfall_is_named(worse: dict[str, float]):
    assert len(failures(LEARNT | worse)) == 1


def test_the_report_ends_with_the_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "events.jsonl").write_text(
        '{"time": 100.0, "event": "start"}\n{"time": 280.4, "event": "done"}\n'
    )
    for summary, code in ((LEARNT, 0), (LEARNT | {"top5_model": 0.2}, 1)):
        (tmp_path / "summary.json").write_text(json.dumps(summary))
        assert report(tmp_path) == code
        printed = capsys.readouterr().out
        assert "seconds of training    180" in printed
        assert ("falls short: top-5" in printed) == bool(code)
