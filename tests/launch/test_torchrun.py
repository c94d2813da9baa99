"""The command that starts a run, as one types it."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from configs.errors import UserError
from configs.load import load_config
from launch.torchrun import torchrun
from tests.helpers.places import ROOT


def test_one_node_meets_on_its_loopback_address() -> None:
    assert torchrun([]) == "python -m train.torchrun --max-restarts 3 --nproc-per-node 1 -m train"


def test_there_are_processes_for_at_least_one_whole_model() -> None:
    assert torchrun(["parallel.tp=2", "parallel.pp=2"]) == (
        "python -m train.torchrun --max-restarts 3 --nproc-per-node 4 -m train parallel.tp=2 parallel.pp=2"
    )


def test_several_nodes_meet_at_the_head_node() -> None:
    assert torchrun(["experiment=glm_130b"]) == (
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 torchrun --nnodes 96 --max-restarts 3 --rdzv-backend c10d --rdzv-id glm_130b "
        '--rdzv-endpoint "$HEAD_NODE:29400" --nproc-per-node 8 -m train experiment=glm_130b'
    )


def test_the_shell_hands_over_the_words_unchanged() -> None:
    words = ["run.name=it's mine", "data.skip_samples=[[1,5]]", "data.paths=[a b.txt,c.txt]"]
    typed = shlex.split(torchrun(words))
    assert typed[typed.index("train") + 1 :] == words
    load_config(typed[typed.index("train") + 1 :])


def test_submit_becomes_the_command_that_is_printed(tmp_path: Path) -> None:
    # Stands for the launcher: says what it was told, and ends as one ends whose ranks failed.
    module = tmp_path / "train" / "torchrun.py"
    module.parent.mkdir(parents=True)
    (module.parent / "__init__.py").touch()
    module.write_text("import shlex, sys\nprint(shlex.join(sys.argv[1:]))\nsys.exit(7)\n")
    words = ["parallel.tp=2", "run.name=it's mine"]
    done = subprocess.run(
        [sys.executable, "-m", "launch", "torchrun", *words, "--submit"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (7, "")
    assert f"python -m train.torchrun {done.stdout.strip()}" == torchrun(words)


def test_submit_on_several_nodes_says_what_starts_them() -> None:
    with pytest.raises(UserError) as caught:
        torchrun(["experiment=glm_130b", "run.name=a b", "--submit"])
    for command in (
        "slurm experiment=glm_130b 'run.name=a b' --submit",
        "pdsh experiment=glm_130b",
    ):
        assert f"python -m launch {command}" in str(caught.value)
    assert "\n" not in str(caught.value)
