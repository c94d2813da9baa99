"""On which nodes the sbatch script starts an attempt, on stand-ins for SLURM's commands."""

import json
from pathlib import Path

import pytest

from tests.helpers.slurm_script import NODE_FAILURE, ONCE, Attempt, status


def test_a_failed_node_is_excluded_and_the_job_goes_back_to_the_queue(tmp_path: Path) -> None:
    attempt = Attempt(tmp_path, NODE_FAILURE, words=("cluster.exclude=[node9]",)).live()
    assert (
        attempt.calls[-2:]
        == [
            "scontrol requeue 77",
            "scontrol update JobId=77 ExcNodeList=node2,node9",
        ]
        or attempt.calls[-1] == "scontrol update JobId=77 ExcNodeList=node2,node9"
    )
    excluded = tmp_path / "runs/default/slurm/excluded_nodes"
    assert excluded.read_text() == "node2\n"


def test_a_failed_node_stays_when_there_are_too_few_others(tmp_path: Path) -> None:
    attempt = Attempt(tmp_path, NODE_FAILURE, others="node1 mix\nnode2 down*\nnode3 mix").live()
    assert attempt.calls[-1] == "scontrol requeue 77"
    assert (tmp_path / "runs/default/slurm/excluded_nodes").read_text() == ""


def test_with_fewer_nodes_allowed_it_goes_on_with_those_that_are_left(tmp_path: Path) -> None:
    loses = f"printf 'node1\\nnode3\\nnode4\\n' > nodes; {NODE_FAILURE}"
    attempt = Attempt(tmp_path, ONCE + loses, words=("cluster.min_nodes=2",)).live()
    assert (attempt.code, attempt.starts) == (0, 2)
    # 96 rows in micro-batches of 4 on 3 nodes: 6 replicas of 4 accumulated.
    assert "--nodelist=node1,node3,node4" in attempt.calls[-1].split()
    assert "requeue" not in "".join(attempt.calls)


def test_a_batch_that_does_not_divide_leaves_a_node_idle(tmp_path: Path) -> None:
    words = ("cluster.min_nodes=2", "optim.global_batch_size=64")
    attempt = Attempt(tmp_path, status("done", 64), nodes="node1\nnode3\nnode4", words=words).live()
    assert "--nodelist=node1,node3" in attempt.calls[0].split()


def test_nodes_are_checked_first_and_bad_ones_left_out(tmp_path: Path) -> None:
    bad = "echo node2 >> ${@: -1}; exit 3"
    check = (
        f'case "$*" in *preflight*) [ $(grep -c preflight calls) -gt 1 ] && exit 0; {bad} ;; esac\n'
    )
    words = ("cluster.preflight=true", "cluster.min_nodes=2")
    attempt = Attempt(tmp_path, check + status("done", 96), words=words).live()
    assert attempt.code == 0
    first, second, train = (line.split() for line in attempt.calls)
    assert first[first.index("python") :][:4] == ["python", "-m", "launch", "preflight"]
    assert first[-2:] == ["--exclude-file", "runs/default/slurm/excluded_nodes"]
    assert "--nodelist=node1,node2,node3,node4" in first
    assert "--nodelist=node1,node3,node4" in second
    assert "--nodelist=node1,node3,node4" in train
    assert "preflight" not in train


def test_a_bad_node_sends_a_job_that_needs_all_back_to_the_queue(tmp_path: Path) -> None:
    check = 'case "$*" in *preflight*) echo node2 >> "${@: -1}"; exit 3 ;; esac\n'
    attempt = Attempt(tmp_path, check + "exit 0", words=("cluster.preflight=true",)).live()
    assert attempt.calls[-2:] == [
        "scontrol requeue 77",
        "scontrol update JobId=77 ExcNodeList=node2",
    ]
    assert attempt.starts == 1  # the check


def checked_by(body: str) -> str:
    """Shell lines: what the node check does; the ranks that train end as done."""
    return f'case "$*" in *preflight*) {body} ;; esac\n' + status("done", 96)


def test_nothing_may_kill_the_rank_that_knows_the_verdict_and_nothing_may_outlive_it(
    tmp_path: Path,
) -> None:
    attempt = Attempt(tmp_path, checked_by("exit 0"), words=("cluster.preflight=true",)).live()
    assert (attempt.code, attempt.starts) == (0, 2)
    assert {"--kill-on-bad-exit=0", "--wait=300"} < set(attempt.calls[0].split())


