"""A decision to go back is on the disk before anything changes, also in the second copy, and is found again from both."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from configs.errors import DistributedError, DivergenceError, RecordError
from configs.interventions import EarlierSchedule, Interventions, Rollback, read_interventions
from configs.load import load_config
from configs.run_paths import GENERATIONS
from configs.schema import BatchRampConfig, Config, OptimConfig
from tests.helpers.checkpoints import forge, save
from train.generations import Generation, History, begin
from train.identity import Identity
from train.progress import Progress
from train.run_folder import RunFolder
from train.stability.records import Alarm, Kind
from train.stability.rollback import decide_and_record, found_interventions, kept_lines, record
from train.world import Launch

ME, OTHER = "0123456789abcdef", "fedcba9876543210"
ONCE = Rollback(1, "a spike", 22, 25, 210, 250, 20, 200, [(210, 290)])
SPIKE = Alarm(Kind.loss, "loss", 25, 22, 5.0, 3.0)
REACHED = Progress(25, 250, 0, 250)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Checkpoints of the helper are of 10 samples a step."""
    return load_config(
        [
            *(
                "run.name=run",
                f"checkpoint.copy_to={tmp_path / 'copies'}",
                "optim.total_samples=9600",
            ),
            *("optim.micro_batch_size=2", "optim.global_batch_size=10", "stability.skip_steps=4"),
        ]
    )


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder(tmp_path / "run")
    made.create()
    return made


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    made = tmp_path / "copies" / "run"
    made.mkdir(parents=True)
    return made


def checkpoint(run: Path, step: int, generation: int, run_id: str = ME) -> Path:
    saved = save(run / "checkpoints", step, seed=step)
    return forge(saved, generation=generation, extra={"run_id": run_id})


def decide(
    folder: RunFolder,
    config: Config,
    generation: Generation | None = None,
    known: Interventions | None = None,
    *,
    dp: int = 1,
    healthy_step: int | None = None,
) -> tuple[Interventions, list[str], list[str]]:
    """Decide as rank 0 does; returns all interventions, the checkpoints as "folder/name" and the log."""
    said = list[str]()
    found, paths = decide_and_record(
        *(SPIKE, REACHED, known or Interventions()),
        config=config,
        folder=folder,
        generation=generation,
        identity=Identity(ME, True),
        healthy_step=healthy_step,
        dp=dp,
        log=said.append,
        alert=lambda _, text: said.append(text),
    )
    return found, [f"{path.parent.parent.name}/{path.name[-2:]}" for path in paths], said


def test_interventions_are_written_into_the_folder_and_its_copy(
    folder: RunFolder, config: Config, copy: Path
) -> None:
    known = Interventions([ONCE])
    record(known, folder, config, None, pytest.fail)
    assert read_interventions(folder.path) == read_interventions(copy) == known


def test_a_copy_that_does_not_exist_yet_is_not_made(folder: RunFolder, config: Config) -> None:
    record(Interventions([ONCE]), folder, config, None, pytest.fail)
    assert not (folder.path.parent / "copies").exists()
    config.checkpoint.copy_to = None
    record(Interventions([ONCE, ONCE]), folder, config, None, pytest.fail)
    assert len(read_interventions(folder.path).rollbacks) == 2


