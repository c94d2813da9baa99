"""Reading the launcher's environment."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from configs.errors import ConfigError
from tests.helpers.places import ROOT
from train.world import Launch, World, choose_one_thread


def test_without_a_launcher_it_is_one_process() -> None:
    assert World.from_environment({"PATH": "/bin"}) == World(0, 0, 1, "none")


def test_torchrun_is_recognised() -> None:
    variables = {
        "RANK": "5",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "8",
        "TORCHELASTIC_RUN_ID": "x",
    }
    assert World.from_environment(variables) == World(5, 1, 8, "torchrun", Launch(elastic_run="x"))


def test_srun_is_recognised_only_inside_a_step_of_several_tasks() -> None:
    variables = {"SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NTASKS": "4"}
    assert World.from_environment(variables).size == 1  # the batch script itself
    variables |= {"SLURM_STEP_ID": "2", "SLURM_JOB_ID": "17", "SLURM_RESTART_COUNT": "1"}
    launch = Launch(":17", restarts=1, step=2)
    assert World.from_environment(variables) == World(3, 1, 4, "slurm", launch)


@pytest.mark.parametrize(
    "previous, is_same_host, is_over",
    [
        (Launch("a:1", restarts=0, step=5), True, True),  # requeued since, wherever it ran
        (Launch("a:1", restarts=1, step=0), False, True),  # an earlier step, on a node that is lost
        (Launch("a:1", restarts=1, step=0), True, False),  # two steps at once, on one node
        (Launch("a:1", restarts=1, step=2), False, False),
        (Launch("a:1", restarts=2, step=0), False, False),
        (Launch("a:2", restarts=0, step=0), False, False),
        (Launch("b:1", restarts=0, step=0), False, False),
    ],
)
def test_whether_the_scheduler_has_ended_a_previous_attempt(
    previous: Launch, is_same_host: bool, is_over: bool
) -> None:
    assert Launch("a:1", restarts=1, step=2).follows(previous, is_same_host) is is_over
    assert not Launch().follows(Launch(), is_same_host)


def test_half_an_environment_is_an_error_that_says_what_to_type() -> None:
    with pytest.raises(ConfigError, match="LOCAL_RANK not set.*python -m train.torchrun"):
        World.from_environment({"RANK": "0", "WORLD_SIZE": "2"})


RANK = """
from train.world import World, die_with_parent
die_with_parent(World(0, 0, 1, "torchrun"))
print("runs")
"""
PROCESS_1 = f"""
import subprocess, sys
sys.exit(subprocess.run([sys.executable, "-c", {RANK!r}]).returncode % 256)
"""


@pytest.mark.parametrize(("name", "survives"), [("torchrun", True), ("init", False)])
def test_process_1_of_a_container_may_be_torchrun_itself(
    name: str, survives: bool, tmp_path: Path
) -> None:
    """Any other process 1 has adopted the rank, whose torchrun is dead."""
    container = ["unshare", "--pid", "--fork", "--mount-proc"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*container, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("this machine does not let us make a process space")
    (tmp_path / name).write_text(PROCESS_1)
    command = [*container, sys.executable, str(tmp_path / name)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout == "runs\n", done.returncode) == ((True, 0) if survives else (False, 247))


def test_each_of_several_ranks_gets_one_thread_unless_somebody_chose(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert not choose_one_thread(4) and os.environ["OMP_NUM_THREADS"] == "3"
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert not choose_one_thread(1) and "OMP_NUM_THREADS" not in os.environ
    assert choose_one_thread(4) and os.environ["OMP_NUM_THREADS"] == "1"


def test_the_first_attempt_of_a_process_begins_with_it_and_later_ones_where_they_ask() -> None:
    code = (
        "import os, time\n"
        "from train.world import attempt_start, process_start\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(attempt_start() == process_start())\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, 'a fork has not begun with the module'\n"
        "first, asked = attempt_start(), time.time()\n"
        "assert first == process_start()\n"
        "assert attempt_start() >= asked\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
