"""Sweeps: one array, a folder for each combination, a table of what came out."""

import json
import shlex
import subprocess
from pathlib import Path

import pytest

from configs.errors import ConfigError
from configs.load import load_config
from launch.slurm import slurm
from launch.sweep import table, variants

SWEEP = ("--sweep", "optim.lr=1e-4,2e-4", "--sweep", "seed=1,2")
FOLDERS = [f"runs/default-optim.lr={lr}-seed={seed}" for lr in ("1e-4", "2e-4") for seed in (1, 2)]


def test_every_combination_has_its_words_and_its_folder() -> None:
    made = variants(["cluster.nodes=1"], ["optim.lr=1e-4,2e-4", "seed=1,2"])
    assert [variant.folder for variant in made] == FOLDERS
    assert [(v.config.optim.lr, v.config.seed) for v in made] == [
        (1e-4, 1), (1e-4, 2), (2e-4, 1), (2e-4, 2),
    ]  # fmt: skip
    for variant in made:
        assert load_config(variant.overrides) == variant.config


def test_a_list_is_one_value_and_makes_a_name_without_brackets() -> None:
    first, second = variants([], ["data.paths=[a/x.txt,b.txt],c.txt"])
    assert first.config.data.paths == ["a/x.txt", "b.txt"]
    assert second.config.data.paths == ["c.txt"]
    assert first.folder == "runs/default-data.paths=_a_x.txt_b.txt_"


def test_problems_of_all_combinations_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        variants([], ["optim.lr=0,1e-4", "seed=-1,1"])
    assert len(caught.value.problems) == 4
    assert caught.value.problems[1].startswith("optim.lr=0 seed=-1: optim.lr (0.0) must be above")
    with pytest.raises(ConfigError, match="share the folder runs/default-seed=1"):
        variants([], ["seed=1,1"])
    with pytest.raises(ConfigError, match="run.dir would be the folder of every run"):
        variants(["run.dir=x"], ["seed=1,2"])
    with pytest.raises(ConfigError, match="--sweep cannot vary cluster"):
        slurm(["--sweep", "cluster.nodes=1,2"])
    with pytest.raises(ConfigError) as caught:
        slurm(["--table", "--submit"])
    assert caught.value.problems[0].startswith("--table shows a sweep.")
    assert "sends nothing" in caught.value.problems[1]


@pytest.mark.parametrize("sent", [["--submit"], ["--chain", "2"]])
def test_a_table_does_not_pretend_to_send(sent: list[str]) -> None:
    with pytest.raises(ConfigError, match="Leave out --submit and --chain, or --table"):
        slurm([*SWEEP, "--table", *sent])


@pytest.mark.parametrize(
    "axis",
    [
        "seed",
        "seed=",
        "=1",
        "seed=1,,2",
        "seed=1,2,",
        "seed=1, ,2",
        "data.paths=[a,b",
        "data.paths=a]",
    ],
)
def test_an_axis_that_would_lose_a_value_is_refused(axis: str) -> None:
    with pytest.raises(ConfigError) as caught:
        variants([], ["seed=1,2", axis])
    (problem,) = caught.value.problems
    assert problem.startswith(f"--sweep {axis} is not of the form key=value,value")


def test_lists_of_lists_are_values_too() -> None:
    first, second = variants(["data.paths=[a]"], ["data.stages=[[0,1],[50,2]],[[0,3]]"])
    assert first.values["data.stages"] == "[[0,1],[50,2]]"
    assert second.values["data.stages"] == "[[0,3]]"


def test_one_array_trains_each_run_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    script = slurm([*SWEEP, "--print"])
    assert "#SBATCH --array=0-3\n" in script
    assert "#SBATCH --output=runs/default-sweep/slurm/job_%A_%a.txt\n" in script
    kept = (tmp_path / "runs/default-sweep/submit.sbatch").read_text()
    assert kept.startswith(script)
    assert kept.removeprefix(script).startswith("# Written by python -m launch")
    head = script.partition("# --- what follows")[0]
    for task, folder in enumerate(FOLDERS):
        shown = f'{head}\nprintf "%s\\n" "$run" "${{command[@]}}"'
        done = subprocess.run(
            ["bash", "-c", shown],
            env={"SLURM_ARRAY_TASK_ID": str(task)},
            capture_output=True,
            text=True,
            check=True,
        )
        run, *command = done.stdout.splitlines()
        assert run == folder
        assert command[:3] == ["python", "-m", "train"]
        assert load_config(command[3:]).seed == task % 2 + 1
    assert shlex.split(script.splitlines()[1])[5:] == list(SWEEP)


def test_the_table_reads_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = variants([], ["optim.lr=1e-4,2e-4,4e-4", "seed=1"])
    for variant, losses in zip(made, ([3.0, 2.5], [4.0, 2.25]), strict=False):
        folder = Path(variant.folder)
        folder.mkdir(parents=True)
        status = {"state": "done", "samples_seen": 4096}
        (folder / "status.json").write_text(json.dumps(status))
        lines = [{"train/loss": loss, "valid/loss": loss + 1} for loss in losses]
        lines.append({"train/loss": 1.0, "valid/loss": None})
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / "metrics.jsonl").write_text(text + '{"torn')
    assert table(made).splitlines() == [
        "run  optim.lr  seed  state        samples  train/loss  valid/loss",
        "0    1e-4      1     done         4,096    1.0000      3.5000",
        "1    2e-4      1     done         4,096    1.0000      3.2500",
        "2    4e-4      1     not started  0        -           -",
        "",
        "Lowest held-out loss: 3.2500 in runs/default-optim.lr=2e-4-seed=1",
    ]
    assert slurm(["--sweep", "optim.lr=1e-4,2e-4,4e-4", "--sweep=seed=1", "--table"]) == table(made)
