"""What the sbatch script does with the end of an attempt, on stand-ins for SLURM's commands."""

import os
import subprocess
from pathlib import Path

import pytest

from launch.slurm import body
from tests.helpers.slurm_script import (
    FOUR_NODES,
    NODE_FAILURE,
    ONCE,
    WAITING_ARRAYS,
    Attempt,
    command,
    status,
    stop,
)


def test_a_finished_run_ends_the_job(tmp_path: Path) -> None:
    attempt = Attempt(tmp_path, status("done", 96)).live()
    assert attempt.code == 0
    assert len(attempt.calls) == 1
    words = attempt.calls[0].split()
    for option in (
        "--nodes=4",
        "--nodelist=node1,node2,node3,node4",
        "--ntasks=8",
        "--ntasks-per-node=2",
        "--kill-on-bad-exit=1",
        "--wait=600",
        "--overlap",
    ):
        assert option in words
    assert words[-len(FOUR_NODES) - 4 :] == [
        "python",
        "-m",
        "train",
        *FOUR_NODES,
        "cluster.preflight=false",
    ]


def test_a_run_that_was_finished_before_ends_the_job_too(tmp_path: Path) -> None:
    assert Attempt(tmp_path, "exit 0").live().code == 0


def test_a_stop_request_of_an_earlier_attempt_is_dropped_and_a_persons_request_is_kept(
    tmp_path: Path,
) -> None:
    run = tmp_path / "runs" / "default"
    run.mkdir(parents=True)
    for request, is_kept in (("asked by the job script\n", False), ("", True)):
        (run / "stop").write_text(request)
        Attempt(tmp_path, "[ -e $run/stop ] && touch was_there; exit 0").live()
        assert (tmp_path / "was_there").exists() == is_kept


def test_a_run_stopped_for_the_scheduler_goes_back_to_the_queue(tmp_path: Path) -> None:
    warned = f"kill -USR1 $PPID; sleep 1; [ -e $run/stop ] || exit 1; {stop('the file runs/default/stop')}; {status('stopped', 8)}; exit 75"
    attempt = Attempt(tmp_path, warned).live()
    assert attempt.calls[-1] == "scontrol requeue 77"
    assert attempt.starts == 1


def test_ranks_that_slurm_stopped_itself_go_back_to_the_queue(tmp_path: Path) -> None:
    attempt = Attempt(tmp_path, f"{stop('SIGTERM')}; {status('stopped', 8)}; exit 75").live()
    assert attempt.calls[-1] == "scontrol requeue 77"


@pytest.mark.parametrize("reason", ["the file runs/default/stop", "run.stop_after_samples"])
@pytest.mark.parametrize("chain", [False, True])
def test_a_run_stopped_by_its_owner_stays_stopped_and_so_does_its_chain(
    tmp_path: Path, reason: str, chain: bool
) -> None:
    ended = f"{stop(reason)}; {status('stopped', 8)}; exit 75"
    attempt = Attempt(tmp_path, ended, chain=chain).live()
    assert attempt.code == 75
    assert attempt.calls[1:] == ["scancel 78 102"]
    assert "stopped by" in attempt.said


@pytest.mark.parametrize("signal", ["USR1", "TERM"])
def test_a_stop_that_the_script_asked_for_is_no_persons(tmp_path: Path, signal: str) -> None:
    ended = f"kill -{signal} $PPID; sleep 1; {stop('the file runs/default/stop')}; {status('stopped', 8)}; exit 75"
    attempt = Attempt(tmp_path, ended, chain=True).live()
    assert (attempt.code, len(attempt.calls)) == (75, 1)


def test_a_job_that_is_being_cancelled_does_not_come_back(tmp_path: Path) -> None:
    attempt = Attempt(
        tmp_path, f"{stop('SIGTERM')}; {status('stopped', 8)}; exit 75", job="CANCELLED"
    ).live()
    assert (attempt.code, len(attempt.calls)) == (75, 1)


def test_without_requeue_the_message_says_how_to_send_it_again(tmp_path: Path) -> None:
    ended = f"{stop('SIGTERM')}; {status('stopped', 8)}; exit 75"
    words = ("cluster.requeue=false", "cluster.exclude=[node9]")
    attempt = Attempt(tmp_path, ended, words=words, waiting="").live()
    assert (attempt.code, len(attempt.calls)) == (75, 1)
    assert "send it again with: sbatch runs/default/submit.sbatch\n" in attempt.said
    attempt = Attempt(tmp_path, NODE_FAILURE, words=words, waiting="", task=1).live()
    assert attempt.code == 75
    sent = "sbatch --array=1 --exclude=node2,node9 runs/default/submit.sbatch"
    assert f"send it again with: {sent}\n" in attempt.said