def test_a_copy_that_cannot_be_written_is_said_and_training_goes_on(
    folder: RunFolder, config: Config, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from train.stability import rollback

    write = rollback.replace_file

    def fails(path: Path, text: str) -> None:
        if path.is_relative_to(copy):
            raise OSError(28, "No space left on device")
        write(path, text)

    monkeypatch.setattr(rollback, "replace_file", fails)
    said = list[str]()
    record(Interventions([ONCE]), folder, config, None, said.append)
    assert len(said) == 1 and "No space left on device. Training goes on." in said[0]
    assert read_interventions(folder.path).rollbacks == [ONCE]
    assert read_interventions(copy) == Interventions()


def test_an_attempt_that_was_superseded_records_nothing(
    folder: RunFolder, config: Config, copy: Path
) -> None:
    attempt = begin(folder.path, Launch())
    (folder.path / GENERATIONS / "000002").touch()
    with pytest.raises(DistributedError, match="was started again"):
        record(Interventions([ONCE]), folder, config, attempt, pytest.fail)
    assert read_interventions(folder.path) == read_interventions(copy) == Interventions()
    attempt.end("failed")


def test_the_later_of_folder_and_copy_is_found(
    folder: RunFolder, config: Config, copy: Path
) -> None:
    schedule = EarlierSchedule(100, OptimConfig(), [[0.0, 0.1]])
    first = Interventions([ONCE, ONCE], [schedule], revision=1)
    second = Interventions([ONCE], [schedule], revision=2)  # set back by hand
    assert found_interventions(folder, config) == Interventions()
    (copy / "interventions.json").write_text(first.to_json())
    assert found_interventions(folder, config) == first  # the folder has lost its file
    folder.interventions.write_text(second.to_json())
    assert found_interventions(folder, config) == second
    (copy / "interventions.json").write_text(second.to_json())
    assert found_interventions(folder, config) == second
    config.checkpoint.copy_to = None
    assert found_interventions(folder, config) == second


def test_a_copy_whose_disk_fails_does_not_keep_a_run_from_its_own_file_and_damage_is_said(
    folder: RunFolder, config: Config, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from train.stability import rollback

    read = rollback.read_interventions
    folder.interventions.write_text(Interventions([ONCE]).to_json())

    def fails(path: Path) -> Interventions:
        if path == copy:
            raise OSError(5, "Input/output error")
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(rollback, "read_interventions", fails)
        assert found_interventions(folder, config).rollbacks == [ONCE]
    folder.interventions.write_text("{")
    with pytest.raises(RecordError, match="damaged"):
        found_interventions(folder, config)


def test_a_decision_is_recorded_said_and_names_the_checkpoints_to_go_back_to(
    folder: RunFolder, config: Config, copy: Path
) -> None:
    attempt = begin(folder.path, Launch())
    for step in (10, 20, 25):
        checkpoint(folder.path, step, 1)
    for step in (15, 20):
        checkpoint(copy, step, 1)
    found, paths, said = decide(folder, config, attempt, healthy_step=24)
    (decision,) = found.rollbacks
    assert (decision.generation, decision.checkpoint_step) == (1, 20)
    assert decision.skip == [(210, 290)] and decision.time > 0
    assert read_interventions(folder.path) == read_interventions(copy) == found
    assert paths == ["run/20", "run/15", "run/10"]
    (line,) = said
    assert line.startswith("Going back to the checkpoint of step 20 (50 samples are trained again)")
    assert "past that of step 24" in line
    (event,) = map(json.loads, folder.events.read_text().splitlines())
    assert event["event"] == "rollback" and event["checkpoint_step"] == 20
    assert event["time"] == decision.time
    attempt.end("failed")


def test_only_checkpoints_of_the_runs_history_are_gone_back_to(
    folder: RunFolder, config: Config
) -> None:
    first = begin(folder.path, Launch())
    first.continue_after(0)
    first.end("failed")
    second = begin(folder.path, Launch())
    second.continue_after(12)
    checkpoint(folder.path, 10, 1)
    checkpoint(folder.path, 15, 1)  # which a process wrote that had been superseded
    checkpoint(folder.path, 18, 2, OTHER)
    damaged = checkpoint(folder.path, 21, 2)
    (damaged / "manifest.json").write_text("{")
    found, paths, _ = decide(folder, config, second)
    assert paths == ["run/10"]
    assert found.rollbacks[0].generation == 2
    second.end("failed")


def test_batches_that_do_not_divide_among_the_replicas_are_refused_before_anything_is_recorded(
    folder: RunFolder, config: Config
) -> None:
    checkpoint(folder.path, 20, 1)
    ramp = BatchRampConfig(start=2, increment=2, samples=100)
    earlier = EarlierSchedule(230, replace(config.optim, global_batch_size=6, batch_ramp=ramp), [[0.0, 0.1]])  # fmt: skip
    with pytest.raises(DivergenceError, match="a batch of 6 samples again, .* among 5 replicas"):
        decide(folder, config, known=Interventions([], [earlier]), dp=5)
    assert not folder.interventions.exists() and not folder.events.exists()
    assert decide(folder, config, dp=5)[1] == ["run/20"]


def test_a_decision_that_was_not_carried_out_holds_for_the_next_attempt(folder: RunFolder) -> None:
    attempt = begin(folder.path, Launch())
    attempt.continue_after(0)
    folder.interventions.write_text(Interventions([ONCE]).to_json())
    attempt.end("failed")  # killed between decision and carrying out
    again = begin(folder.path, Launch())
    history = History.read(folder.path)
    assert [history.admits(1, step) for step in (10, 20, 21, 25)] == [True, True, False, False]
    assert history.admits(2, 25)
    again.continue_after(20)
    later = History.read(folder.path)
    assert [later.admits(1, step) for step in (20, 21)] == [True, False]
    assert later.admits(2, 25) and later.admits(3, 25)
    again.end("done")


def test_decisions_add_up_and_may_be_given() -> None:
    history = History({1: 0, 4: 30}, [(2, 20), (5, 12)])
    assert [history.admits(1, step) for step in (12, 13)] == [True, False]
    assert [history.admits(5, step) for step in (12, 13)] == [True, False]
    assert history.admits(6, 13)
    only_first = History({1: 0, 4: 30}, [(2, 20)])
    assert [only_first.admits(2, step) for step in (20, 21, 30)] == [True, False, False]
    assert [only_first.admits(3, step) for step in (21, 30, 31)] == [True, True, False]


def test_interventions_that_are_known_are_not_read_again(tmp_path: Path) -> None:
    (tmp_path / "interventions.json").write_text(Interventions([ONCE]).to_json())
    assert not History.read(tmp_path).admits(1, 21)
    assert History.read(tmp_path, Interventions()).admits(1, 21)


def test_a_run_that_lost_its_generations_begins_above_those_it_has_left(folder: RunFolder) -> None:
    first = begin(folder.path, Launch())
    assert first.number == 1
    first.end("failed")
    (folder.path / GENERATIONS / "000001").unlink()
    for step, generation in ((10, 3), (20, 6), (30, 2)):
        checkpoint(folder.path, step, generation)
    attempt = begin(folder.path, Launch())
    assert attempt.number == 7
    attempt.end("failed")
    (folder.path / GENERATIONS / "000007").unlink()
    folder.interventions.write_text(Interventions([replace(ONCE, generation=8)]).to_json())
    (folder.path / "checkpoints" / "step_00000030" / "manifest.json").write_text("{")
    attempt = begin(folder.path, Launch())
    assert attempt.number == 9
    # What that generation saved after the checkpoint belongs to no history, what this one saves does.
    assert [History.read(folder.path).admits(each, 25) for each in (8, 9)] == [False, True]
    attempt.end("done")


def test_the_metrics_that_a_rollback_cuts_off_are_kept_once(folder: RunFolder) -> None:
    assert kept_lines(folder, [], folder.metrics) is None
    path = kept_lines(folder, [ONCE, ONCE], folder.metrics)
    assert path == folder.path / "rolled_back" / "rollback_2_metrics.jsonl"
    path.parent.mkdir()
    path.touch()
    assert kept_lines(folder, [ONCE, ONCE], folder.metrics) is None
