"""Faults of a real cluster while a run trains: each ends with the run complete, and with the undisturbed run's numbers.

    pytest tests/slurm/test_faults.py -m "slow or not slow" --log-cli-level=INFO

prints, for docs/reliability.md, the time from the fault to the next trained step. Each attempt of a run costs the import
of its libraries in every rank, which on two cores is most of that time.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers.whole_runs import compared, run_attempt
from tests.slurm.cluster import Cluster
from tests.slurm.jobs import events, logs, nodes, run_words, send, steps_done

TIMEOUT_SECONDS = 400
# tp 2 on each node, two replicas; 120 steps of 8 samples, a checkpoint every 20 of them.
FOUR_RANKS = (
    "parallel.pp=1",
    "optim.total_samples=960",
    "checkpoint.save_every_samples=160",
    "eval.every_samples=480",
)
# At a usual rate: at TEXT_RUN's, ten times as large, rounding alone moves the losses of another layout by 2e-5 in 200 steps.
GENTLE = ("optim.lr=1e-3",)
# So long that SLURM misses a dead daemon, or looks at the time limit, before the end.
LONGER = ("optim.total_samples=4800",)
slow = pytest.mark.slow


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that all jobs of this file start in."""
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def undisturbed(four_nodes: Cluster, workplace: Path) -> Path:
    """The run that nothing happens to, on one machine."""
    return train_undisturbed(workplace, "undisturbed")


def train_undisturbed(workplace: Path, name: str, *overrides: str) -> Path:
    """Train on this machine without a fault; returns the run folder."""
    run = workplace / "runs" / name
    words = run_words(workplace, *FOUR_RANKS, *overrides, f"run.dir={run}")
    assert run_attempt(4, tuple(words), TIMEOUT_SECONDS) == [0] * 4
    return run


@pytest.fixture(scope="module")
def undisturbed_longer(four_nodes: Cluster, workplace: Path) -> Path:
    """The same for more steps."""
    return train_undisturbed(workplace, "longer", *LONGER)


@pytest.fixture
def cluster(four_nodes: Cluster) -> Iterator[Cluster]:
    """Four idle nodes, before and after."""
    yield four_nodes
    four_nodes.run("scancel", "--user=root", check=False)
    four_nodes.repair()
    four_nodes.wait_for_idle(4)