def test_without_requeue_the_rest_of_a_chain_does_without_the_failed_node(tmp_path: Path) -> None:
    attempt = Attempt(tmp_path, NODE_FAILURE, words=("cluster.requeue=false",), chain=True).live()
    assert attempt.code == 75
    assert attempt.calls[1:] == [
        "scontrol update JobId=78 ExcNodeList=node2",
        "scontrol update JobId=102 ExcNodeList=node2",
    ]
    assert "a node failed: the next job of the chain continues (78)" in attempt.said


def test_in_a_chain_the_next_job_continues(tmp_path: Path) -> None:
    attempt = Attempt(
        tmp_path, f"{stop('SIGUSR1')}; {status('stopped', 8)}; exit 75", chain=True
    ).live()
    assert (attempt.code, len(attempt.calls)) == (75, 1)


@pytest.mark.parametrize("code", [2, 1])
def test_wrong_input_and_bugs_are_not_tried_again_and_end_the_chain(
    tmp_path: Path, code: int
) -> None:
    ended = f"echo 'srun: error: node1: tasks 0-1: Exited with exit code {code}' >&2\n"
    ended += "echo 'srun: error: node2: task 2: Terminated' >&2; exit 143"
    attempt = Attempt(tmp_path, ended).live()
    assert attempt.code == code
    assert attempt.calls[1:] == ["scancel 78 102"]


def test_the_status_of_an_earlier_attempt_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "runs" / "default").mkdir(parents=True)
    script = f"run={tmp_path}/runs/default; {status('done', 96)}"
    subprocess.run(["bash", "-c", script], check=True)
    ended = "echo 'srun: error: node1: task 0: Exited with exit code 2' >&2; exit 2"
    assert Attempt(tmp_path, ended).live().code == 2


def test_a_failed_rank_is_started_again_where_it_was(tmp_path: Path) -> None:
    failed = f"{status('failed', 8)}; echo 'srun: error: node3: task 5: Killed' >&2; exit 137"
    attempt = Attempt(tmp_path, ONCE + failed).live()
    assert (attempt.code, attempt.starts) == (0, 2)
    assert "requeue" not in "".join(attempt.calls)


def test_a_run_that_never_gets_anywhere_gives_up(tmp_path: Path) -> None:
    failed = f"{status('failed', 8)}; echo 'srun: error: node3: task 5: Killed' >&2; exit 137"
    attempt = Attempt(tmp_path, failed, words=("cluster.max_restarts=2",)).live()
    # The first attempt still brought a checkpoint: from nothing to 8 samples.
    assert (attempt.code, attempt.starts) == (3, 4)
    assert "2 restarts in a row brought no new checkpoint" in attempt.said


def test_attempts_that_slurm_ended_are_counted_too(tmp_path: Path) -> None:
    for restarts in range(4):
        attempt = Attempt(tmp_path, "kill -9 $PPID", restarts=restarts).live()
        assert attempt.code == -9
    assert Attempt(tmp_path, "exit 0", restarts=4).live().code == 3
    # Submitted again by hand, after the problem has been fixed, it is another job.
    (tmp_path / "runs/default/slurm/lives").write_text("76 9 0\n")
    assert Attempt(tmp_path, "exit 0").live().code == 0


def test_a_task_of_an_array_reports_itself_only(tmp_path: Path) -> None:
    # squeue answers with a line for each task if asked for the array, and scontrol acts on all of them.
    attempt = Attempt(tmp_path, NODE_FAILURE, task=1).live()
    assert attempt.calls[1:] == [
        "scontrol requeue 77_1",
        "scontrol update JobId=77_1 ExcNodeList=node2",
    ]


def test_a_task_that_gives_up_ends_its_own_tasks_in_the_rest_of_a_chain(tmp_path: Path) -> None:
    ended = "echo 'srun: error: node1: tasks 0-1: Exited with exit code 2' >&2; exit 2"
    attempt = Attempt(tmp_path, ended, task=1, waiting=WAITING_ARRAYS).live()
    assert attempt.calls[1:] == ["scancel 80_1 81_1"]


def test_a_second_warning_does_not_hide_how_the_ranks_end(tmp_path: Path) -> None:
    warned = (
        "kill -USR1 $PPID; sleep 0.5; kill -USR1 $PPID; sleep 0.5; "
        f"{stop('the file runs/default/stop')}; {status('stopped', 8)}; exit 75"
    )
    attempt = Attempt(tmp_path, warned).live()
    assert attempt.calls[-1] == "scontrol requeue 77"
    assert "ended with 75, status stopped" in attempt.said


OUTLIVED = "echo 1 > $run/slurm/job_77_life\n"


@pytest.mark.parametrize(
    "ended",
    [
        "echo 'srun: error: node3: task 5: Killed' >&2; exit 137",
        NODE_FAILURE,
        f"{stop('SIGTERM')}; {status('stopped', 8)}; exit 75",
        "echo 'srun: error: node1: tasks 0-1: Exited with exit code 2' >&2; exit 2",
        "kill -TERM $PPID; sleep 1; exit 143",
        "kill -USR1 $PPID; sleep 1; exit 137",
    ],
    ids=["killed", "node failure", "stopped", "refused", "ended", "warned"],
)
def test_a_script_that_slurm_took_for_dead_does_not_interfere_with_the_next_attempt(
    tmp_path: Path, ended: str
) -> None:
    attempt = Attempt(tmp_path, OUTLIVED + ended).live()
    assert attempt.code in (75, 143)
    assert len(attempt.calls) == 1
    assert not (tmp_path / "runs/default/stop").exists()
    assert (tmp_path / "runs/default/slurm/excluded_nodes").read_text() == ""


