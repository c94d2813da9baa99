"""A spike is rolled back in the running process: the data that caused it are left out, and the history is one."""

import json
from pathlib import Path
from typing import Any

from configs.interventions import read_interventions
from configs.run_checkpoints import committed, step_of
from tests.helpers.poison import enlarge, run_poisoned
from tests.helpers.whole_runs import command, compared, metrics

BATCH, STEPS = 8, 40
# Steps 21 to 25 of the data stream, found after three of them.
POISON = [(160, 200)]
SETTINGS = (
    "stability.on_spike=rollback",
    "stability.spike_steps=[3,5]",
    "stability.skip_steps=5",
    "stability.rollback_samples=80",
    "optim.lr=3e-3",
    f"optim.total_samples={BATCH * STEPS}",
    "checkpoint.save_every_samples=32",
    "checkpoint.keep_last=2",
    "eval.every_samples=1000",
)


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    lines = (json.loads(line) for line in (run / "events.jsonl").read_text().splitlines())
    return [line for line in lines if line["event"] == kind]


def test_poisoned_data_are_left_out(tmp_path: Path):
    run, told, errors = tmp_path / "run", tmp_path / "told", tmp_path / "errors.txt"
    words = command(tmp_path, *SETTINGS)
    assert run_poisoned(1, (*words, f"run.dir={run}"), errors, POISON) == [0], errors.read_text()
    (rollback,) = read_interventions(run).rollbacks
    spikes = events(run, "spike")
    assert {(spike["alarm"], spike["step"]) for spike in spikes} == {("loss", 23)}
    assert [spike["signal"] for spike in spikes][0] == "loss"
    assert rollback.found_step == 23 and rollback.onset_step <= 21
    assert rollback.checkpoint_step < rollback.onset_step
    ((start, stop),) = rollback.skip
    assert start <= POISON[0][0] and stop >= POISON[0][1]
    lines = metrics(run)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert [line["samples_seen"] for line in lines] == list(range(BATCH, 8 * STEPS + 1, BATCH))
    assert lines[-1]["data/samples_drawn"] == BATCH * STEPS + stop - start
    kept = [json.loads(line) for line in (run / "rolled_back/rollback_1_metrics.jsonl").open()]
    assert [line["step"] for line in kept] == list(range(rollback.checkpoint_step + 1, 24))
    # A run that was told to leave out these data from its beginning is the same.
    skip = f"data.skip_samples=[[{start},{stop}]]"
    assert run_poisoned(1, (*words, f"run.dir={told}", skip), errors, POISON) == [0]
    assert compared(told) == compared(run)
    assert not (told / "rolled_back").exists()


def test_warn_goes_on_and_changes_nothing(tmp_path: Path):
    run, plain, errors = tmp_path / "run", tmp_path / "plain", tmp_path / "errors.txt"
    words = command(tmp_path, *SETTINGS, "stability.on_spike=warn")
    assert run_poisoned(1, (*words, f"run.dir={run}"), errors, POISON) == [0]
    assert [spike["alarm"] for spike in events(run, "spike")][:1] == ["loss"]
    assert not read_interventions(run).rollbacks
    deaf = (*words, "stability.loss_limit=1e9", "stability.gradient_limit=1e9", f"run.dir={plain}")
    assert run_poisoned(1, deaf, errors, POISON) == [0]
    assert compared(plain) == compared(run)


def test_stop_ends_the_run_with_what_to_type(tmp_path: Path):
    run, errors = tmp_path / "run", tmp_path / "errors.txt"
    words = command(tmp_path, *SETTINGS, "stability.on_spike=stop", f"run.dir={run}")
    assert run_poisoned(1, words, errors, POISON) == [2]
    said = errors.read_text()
    assert "step 23" in said and "stability.on_spike=rollback" in said
    assert "Traceback" not in said


def test_checkpoints_of_the_cut_history_are_set_aside(tmp_path: Path):
    run, errors = tmp_path / "run", tmp_path / "errors.txt"
    words = command(tmp_path, *SETTINGS, f"run.dir={run}", "checkpoint.save_every_samples=8")
    assert run_poisoned(1, (*words, "run.stop_after_samples=240"), errors, POISON) == [75]
    (rollback,) = read_interventions(run).rollbacks
    generations = {
        step_of(path): json.loads((path / "manifest.json").read_text())["generation"]
        for path in committed(run / "checkpoints")
    }
    assert max(generations) == 30
    assert all(
        generation > rollback.generation or step <= rollback.checkpoint_step
        for step, generation in generations.items()
    )


def test_a_run_that_spikes_again_and_again_stops_and_says_what_was_tried(tmp_path: Path):
    run, errors = tmp_path / "run", tmp_path / "errors.txt"
    settings = (
        "stability.max_rollbacks=2",
        "stability.relapse_lr=0.25",
        "checkpoint.keep_last=20",
        "optim.total_samples=640",
    )
    words = command(tmp_path, *SETTINGS, *settings, f"run.dir={run}")
    # From step 51 on, when the loss has been low for long.
    forever = [(400, 10**9)]
    assert run_poisoned(1, words, errors, forever) == [2]
    said = errors.read_text()
    first, second = read_interventions(run).rollbacks
    assert first.learning_rate == 1 and second.learning_rate == 0.25
    assert "spikes again and again" in said and "stability.max_rollbacks=2" in said
    assert f"1. back to step {first.checkpoint_step}, samples [" in said
    assert "learning rate x 0.25" in said and "Traceback" not in said
    status = json.loads((run / "status.json").read_text())
    assert status["state"] == "failed" and "spikes again" in status["message"]
    # The same command says the same again, and changes nothing.
    assert run_poisoned(1, words, errors, forever) == [2]
    assert read_interventions(run).rollbacks == [first, second]


def test_a_request_to_stop_at_the_same_moment_keeps_the_decision(tmp_path: Path):
    run, whole, errors = tmp_path / "run", tmp_path / "whole", tmp_path / "errors.txt"
    words = command(tmp_path, *SETTINGS)
    stop = f"run.stop_after_samples={BATCH * 23}"
    assert run_poisoned(1, (*words, f"run.dir={run}", stop), errors, POISON) == [75]
    assert len(read_interventions(run).rollbacks) == 1
    for folder in (run, whole):
        codes = run_poisoned(1, (*words, f"run.dir={folder}"), errors, POISON)
        assert codes == [0], errors.read_text()
    assert compared(run) == compared(whole)


def enlarged_gradient(rank: int) -> None:
    """A thousandfold in step 21."""
    enlarge([(160, 168)])


def test_a_wildly_large_gradient_is_left_out_and_only_told_of_by_warn(tmp_path: Path):
    words, losses = command(tmp_path, *SETTINGS), {}
    for policy, left_out in (("rollback", 1), ("warn", 0)):
        run, errors = tmp_path / policy, tmp_path / "errors.txt"
        typed = (*words, f"run.dir={run}", f"stability.on_spike={policy}")
        assert run_poisoned(1, typed, errors, [], enlarged_gradient) == [0], errors.read_text()
        assert not read_interventions(run).rollbacks
        (spike,) = events(run, "spike")
        assert (spike["alarm"], spike["signal"], spike["step"]) == ("gradient", "grad_norm", 21)
        assert [event["step"] for event in events(run, "skip")] == [21] * left_out
        lines = metrics(run)
        assert [line["optim/skipped_steps"] for line in lines] == [0] * 20 + [left_out] * 20
        losses[policy] = [line["train/loss"] for line in lines]
    assert losses["rollback"][:21] == losses["warn"][:21]
    assert losses["rollback"][21] != losses["warn"][21]
