"""A resume with other schedules changes what lies ahead: whoever goes back trains what was as it was, byte for byte."""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from configs.interventions import read_interventions
from configs.run_checkpoints import step_folder
from tests.helpers.whole_runs import command, compared, metrics, resumed_at, run_attempt

BATCH, CHANGE = 8, 48
SETTINGS = (
    *("optim.schedule=constant", "optim.warmup_samples=0", "optim.total_samples=80"),
    *("checkpoint.save_every_samples=16", "checkpoint.keep_last=20", "eval.every_samples=1000"),
)
NEW = ("optim.lr=5e-3", "stability.embedding_shrink=[[0,0.5]]")
OLD_RATE, NEW_RATE = 1e-2, 5e-3


def rates(run: Path) -> list[float]:
    """The learning rate of each step."""
    return [line["optim/lr"] for line in metrics(run)]


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    lines = (json.loads(line) for line in (run / "events.jsonl").read_text().splitlines())
    return [line for line in lines if line["event"] == kind]


class Changed(NamedTuple):
    """A run that was stopped at sample 48 and gone on with NEW."""

    words: tuple[str, ...]
    """Without its folder."""
    stopped: Path
    """It, stopped again at sample 72."""
    undisturbed: Path
    """It, trained to its end from there."""


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Changed:
    folder = tmp_path_factory.mktemp("changed")
    found = Changed(command(folder, *SETTINGS), folder / "stopped", folder / "undisturbed")
    here = (*found.words, f"run.dir={found.stopped}")
    assert run_attempt(1, (*here, f"run.stop_after_samples={CHANGE}")) == [75]
    assert run_attempt(1, (*here, *NEW, "run.stop_after_samples=72")) == [75]
    shutil.copytree(found.stopped, found.undisturbed)
    assert run_attempt(1, (*found.words, f"run.dir={found.undisturbed}", *NEW)) == [0]
    return found


@pytest.fixture
def run(tmp_path: Path, changed: Changed) -> Path:
    """A copy of the run that was stopped."""
    return Path(shutil.copytree(changed.stopped, tmp_path / "run"))


def test_a_change_records_the_schedules_that_held_until_it(changed: Changed) -> None:
    run = changed.undisturbed
    assert rates(run) == pytest.approx([OLD_RATE] * 6 + [NEW_RATE] * 4)
    (earlier,) = read_interventions(run).schedules
    assert (earlier.until_samples, earlier.optim.lr) == (CHANGE, OLD_RATE)
    assert earlier.embedding_shrink == [[0.0, 0.1]] and earlier.rewarmup_samples == 0
    change = events(run, "config_change")[0]
    assert any(each.startswith("optim.lr: 0.01 -> 0.005") for each in change["changes"])
    # The file is written before the resume is recorded.
    assert earlier.time <= events(run, "resume")[0]["time"]


def test_a_run_that_is_set_back_to_before_a_change_comes_to_it_again(
    changed: Changed, run: Path
) -> None:
    before = read_interventions(run)
    back = step_folder(run / "checkpoints", 4)
    assert run_attempt(
        1, (*changed.words, f"run.dir={run}", *NEW, f"checkpoint.resume={back}")
    ) == [0]
    assert resumed_at(run)[-1] == 32
    assert compared(run) == compared(changed.undisturbed)
    assert read_interventions(run) == before


def test_a_run_whose_newest_checkpoints_are_damaged_comes_to_a_change_again(
    changed: Changed, run: Path
) -> None:
    for step in (6, 8, 9):
        for file in step_folder(run / "checkpoints", step).glob("*.safetensors"):
            file.write_bytes(b"")
    assert run_attempt(1, (*changed.words, f"run.dir={run}", *NEW)) == [0]
    assert resumed_at(run)[-1] == 32
    assert rates(run) == pytest.approx([OLD_RATE] * 6 + [NEW_RATE] * 4)
    assert compared(run) == compared(changed.undisturbed)


def test_a_change_of_a_run_that_was_set_back_holds_from_there(changed: Changed, run: Path) -> None:
    back = step_folder(run / "checkpoints", 4)
    third = (*changed.words, f"run.dir={run}", "optim.lr=2e-3")
    assert run_attempt(1, (*third, f"checkpoint.resume={back}")) == [0]
    assert rates(run) == pytest.approx([OLD_RATE] * 4 + [2e-3] * 6)
    (earlier,) = read_interventions(run).schedules
    assert (earlier.until_samples, earlier.optim.lr) == (32, OLD_RATE)


def test_the_rate_warms_up_again_after_other_data_and_also_when_the_run_goes_back(
    tmp_path: Path,
) -> None:
    corpus = tmp_path / "corpus.txt"
    words = command(tmp_path, *SETTINGS, "optim.rewarmup_samples=32")
    (tmp_path / "other.txt").write_text(corpus.read_text().replace("times", "by"))
    two = f"data.paths=[{corpus},{tmp_path / 'other.txt'}]"
    run, undisturbed = tmp_path / "run", tmp_path / "undisturbed"
    runs = {each: (*words, two, f"run.dir={each}") for each in (run, undisturbed)}
    mixed = ("data.stages=[[0,1,0],[48,1,1]]",)
    for each, start in runs.items():
        stopped = ("data.weights=[1,0]", f"run.stop_after_samples={CHANGE}")
        assert run_attempt(1, (*start, *stopped)) == [75], each
    assert run_attempt(1, (*runs[undisturbed], *mixed)) == [0]
    expected = [OLD_RATE] * 6 + [OLD_RATE * share for share in (0, 0.25, 0.5, 0.75)]
    assert rates(undisturbed) == pytest.approx(expected)
    (earlier,) = read_interventions(undisturbed).schedules
    assert (earlier.until_samples, earlier.rewarmup_samples) == (CHANGE, 32)
    assert run_attempt(1, (*runs[run], *mixed, "run.stop_after_samples=64")) == [75]
    back = step_folder(run / "checkpoints", 4)
    assert run_attempt(1, (*runs[run], *mixed, f"checkpoint.resume={back}")) == [0]
    assert resumed_at(run) == [CHANGE, 32]
    assert compared(run) == compared(undisturbed)
