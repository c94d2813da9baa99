"""The real runs without faults: what is trained, and what is read of them."""

import json
from pathlib import Path

import pytest

from benchmarks.clean_runs import NUM_STEPS, RUNS, Run, lines, seen, write_corpora
from configs.load import load_config
from train.plan import TrainingPlan


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_a_run_has_500_steps_with_a_warm_up_a_ramp_and_a_change(run: Run, tmp_path: Path) -> None:
    config = load_config(run.words(1, tmp_path))
    plan = TrainingPlan.from_config(config)
    steps, samples = [], 0
    while samples < config.optim.total_samples:
        steps.append(plan.step_at(samples))
        samples += steps[-1].num_samples
    assert abs(len(steps) - NUM_STEPS) <= 2
    assert {step.num_samples for step in steps} == {run.batch * part // 4 for part in (1, 2, 3, 4)}
    assert steps[0].learning_rate < steps[20].learning_rate < run.lr
    assert config.data.stages == [[0, 1, 0], [config.optim.total_samples // 2, 0.5, 0.5]]


def test_names_differ_and_both_sources_are_written(tmp_path: Path) -> None:
    assert len({run.name for run in RUNS}) == len(RUNS) == 10
    assert {run.precision for run in RUNS} == {"fp32", "bf16"}
    write_corpora(tmp_path)
    for name, words in (("docs", "Return"), ("code", "def ")):
        texts = [json.loads(line)["text"] for line in (tmp_path / f"{name}.jsonl").open()]
        assert len(texts) > 50 and any(words in text for text in texts)


def test_alarms_and_steps_are_read_from_the_run_folder(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    metrics = [{"train/loss": 5.0 - step, "speed/seconds_per_step": 0.1} for step in range(3)]
    events = [
        {"event": "start"},
        {"event": "spike", "alarm": "gradient", "text": "step 2: grad norm 9"},
        {"event": "spike", "alarm": "drift", "text": "step 3: loss has risen"},
        {"event": "skip", "step": 2},
        {"event": "rollback"},
    ]
    for name, entries in (("metrics", metrics), ("events", events)):
        text = "".join(json.dumps(entry) + "\n" for entry in entries)
        (folder / f"{name}.jsonl").write_text(text)
    found = seen("small", ["seed=1", f"run.dir={folder}"], folder)
    assert (found.steps, found.first_loss, found.last_loss) == (3, 5.0, 4.0)
    assert found.words == ["seed=1"] and found.left_out == [2] and found.rollbacks == 1
    assert [alarm["alarm"] for alarm in found.going_back] == ["drift"]
    _, line, *alarms = lines([found])
    expected = ["small", "3", "5.00", "->", "4.00", "1", "1", "1", "0.100"]
    assert line.split() == expected
    assert alarms == ["small: step 2: grad norm 9", "small: step 3: loss has risen"]
