"""Bar, lines and log.txt: complete, readable on 80 columns, and never the end of a run."""

import io
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from configs.terminal import Forgiving
from train.console import ConsoleTracker, evaluation_text
from train.trackers import Trackers


def line(step: int, **values: Any) -> dict[str, Any]:
    nothing = {f"{kind}/loss{name}": None for kind in ("train", "valid")
               for name in ("", "_mask", "_gmask", "_mip")}  # fmt: skip
    return {
        **nothing,
        "step": step,
        "samples_seen": 8 * step,
        "train/loss": 2.5,
        "train/loss_gmask": 2.5,
        "optim/lr": 1e-3,
        "optim/grad_norm": float("inf"),
        "speed/tokens_per_second": 12345.6,
        **values,
    }


def test_lines_are_printed_when_due_and_kept_in_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    tracker = ConsoleTracker(tmp_path / "log.txt", 80, every_steps=2, show_bar=False)
    tracker.log("model tiny")
    for step in range(1, 4):
        tracker.log_metrics(line(step))
    tracker.log_metrics(line(5, **{"valid/loss": 4.0, "valid/loss_gmask": 4.0}))
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "log.txt").read_text()
    assert [text.split("|")[0].strip() for text in printed.splitlines()] == [
        "model tiny",
        "step      2",
        "step      5",
    ]
    assert "loss 2.5000 ([gMASK] 2.50)" in printed and "gnorm inf" in printed
    assert printed.endswith("held-out loss 4.0000 ([gMASK] 4.000)\n")


def test_a_bar_leaves_sentences_and_evaluations_on_the_screen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    trackers = Trackers([ConsoleTracker(tmp_path / "log.txt", 80, every_steps=1, show_bar=True)])
    trackers.log_metrics(line(1))
    trackers.log("a checkpoint [not markup]")
    trackers.log_metrics(line(2, **{"valid/loss": 4.0}))
    trackers.log_metrics(line(3, **{"train/loss": float("nan")}))
    trackers.close()
    printed = capsys.readouterr().out
    assert "a checkpoint [not markup]" in printed and "held-out loss 4.0000" in printed
    assert len((tmp_path / "log.txt").read_text().splitlines()) == 4


def test_an_evaluation_fits_a_terminal_of_80_columns():
    values = {"valid/loss": 3.41123, "valid/loss_mask": 3.4112, "valid/loss_gmask": 3.6415}
    text = evaluation_text(line(9_999, **values))
    assert text == (
        "   79,992 samples  held-out loss 3.4112 ([MASK] 3.411 [gMASK] 3.642)  lr 1.0e-03"
    )
    assert len(text) <= 80


def test_the_bar_fits_80_columns_and_is_gone_before_what_is_said_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    screen = io.StringIO()
    screen.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    tracker = ConsoleTracker(tmp_path / "log.txt", 80_000, every_steps=1, show_bar=True)
    for step in range(1_000, 1_004):
        tracker.log_metrics(line(step))
    tracker.close()
    tracker.log("The run is in runs/default")
    drawn = screen.getvalue()
    bars = [text for text in drawn.replace("\r", "\n").split("\n") if "tokens/s" in text]
    assert bars and "step 1,003 loss 2.500 12,346 tokens/s" in bars[-1]
    # From the first picture on every number says what it is of.
    plain = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text) for text in bars]
    assert all(
        re.fullmatch(r"step .* tokens/s \S+ +\d+%( [\d:]+ left)?\s*", text) for text in plain
    )
    assert "%" not in drawn[: drawn.index("step ")]
    assert "\x1b[2K" in drawn[drawn.rindex("tokens/s") :]  # erased
    assert drawn.endswith("The run is in runs/default\n")


def test_control_characters_are_shown_on_the_screen_and_in_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    tracker = ConsoleTracker(tmp_path / "log.txt", 80, every_steps=1, show_bar=False)
    tracker.log("model: '\x1b[2Jgone'")
    assert (
        capsys.readouterr().out == "model: '\\x1b[2Jgone'\n" == (tmp_path / "log.txt").read_text()
    )


@pytest.mark.parametrize("shows_bar", [True, False])
def test_neither_a_full_output_nor_a_failing_log_stops_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shows_bar: bool
):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", Forgiving(full))
        tracker = ConsoleTracker(tmp_path / "log.txt", 80, every_steps=1, show_bar=shows_bar)
        monkeypatch.setattr(os, "write", _no_such_device)
        tracker.log_metrics(line(1))
        tracker.log("words")
        tracker.log_metrics(line(2, **{"valid/loss": 4.0}))
        tracker.close()
        monkeypatch.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())
    assert (tmp_path / "log.txt").read_text() == ""


def _no_such_device(descriptor: int, content: bytes) -> int:
    raise OSError(5, "Input/output error")


def test_an_evaluation_of_many_objectives_fits_80_columns() -> None:
    losses = {f"valid/loss_{name}": 2.3456 for name in ("mask", "gmask", "mip")}
    many = line(1250, **{"valid/loss": 3.618, **losses}) | {"samples_seen": 10_000_000}
    few = line(1250, **{"valid/loss": 3.618, "valid/loss_mask": 2.3456})
    assert len(evaluation_text(many)) < 80 and "lr" not in evaluation_text(many)
    assert "MIP 2.346" in evaluation_text(many) and "lr" in evaluation_text(few)
