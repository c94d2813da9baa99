"""An objective of another package: one file and one registration, and it is trained, measured, shown and drawn.

The same run hides sentences in some windows, which have a loss of their own.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_pipeline.__main__ import cli as data
from glm.checkpoint.folder import newest_good
from glm.checkpoint.reader import read_manifest
from tests.helpers.objective_package import installed_package
from tests.helpers.report_pages import panel_of
from tests.helpers.whole_runs import command, metrics, run_attempt
from train.evaluate import cli as evaluate
from train.report.__main__ import cli as report

COUNTED = ["mask", "gmask", "mip", "smask", "copy"]


@pytest.fixture(scope="module")
def package() -> Iterator[None]:
    with installed_package():
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, package: None) -> Path:
    folder = tmp_path_factory.mktemp("copying")
    overrides = command(
        folder,
        f"run.dir={folder / 'run'}",
        "model.vocab_size=265",
        "objective.gmask_share=0.25",
        "objective.shares=[copy:0.5]",
        "objective.smask_share=0.5",
        "optim.total_samples=48",
        "checkpoint.save_every_samples=24",
        "run.stop_after_samples=24",
    )
    assert run_attempt(1, overrides) == [75]
    assert run_attempt(1, overrides[:-1]) == [0]
    return folder / "run"


def test_its_losses_stand_in_the_metrics_of_a_run_that_was_continued(run: Path) -> None:
    lines = metrics(run)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    for line in lines:
        names = [key for key in line if key.startswith("train/loss_")]
        assert names == [f"train/loss_{key}" for key in COUNTED]
        assert line["train/loss_copy"] > 0 and line["train/loss_mip"] is None
    last = lines[-1]
    known = [last[f"valid/loss_{key}"] for key in COUNTED if key != "mip"]
    assert min(known) <= last["valid/loss"] <= max(known)
    newest = newest_good([run / "checkpoints"], lambda _: None)
    assert newest is not None and read_manifest(newest).extra["objectives"] == COUNTED
    assert "objective copy of copy-objective 1.0" in (run / "source.txt").read_text()


def test_it_is_part_of_the_ending(run: Path) -> None:
    text = (run / "log.txt").read_text()
    assert "cannot be shown" not in text
    assert "  copied texts  " in text and "  [sMASK] sentences  " in text
    assert "Copied texts, the answer hidden:" in text
    summary = json.loads((run / "summary.json").read_text())
    assert summary["valid_loss_copy"] == metrics(run)[-1]["valid/loss_copy"]


def test_show_and_stats_know_it(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert data(["show", str(run), "--objective", "copy"]) == 0
    shown = capsys.readouterr().out
    assert ": COPY, 128 tokens in 1 window, 1 segment, 64 targets, 0 padding" in shown
    assert data(["show", str(run), "--objective", "smask"]) == 0
    assert "[sMASK]" in capsys.readouterr().out
    assert data(["stats", str(run), "--to", "40"]) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("COPY")]
    assert 0.4 <= int(row.split()[1]) / 40 <= 0.6


def test_evaluation_and_report_name_it(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate([str(run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    last = metrics(run)[-1]
    for key in ("copy", "smask", "mask", "gmask"):
        assert found["losses"][f"valid/loss_{key}"] == pytest.approx(
            last[f"valid/loss_{key}"], abs=1e-4
        )
        assert f"valid/loss_{key}" in found["unigram"]
    assert report([str(run)]) == 0
    panel = panel_of((run / "report.html").read_text(), "losses/train")
    names = [each["label"] for each in panel["data"]["series"]]
    assert {"train/loss_copy", "train/loss_smask"} <= set(names), "in the legend of its curve"


def test_without_its_package_nothing_is_imported_and_what_to_type_is_said(
    run: Path, package: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The module can be imported, but no installed package has registered it.
    folder = next(entry for entry in sys.path if entry.endswith("copy_objective"))
    (run.parent / "copy_objective.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.setattr(sys, "path", [str(run.parent), *(e for e in sys.path if e != folder)])
    monkeypatch.delitem(sys.modules, "copy_objective")
    for command_line, words in ((evaluate, [str(run)]), (data, ["stats", str(run)])):
        assert command_line(words) == 2
        said = capsys.readouterr().err
        assert "names the objective copy, which no installed package provides" in said
        assert "pip install PACKAGE" in said and "Traceback" not in said
    assert "copy_objective" not in sys.modules
