"""Training as jobs of a real cluster: on two and four nodes as on one, and in a chain of jobs across a time limit."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.whole_runs import compared, run_attempt
from tests.slurm.cluster import Cluster
from tests.slurm.jobs import environment, events, logs, nodes, run_words, send, steps_done

TIMEOUT_SECONDS = 400


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that all jobs of this file start in; they share corpus and cache."""
    return tmp_path_factory.mktemp("jobs")


@pytest.fixture(scope="module")
def one_node(four_nodes: Cluster, workplace: Path) -> Path:
    """The run on one machine. (The cluster comes first, so that nothing is trained where there is none.)"""
    run = workplace / "runs" / "one_node"
    assert run_attempt(8, tuple(run_words(workplace, f"run.dir={run}")), TIMEOUT_SECONDS) == [0] * 8
    return run


@pytest.mark.parametrize("num_nodes", [2, 4])
def test_a_run_on_several_nodes_has_the_losses_of_one_on_one_node(
    num_nodes: int, four_nodes: Cluster, workplace: Path, one_node: Path
) -> None:
    name = f"on_{num_nodes}"
    words = run_words(workplace, f"run.name={name}", *nodes(num_nodes))
    (job,) = send(four_nodes, workplace, words)
    run = workplace / "runs" / name
    assert four_nodes.wait_for_job(job, TIMEOUT_SECONDS) == "COMPLETED", logs(run)
    assert compared(run) == compared(one_node)
    assert len(compared(run)) == 6
    written = {path.name for path in (run / "slurm").glob(f"job_{job}_node*.txt")}
    assert len(written) == num_nodes, "each node has a log of its own"


def test_a_chain_goes_on_across_a_time_limit_and_ends_when_its_owner_stops_it(
    four_nodes: Cluster, workplace: Path
) -> None:
    layout = ("parallel.tp=1", "optim.total_samples=8000", *nodes(2, ranks=2))
    words = run_words(workplace, *layout, "run.name=chain", "cluster.signal_seconds=50")
    first, second, third = send(four_nodes, workplace, words, "--chain", "3")
    run = workplace / "runs" / "chain"
    four_nodes.wait_for(lambda: steps_done(run) >= 3, TIMEOUT_SECONDS, "step 3")
    # From here on it is as if the job had asked for one minute: SLURM warns it, and would end it.
    four_nodes.run("scontrol", "update", f"JobId={first}", "TimeLimit=1")
    four_nodes.wait_for_job(first, TIMEOUT_SECONDS)
    stopped_after = steps_done(run)
    assert events(run, "stop"), logs(run)
    assert 3 <= stopped_after < 1000, "the time limit came before the end"
    four_nodes.wait_for(lambda: steps_done(run) > stopped_after, TIMEOUT_SECONDS, "the next job")
    assert [event["samples_seen"] for event in events(run, "resume")] == [8 * stopped_after]
    (run / "stop").touch()
    states = [four_nodes.wait_for_job(job, TIMEOUT_SECONDS) for job in (second, third)]
    assert states == ["FAILED", "CANCELLED"], logs(run)
    assert four_nodes.job(second, "ExitCode") == "75:0"
    assert json.loads((run / "status.json").read_text())["state"] == "stopped"
    assert [line["step"] for line in compared(run)] == list(range(1, steps_done(run) + 1))


@pytest.mark.slow
def test_a_task_of_a_sweep_goes_back_to_the_queue_alone(
    four_nodes: Cluster, workplace: Path
) -> None:
    layout = ("parallel.tp=1", "parallel.pp=1", "optim.total_samples=1600", *nodes(1, ranks=1))
    words = run_words(workplace, *layout, "run.name=sweep")
    (array,) = send(four_nodes, workplace, words, "--sweep", "seed=1,2")
    runs = [workplace / "runs" / f"sweep-seed={seed}" for seed in (1, 2)]
    four_nodes.wait_for(
        lambda: min(map(steps_done, runs)) >= 3, TIMEOUT_SECONDS, "step 3 of both runs"
    )
    tasks = [f"{array}_{number}" for number in range(2)]
    # One task has the array's own number: what is asked of that number is asked of both.
    (own,) = [number for number in range(2) if four_nodes.job(tasks[number], "JobId") == array]
    four_nodes.run("scancel", "--batch", "--signal=USR1", tasks[own])
    states = [four_nodes.wait_for_job(task, TIMEOUT_SECONDS) for task in tasks]
    assert states == ["COMPLETED", "COMPLETED"], logs(runs[own])
    restarts = [int(four_nodes.job(task, "Restarts")) for task in tasks]
    assert restarts == [int(number == own) for number in range(2)]
    assert [len(events(run, "resume")) for run in runs] == restarts
    assert [len(compared(run)) for run in runs] == [200, 200]


@pytest.mark.parametrize(
    "words",
    [
        ["experiment=glm_130b", "cluster.nodes=4", "cluster.min_nodes=4"],
        ["experiment=glm_10b_1node"],
        [
            "cluster.nodes=3",
            "cluster.gpus_per_node=2",
            "cluster.min_nodes=2",
            "optim.global_batch_size=48",
        ],
        [
            "device=cpu",
            "cluster.cpus_per_rank=4",
            "cluster.exclude=[node2]",
            "cluster.partition=main",
        ],
        ["cluster.setup=[module load x]", "cluster.environment=[A=b c]", "run.name=a b"],
        ["cluster.sbatch_options=[--exclusive,--gres=none]", "data.paths=x"],
        ["--chain", "2", "cluster.requeue=false"],
        ["--sweep", "optim.lr=1e-4,2e-4", "--sweep=seed=1,2", "cluster.nodes=1"],
    ],
    ids=lambda words: words[0],
)
def test_slurm_and_bash_accept_every_script(
    words: list[str], four_nodes: Cluster, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "launch", "slurm", *words, "--print"],
        cwd=tmp_path,
        env=environment(four_nodes),
        capture_output=True,
        text=True,
        check=True,
    )
    (script,) = tmp_path.rglob("submit.sbatch")
    shown = done.stdout.removesuffix("\n")
    assert script.read_text().startswith(shown)
    assert script.read_text().removeprefix(shown).startswith("# Written by python -m launch")
    subprocess.run(["bash", "-n", str(script)], check=True)
    four_nodes.run("sbatch", "--test-only", str(script))


def test_a_job_that_slurm_refuses_is_one_message(four_nodes: Cluster, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "launch", "slurm", "cluster.partition=fast", "--submit"],
        cwd=tmp_path,
        env=environment(four_nodes),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "Choose one with cluster.partition=NAME" in done.stderr
    assert len(done.stderr.splitlines()) == 1