class Drill:
    """A run of four ranks on two nodes, and what became of it.

    Args:
        cluster: where it trains.
        workplace: the folder that it is sent from.
        name: of the run.
        overrides: beyond FOUR_RANKS.
    """

    def __init__(self, cluster: Cluster, workplace: Path, name: str, *overrides: str) -> None:
        self.cluster = cluster
        self.run = workplace / "runs" / name
        words = [*FOUR_RANKS, f"run.name={name}", *nodes(2, ranks=4), *overrides]
        (self.job,) = send(cluster, workplace, run_words(workplace, *words))
        self._wait(lambda: bool(self.checkpoints()), "the first checkpoint")
        self.batch_host = cluster.job(self.job, "BatchHost")
        listed = cluster.run("scontrol", "show", "hostnames", cluster.job(self.job, "NodeList"))
        (self.other_host,) = set(listed.split()) - {self.batch_host}

    def fault(self, cause: Callable[[], object]) -> None:
        """Cause a fault; log how long it was until the next step was trained."""
        lives, started = len(events(self.run, "resume")), time.time()
        status = json.loads((self.run / "status.json").read_text())
        assert status["state"] == "running", "the fault came after the end"
        cause()
        self._wait(lambda: len(events(self.run, "resume")) > lives, "the next attempt")
        resumed = int(str(events(self.run, "resume")[-1]["samples_seen"])) // 8
        self._wait(lambda: steps_done(self.run) > resumed, "its first step")
        seconds = time.time() - started
        logging.getLogger(__name__).info("%s: trained again after %.0f s", self.run.name, seconds)

    def end(self) -> None:
        """Wait for the end of the job."""
        state = self.cluster.wait_for_job(self.job, TIMEOUT_SECONDS)
        assert state == "COMPLETED", logs(self.run)
        assert json.loads((self.run / "status.json").read_text())["state"] == "done"

    def checkpoints(self) -> list[Path]:
        """Committed checkpoints."""
        return sorted(self.run.glob("checkpoints/step_*/manifest.json"))

    def excluded(self) -> list[str]:
        """Nodes that the job no longer wants."""
        return (self.run / "slurm" / "excluded_nodes").read_text().split()

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        try:
            self.cluster.wait_for(condition, TIMEOUT_SECONDS, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{logs(self.run)}") from error


def test_a_dead_node_is_excluded_and_the_job_goes_on_with_another(
    cluster: Cluster, workplace: Path, undisturbed: Path
) -> None:
    drill = Drill(cluster, workplace, "node_death")
    drill.fault(cluster.nodes[drill.other_host].kill)
    assert drill.excluded() == [drill.other_host]
    drill.end()
    assert cluster.job(drill.job, "Restarts") == "1"
    assert compared(drill.run) == compared(undisturbed)


@slow
def test_the_death_of_the_node_that_runs_the_script_is_survived_too(
    cluster: Cluster, workplace: Path, undisturbed: Path
) -> None:
    drill = Drill(cluster, workplace, "batch_host_death")
    drill.fault(cluster.nodes[drill.batch_host].kill)
    drill.end()
    assert compared(drill.run) == compared(undisturbed)


@slow
@pytest.mark.parametrize("host", ["other_host", "batch_host"])
def test_a_dead_slurmd_leaves_ranks_or_a_script_that_work_for_nobody(
    host: str, cluster: Cluster, workplace: Path, undisturbed_longer: Path
) -> None:
    drill = Drill(cluster, workplace, f"slurmd_death_{host}", *LONGER)
    drill.fault(cluster.nodes[getattr(drill, host)].kill_daemon)
    drill.end()
    assert compared(drill.run) == compared(undisturbed_longer)


@slow
@pytest.mark.parametrize("host", ["other_host", "batch_host"])
def test_the_checkpoint_of_an_earlier_attempt_that_was_cut_off_is_never_chosen(
    host: str, cluster: Cluster, workplace: Path, undisturbed: Path
) -> None:
    drill = Drill(cluster, workplace, f"network_cut_{host}")
    node = cluster.nodes[getattr(drill, host)]
    drill.fault(node.cut)
    node.heal()  # what is left of the former attempt sees the run folder all the time
    drill.end()
    assert compared(drill.run) == compared(undisturbed)
    chosen = json.loads(drill.checkpoints()[-1].read_text())["generation"]
    assert chosen == len(list((drill.run / "generations").iterdir()))


@slow
def test_a_preempted_run_goes_on_when_the_nodes_are_free_again(
    cluster: Cluster, workplace: Path, undisturbed_longer: Path
) -> None:
    drill = Drill(cluster, workplace, "preemption", "cluster.partition=preemptible", *LONGER)
    script = workplace / "urgent.sh"
    script.write_text("#!/bin/bash\nsleep 5\n")
    urgent = [
        "sbatch",
        "--partition=main",
        "--nodes=4",
        "--exclusive",
        f"--output={workplace}/urgent",
    ]
    drill.fault(lambda: cluster.run(*urgent, str(script)))
    drill.end()
    assert events(drill.run, "stop")
    assert compared(drill.run) == compared(undisturbed_longer)


@slow
def test_a_time_limit_is_stopped_for_and_the_job_goes_back_to_the_queue(
    cluster: Cluster, workplace: Path, undisturbed_longer: Path
) -> None:
    drill = Drill(cluster, workplace, "time_limit", "cluster.signal_seconds=50", *LONGER)
    drill.fault(lambda: cluster.run("scontrol", "update", f"JobId={drill.job}", "TimeLimit=1"))
    cluster.run("scontrol", "update", f"JobId={drill.job}", "TimeLimit=20")
    drill.end()
    assert events(drill.run, "stop")
    assert compared(drill.run) == compared(undisturbed_longer)


@slow
def test_a_requeue_by_an_administrator_costs_a_restart_only(
    cluster: Cluster, workplace: Path, undisturbed: Path
) -> None:
    drill = Drill(cluster, workplace, "requeue")
    drill.fault(lambda: cluster.run("scontrol", "requeue", drill.job))
    drill.end()
    assert cluster.job(drill.job, "Restarts") == "1"
    assert compared(drill.run) == compared(undisturbed)


@slow
def test_with_fewer_nodes_allowed_the_run_shrinks_and_trains_the_same_samples(
    cluster: Cluster, workplace: Path
) -> None:
    expected = compared(train_undisturbed(workplace, "gentle", *GENTLE))
    drill = Drill(cluster, workplace, "shrink", "cluster.min_nodes=1", *GENTLE)
    drill.fault(cluster.nodes[drill.other_host].kill)
    drill.end()
    assert [event["world_size"] for event in events(drill.run, "resume")] == [2]
    assert len(compared(drill.run)) == len(expected)
    for line, other in zip(compared(drill.run), expected, strict=True):
        assert line["samples_seen"] == other["samples_seen"]
        assert line["data/samples_drawn"] == other["data/samples_drawn"]
        assert line["train/loss"] == pytest.approx(other["train/loss"], rel=1e-5)