@pytest.mark.parametrize("code", [3, 1, 137])
def test_a_check_that_names_no_node_starts_no_training(tmp_path: Path, code: int) -> None:
    attempt = Attempt(
        tmp_path, checked_by(f"exit {code}"), words=("cluster.preflight=true",)
    ).live()
    assert attempt.calls[-1] == "scontrol requeue 77"
    assert attempt.starts == 1
    assert f"the node check ended with {code} and names no node" in attempt.said


def test_a_check_that_never_names_a_node_gives_up(tmp_path: Path) -> None:
    words = ("cluster.preflight=true", "cluster.max_restarts=2")
    for restarts in range(3):
        attempt = Attempt(tmp_path, checked_by("exit 3"), words=words, restarts=restarts).live()
        assert attempt.code == 75
    attempt = Attempt(tmp_path, checked_by("exit 3"), words=words, restarts=3).live()
    assert (attempt.code, attempt.starts) == (3, 3)
    assert "2 restarts in a row brought no new checkpoint" in attempt.said


def test_input_that_the_check_refuses_ends_the_job_and_its_chain(tmp_path: Path) -> None:
    refused = "echo 'data.paths (x) does not exist' >&2; exit 2"
    attempt = Attempt(tmp_path, checked_by(refused), words=("cluster.preflight=true",)).live()
    assert (attempt.code, attempt.starts) == (2, 1)
    assert attempt.calls[1:] == ["scancel 78 102"]
    assert attempt.said.index("data.paths (x)") < attempt.said.index("stands above")


def test_a_node_that_dies_in_the_check_is_left_out(tmp_path: Path) -> None:
    dies = f"[ $(grep -c preflight calls) -gt 1 ] && exit 0; {NODE_FAILURE}"
    words = ("cluster.preflight=true", "cluster.min_nodes=2")
    attempt = Attempt(tmp_path, checked_by(dies), words=words).live()
    assert attempt.code == 0
    assert "--nodelist=node1,node3,node4" in attempt.calls[-1].split()


def test_a_warning_during_the_check_ends_it_before_training(tmp_path: Path) -> None:
    warned = "kill -USR1 $PPID; sleep 1; touch checked; exit 0"
    attempt = Attempt(tmp_path, checked_by(warned), words=("cluster.preflight=true",)).live()
    assert (tmp_path / "checked").exists()
    assert attempt.calls[-1] == "scontrol requeue 77"
    assert attempt.starts == 1


def slow_attempt(*hosts: str) -> str:
    """Shell lines: a first attempt that names hosts as slow and fails; the next one ends as done."""
    events = [{"event": "start"}]
    events += [
        {"event": "slow_rank", "rank": rank, "host": host, "state": "slow"}
        for rank, host in enumerate(hosts)
    ]
    lines = "\\n".join(json.dumps(event) for event in events)
    return ONCE + f"printf '{lines}\\n' > $run/events.jsonl\n" + status("failed", 32) + "\nexit 3\n"


def test_the_node_of_a_slow_rank_is_left_out_at_the_next_start(tmp_path: Path) -> None:
    words = ("cluster.exclude_slow=true", "cluster.min_nodes=2")
    attempt = Attempt(tmp_path, slow_attempt("node2"), words=words).live()
    assert attempt.code == 0, attempt.said
    assert "node2 was slow: excluded from now on" in attempt.said
    assert (tmp_path / "runs/default/slurm/excluded_nodes").read_text() == "node2\n"
    first, second = (line for line in attempt.calls if "-m train" in line)
    assert "--nodelist=node1,node2,node3,node4" in first.split()
    assert "--nodelist=node1,node3,node4" in second.split()


def test_a_job_that_needs_all_nodes_asks_for_another_in_place_of_a_slow_one(tmp_path: Path) -> None:
    words = ("cluster.exclude_slow=true",)
    attempt = Attempt(tmp_path, slow_attempt("node2"), words=words).live()
    assert attempt.calls[-2:] == [
        "scontrol requeue 77",
        "scontrol update JobId=77 ExcNodeList=node2",
    ]


def test_slow_nodes_stay_unless_asked_and_where_others_are_too_few(tmp_path: Path) -> None:
    for number, (words, others) in enumerate(
        (
            ((), "node1 mix\nnode2 mix\nnode3 mix\nnode4 mix\nnode5 idle"),
            (("cluster.exclude_slow=true",), "node1 mix\nnode2 mix\nnode3 mix\nnode4 mix"),
        )
    ):
        folder = tmp_path / str(number)
        attempt = Attempt(folder, slow_attempt("node2"), words=words, others=others).live()
        assert attempt.code == 0, attempt.said
        assert (folder / "runs/default/slurm/excluded_nodes").read_text() == ""
        assert "requeue" not in "".join(attempt.calls)