def test_a_file_system_that_does_not_answer_is_not_taken_for_another_attempt(
    tmp_path: Path,
) -> None:
    lost = f"rm $run/slurm/job_77_life; {stop('SIGTERM')}; {status('stopped', 8)}; exit 75"
    assert Attempt(tmp_path, lost).live().calls[-1] == "scontrol requeue 77"


def test_a_requeue_that_failed_is_not_repeated_after_a_later_attempt_has_begun(
    tmp_path: Path,
) -> None:
    command(tmp_path / "bin" / "sleep", f"echo 1 > {tmp_path}/runs/default/slurm/job_77_life")
    attempt = Attempt(
        tmp_path,
        f"{stop('SIGTERM')}; {status('stopped', 8)}; exit 75",
        before={"scontrol": "[ -e requeued ] || { touch requeued; exit 1; }\n"},
    ).live()
    assert (attempt.code, len(attempt.calls)) == (75, 1)


def test_a_job_that_was_sent_twice_stays_its_own(tmp_path: Path) -> None:
    """The other job's script says nothing of this job's attempts."""
    other = "echo 5 > $run/slurm/job_78_life\n"
    attempt = Attempt(
        tmp_path, other + f"{stop('SIGTERM')}; {status('stopped', 8)}; exit 75"
    ).live()
    assert attempt.calls[-1] == "scontrol requeue 77"


def test_a_controller_that_is_away_is_asked_again(tmp_path: Path) -> None:
    command(tmp_path / "bin" / "sleep", 'exec /bin/sleep "0.$1"')
    away = "[ -e {0} ] || {{ touch {0}; exit 1; }}\n"
    attempt = Attempt(
        tmp_path,
        f"{stop('SIGTERM')}; {status('stopped', 8)}; exit 75",
        before={"squeue": away.format("asked"), "scontrol": away.format("requeued")},
    ).live()
    assert attempt.starts == 1
    assert attempt.calls[-1] == "scontrol requeue 77"
    assert "--nodelist=node1,node2,node3,node4" in attempt.calls[0]


def test_when_slurm_ends_the_job_nothing_is_started_and_failed_nodes_are_excluded(
    tmp_path: Path,
) -> None:
    ended = "echo 'srun: error: Node failure on node2' >&2; kill -TERM $PPID; sleep 1; exit 143"
    attempt = Attempt(tmp_path, ended, job="PENDING").live()
    assert (attempt.code, attempt.starts) == (143, 1)
    assert "scontrol update JobId=77 ExcNodeList=node2" in attempt.calls


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ('{"message": "\\"state\\": \\"done\\"", "state": "failed"}', "failed"),
        ('{"state":"done"}', "done"),
        ('{\n "state" :\n "stopped"}', "stopped"),
        ('{"state": "$(touch ran)"}', ""),
        ('{"state": ["done"]}', ""),
        ("\x00\xff[[[[", ""),
        ("state", ""),
        ("{}", ""),
    ],
)
def test_any_status_is_read_as_what_it_is_or_as_none(text: str, state: str, tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text(text, "latin-1")
    function = body().partition("\nstatus() {")[2].partition("\n}\n")[0]
    script = f"run=.\nask_run=()\nstatus() {{{function}\n}}\nstatus state"
    done = subprocess.run(
        ["bash", "-uo", "pipefail", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (done.stdout.strip(), done.returncode) == (state, 0 if state else 2)
    assert bool(done.stderr) == (not state)
    assert not (tmp_path / "ran").exists()


def test_a_status_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "default"
    run.mkdir(parents=True)
    os.mkfifo(run / "status.json")
    os.mkfifo(run / "events.jsonl")
    attempt = Attempt(tmp_path, "exit 0").live()
    assert (attempt.code, attempt.starts) == (0, 1), attempt.said


@pytest.mark.parametrize("answer", ["exit 2", "exit 0", "echo done; exit 1"])
def test_an_attempt_whose_status_cannot_be_asked_counts_as_failed(
    tmp_path: Path, answer: str
) -> None:
    """The container lacks Python, or the file system does not answer: nothing is taken for an end that went well."""
    command(tmp_path / "bin" / "python", answer)
    ended = f"{status('done', 96)}; echo 'srun: error: node3: task 5: Killed' >&2; exit 137"
    attempt = Attempt(tmp_path, ended, words=("cluster.max_restarts=1",)).live()
    assert (attempt.code, attempt.starts) == (3, 2)
    assert "status not written" in attempt.said
