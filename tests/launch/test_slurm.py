"""The sbatch script: what it asks for, and what it does with the end of a life, on stand-ins for SLURM's commands.

tests/slurm runs the same scripts on a real cluster.
"""

import json
import os
import shlex
import stat
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from configs import derive
from configs.errors import ConfigError, UserError
from configs.load import load_config
from launch import slurm as module
from launch.slurm import slurm
from launch.sweep import Variant

FOUR_NODES = ("cluster.nodes=4", "cluster.gpus_per_node=2", "optim.global_batch_size=96")


def render(words: list[str], is_chain: bool = False) -> str:
    """The script of one run."""
    run = Variant(words, {}, load_config(words))
    return module.render([run], words, derive.run_name(run.config), run.folder, is_chain)


def directives(*words: str) -> set[str]:
    """The #SBATCH lines, without the mark."""
    script = render(list(words))
    return {line.removeprefix("#SBATCH ") for line in script.splitlines() if "#SBATCH" in line[:8]}


def test_the_published_run_asks_for_its_nodes_and_gpus() -> None:
    lines = directives("experiment=glm_130b", "cluster.account=glm", "cluster.partition=a100")
    assert lines == {
        "--job-name=glm_130b",
        "--partition=a100",
        "--account=glm",
        "--nodes=96",
        "--ntasks-per-node=8",
        "--gpus-per-node=8",
        "--time=24:00:00",
        "--signal=B:USR1@300",
        "--output=runs/glm_130b/slurm/job_%j.txt",
        "--open-mode=append",
        "--requeue",
    }


def test_every_key_of_the_cluster_reaches_the_script() -> None:
    words = [
        *FOUR_NODES,
        "device=cpu",
        "cluster.min_nodes=2",
        "cluster.qos=long",
        "cluster.time=2-00:00:00",
        "cluster.signal_seconds=900",
        "cluster.requeue=false",
        "cluster.exclude=[node7,node9]",
        "cluster.cpus_per_rank=6",
        "cluster.setup=['module load cuda/12.1']",
        "cluster.environment=['NCCL_DEBUG=a b','XDG_CACHE_HOME=/x']",
        "cluster.container=apptainer exec --nv glm.sif",
        "cluster.srun_options=['--mpi=none']",
        "cluster.sbatch_options=['--exclusive']",
        "cluster.max_restarts=5",
    ]
    lines = directives(*words)
    assert {
        "--nodes=2-4",
        "--no-kill",
        "--qos=long",
        "--time=2-00:00:00",
        "--signal=B:USR1@900",
        "--no-requeue",
        "--exclude=node7,node9",
        "--cpus-per-task=6",
        "--exclusive",
    } <= lines
    assert not [line for line in lines if "gpu" in line]
    script = render(words)
    for line in (
        "module load cuda/12.1",
        "export OMP_NUM_THREADS=6",
        "export NCCL_DEBUG='a b'",
        "container=(apptainer exec --nv glm.sif)",
        "srun_options=(--cpus-per-task=6 --mpi=none)",
        "max_restarts=5",
    ):
        assert f"\n{line}\n" in script
    chosen = [*FOUR_NODES, "cluster.cpus_per_rank=6", "cluster.environment=['OMP_NUM_THREADS=2']"]
    assert "OMP_NUM_THREADS=6" not in render(chosen)


@pytest.mark.parametrize(
    ("options", "is_ours"),
    [
        ("--exclusive,--gpu-freq=high", True),
        ("--exclusive,--gres=gpu:a100:8", False),
        ("--gpus-per-task=1", False),
        ("-G8", False),
    ],
)
def test_who_says_how_to_ask_for_gpus_is_not_contradicted(options: str, is_ours: bool) -> None:
    lines = directives("experiment=glm_10b_1node", f"cluster.sbatch_options=[{options}]")
    assert ("--gpus-per-node=8" in lines) == is_ours
    assert set(options.split(",")) <= lines


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["experiment=glm_130b", "cluster.min_nodes=48"],
        ["experiment=glm_10b_1node", "run.name=a b"],
        ["data.paths=['it is $HOME/`x`.txt']", "data.text_key=it's"],
    ],
)
def test_every_script_is_bash_and_hands_over_the_words(words: list[str], tmp_path: Path) -> None:
    script = tmp_path / "script.sh"
    script.write_text(render(words))
    subprocess.run(["bash", "-n", str(script)], check=True)
    line = next(line for line in script.read_text().splitlines() if line.startswith("command=("))
    assert shlex.split(line.removeprefix("command=(").removesuffix(")"))[3:] == words


def test_a_folder_that_slurm_would_read_as_a_pattern_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"must not contain '%'.*run\.name=NAME"):
        render(["run.name=50%"])


def test_without_slurm_here_the_message_says_where_to_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="sbatch is not on this machine"):
        slurm(["--submit"])
    assert (tmp_path / "runs/default/submit.sbatch").is_file()


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("sbatch: error: Invalid account or account/partition combination", "cluster.account=NAME"),
        ("sbatch: error: invalid partition specified: fast", "cluster.partition=NAME"),
        ("allocation failure: Requested node configuration is not available", "cluster.nodes=N"),
    ],
)
def test_a_refused_job_is_one_message_that_says_what_to_type(
    said: str, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command(tmp_path / "bin" / "sbatch", f"echo {shlex.quote(said)} >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with pytest.raises(UserError) as caught:
        slurm(["--submit"])
    assert advice in str(caught.value)
    assert "\n" not in str(caught.value)


def test_each_job_of_a_chain_waits_for_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    body = 'echo "$*" >> calls; case "$*" in *--test-only*) ;; *) wc -l < calls ;; esac'
    command(tmp_path / "bin" / "sbatch", body)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    answer = slurm(["--submit", "--chain", "3"])
    script = "runs/default/submit.sbatch"
    assert (tmp_path / "calls").read_text().splitlines() == [
        f"--test-only {script}",
        f"--parsable {script}",
        f"--parsable --dependency=afterany:2 {script}",
        f"--parsable --dependency=afterany:3 {script}",
    ]
    assert "job 2, then 3, then 4" in answer
    assert "when_stopped=end\n" in Path(script).read_text()


def test_wrong_options_are_named_all_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        slurm(["--sumbit", "--chain"])
    assert caught.value.problems[0].startswith('There is no option "--sumbit" here.')
    assert caught.value.problems[1].startswith("--chain wants a value.")
    with pytest.raises(ConfigError, match=r"--chain \(0\) must be a whole number of at least 1"):
        slurm(["--chain=0"])


# --- what the script does when the ranks have ended


# Asked for an array it answers for each of its tasks; jobs that wait depend on job 77 or on one that does, on another,
# or on none.
SQUEUE = r"""
tasks=1
[ -z "$SLURM_ARRAY_JOB_ID" ] || case "$*" in *'-j 77 '*) tasks=2 ;; esac
case "$*" in
  *%T*) answer=$state ;;
  *%N*) answer=LIST ;;
  *%E*) printf '%s\n' "$waiting"; exit ;;
esac
for _ in $(seq $tasks); do echo "$answer"; done
"""


WAITING = """\
9 (null)
102 afterany:78(unfulfilled)
78 afterany:77(unfulfilled)
79 afterany:177(unfulfilled)
103 afterany:79(unfulfilled)"""
WAITING_ARRAYS = """\
80_1 afterany:77_*(unfulfilled)
80_12 afterany:77_*(unfulfilled)
81_1 afterany:80_*(unfulfilled)
82_1 (null)"""


@dataclass
class Life:
    """One execution of a script against stand-ins.

    Attributes:
        srun: shell lines that stand for the ranks.
        nodes: of the allocation.
        others: nodes of the partition, each `NAME STATE`.
        job: state of the job, as squeue says.
        words: overrides.
        restarts: lives of the job before this one.
        chain: rendered for a chain of jobs.
        before: what a stand-in does first, by its name.
        task: number in a job array of two tasks, whose number SLURM gives this task, too.
        waiting: jobs in the queue, each with its dependencies.
    """

    folder: Path
    srun: str
    nodes: str = "node1\nnode2\nnode3\nnode4"
    others: str = "node1 mix\nnode2 down*\nnode3 mix\nnode4 mix\nnode5 idle\nnode6 idle"
    job: str = "RUNNING"
    words: tuple[str, ...] = ()
    restarts: int = 0
    chain: bool = False
    before: dict[str, str] = field(default_factory=dict)
    task: int | None = None
    waiting: str = WAITING
    code: int = field(default=-1, init=False)
    said: str = field(default="", init=False)

    def live(self) -> "Life":
        words = [*FOUR_NODES, "cluster.preflight=false", *self.words]
        run = self.folder / "runs" / "default"
        run.mkdir(parents=True, exist_ok=True)
        script = run / "submit.sbatch"
        script.write_text(render(words, self.chain))
        bin_ = self.folder / "bin"
        log = f'echo "$(basename "$0") $*" >> {self.folder}/calls\n'
        ranks = f"{log}case \"$*\" in *' true') exit 0 ;; esac\nexport run={run}\n{self.srun}"
        command(bin_ / "srun", ranks)
        command(bin_ / "sinfo", f"printf '%s\\n' {shlex.quote(self.others)}")
        command(
            bin_ / "squeue",
            f"{self.before.get('squeue', '')}state={self.job}\nwaiting={shlex.quote(self.waiting)}{SQUEUE}",
        )
        command(
            bin_ / "scontrol",
            f"[ $1 = show ] || {self.before.get('scontrol', '')}[ $1 = show ] || {log}[ $1 != show ] || cat {self.folder}/nodes",
        )
        command(bin_ / "scancel", log)
        (self.folder / "nodes").write_text(self.nodes + "\n")
        environment = {
            **os.environ,
            "PATH": f"{bin_}:{os.environ['PATH']}",
            "SLURM_JOB_ID": "77",
            "SLURM_JOB_NAME": "default",
            "SLURM_JOB_PARTITION": "main",
            "SLURM_RESTART_COUNT": str(self.restarts),
        }
        if self.task is not None:
            environment |= {"SLURM_ARRAY_JOB_ID": "77", "SLURM_ARRAY_TASK_ID": str(self.task)}
        done = subprocess.run(
            ["bash", str(script)],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.code, self.said = done.returncode, done.stdout + done.stderr
        return self

    @property
    def calls(self) -> list[str]:
        """Stand-ins that acted, in order, without the probes."""
        lines = (self.folder / "calls").read_text().splitlines()
        return [line for line in lines if not line.endswith(" true")]

    @property
    def starts(self) -> int:
        """How often the ranks were started."""
        return len([line for line in self.calls if line.startswith("srun")])


def command(path: Path, body: str) -> None:
    """Make a stand-in for a program."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def status(state: str, samples: int = 0) -> str:
    """Shell line with which the ranks leave a status."""
    text = {"format_version": 1, "state": state, "samples_seen": samples, "message": "state: done"}
    rendered = json.dumps(text, indent=1)[:-2]
    return f"printf '%s,\\n \"time\": %s\\n}}\\n' {shlex.quote(rendered)} $(date +%s.%N) > $run/status.json"


def stop(reason: str) -> str:
    """Shell line with which the ranks record why they stopped."""
    event = json.dumps({"time": 1.0, "event": "stop", "reason": reason})
    return f"echo {shlex.quote(event)} >> $run/events.jsonl"


NODE_FAILURE = "echo 'srun: error: Node failure on node2' >&2; exit 143"
ONCE = "[ $(grep -c '^srun.*train' calls) -gt 1 ] && { " + status("done", 96) + "; exit 0; }\n"


def test_a_finished_run_ends_the_job(tmp_path: Path) -> None:
    life = Life(tmp_path, status("done", 96)).live()
    assert life.code == 0
    assert len(life.calls) == 1
    words = life.calls[0].split()
    for option in (
        "--nodes=4",
        "--nodelist=node1,node2,node3,node4",
        "--ntasks=8",
        "--ntasks-per-node=2",
        "--kill-on-bad-exit=1",
        "--wait=60",
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
    assert Life(tmp_path, "exit 0").live().code == 0


def test_a_request_of_a_former_life_is_forgotten_and_a_persons_holds(
    tmp_path: Path,
) -> None:
    run = tmp_path / "runs" / "default"
    run.mkdir(parents=True)
    for request, is_kept in (("asked by the job script\n", False), ("", True)):
        (run / "stop").write_text(request)
        Life(tmp_path, "[ -e $run/stop ] && touch was_there; exit 0").live()
        assert (tmp_path / "was_there").exists() == is_kept


def test_a_run_stopped_for_the_scheduler_goes_back_to_the_queue(tmp_path: Path) -> None:
    warned = f"kill -USR1 $PPID; sleep 1; [ -e $run/stop ] || exit 1; {stop('the file runs/default/stop')}; {status('stopped', 8)}; exit 75"
    life = Life(tmp_path, warned).live()
    assert life.calls[-1] == "scontrol requeue 77"
    assert life.starts == 1


def test_ranks_that_slurm_stopped_itself_go_back_to_the_queue(tmp_path: Path) -> None:
    life = Life(tmp_path, f"{stop('SIGTERM')}; {status('stopped', 8)}; exit 75").live()
    assert life.calls[-1] == "scontrol requeue 77"


@pytest.mark.parametrize("reason", ["the file runs/default/stop", "run.stop_after_samples"])
@pytest.mark.parametrize("chain", [False, True])
def test_a_run_stopped_by_its_owner_stays_stopped_and_so_does_its_chain(
    tmp_path: Path, reason: str, chain: bool
) -> None:
    ended = f"{stop(reason)}; {status('stopped', 8)}; exit 75"
    life = Life(tmp_path, ended, chain=chain).live()
    assert life.code == 75
    assert life.calls[1:] == ["scancel 78 102"]
    assert "stopped by" in life.said


@pytest.mark.parametrize("signal", ["USR1", "TERM"])
def test_a_stop_that_the_script_asked_for_is_no_persons(tmp_path: Path, signal: str) -> None:
    ended = f"kill -{signal} $PPID; sleep 1; {stop('the file runs/default/stop')}; {status('stopped', 8)}; exit 75"
    life = Life(tmp_path, ended, chain=True).live()
    assert (life.code, len(life.calls)) == (75, 1)


def test_a_job_that_is_being_cancelled_does_not_come_back(tmp_path: Path) -> None:
    life = Life(
        tmp_path, f"{stop('SIGTERM')}; {status('stopped', 8)}; exit 75", job="CANCELLED"
    ).live()
    assert (life.code, len(life.calls)) == (75, 1)


def test_without_requeue_the_message_says_how_to_send_it_again(tmp_path: Path) -> None:
    ended = f"{stop('SIGTERM')}; {status('stopped', 8)}; exit 75"
    words = ("cluster.requeue=false", "cluster.exclude=[node9]")
    life = Life(tmp_path, ended, words=words, waiting="").live()
    assert (life.code, len(life.calls)) == (75, 1)
    assert "send it again with: sbatch runs/default/submit.sbatch\n" in life.said
    life = Life(tmp_path, NODE_FAILURE, words=words, waiting="", task=1).live()
    assert life.code == 75
    sent = "sbatch --array=1 --exclude=node2,node9 runs/default/submit.sbatch"
    assert f"send it again with: {sent}\n" in life.said


def test_without_requeue_the_rest_of_a_chain_does_without_the_failed_node(tmp_path: Path) -> None:
    life = Life(tmp_path, NODE_FAILURE, words=("cluster.requeue=false",), chain=True).live()
    assert life.code == 75
    assert life.calls[1:] == [
        "scontrol update JobId=78 ExcNodeList=node2",
        "scontrol update JobId=102 ExcNodeList=node2",
    ]
    assert "a node failed: the next job of the chain goes on (78)" in life.said


def test_in_a_chain_the_next_job_continues(tmp_path: Path) -> None:
    life = Life(tmp_path, f"{stop('SIGUSR1')}; {status('stopped', 8)}; exit 75", chain=True).live()
    assert (life.code, len(life.calls)) == (75, 1)


@pytest.mark.parametrize("code", [2, 1])
def test_wrong_input_and_bugs_are_not_tried_again_and_end_the_chain(
    tmp_path: Path, code: int
) -> None:
    ended = f"echo 'srun: error: node1: tasks 0-1: Exited with exit code {code}' >&2\n"
    ended += "echo 'srun: error: node2: task 2: Terminated' >&2; exit 143"
    life = Life(tmp_path, ended).live()
    assert life.code == code
    assert life.calls[1:] == ["scancel 78 102"]


def test_a_status_of_a_former_life_decides_nothing(tmp_path: Path) -> None:
    (tmp_path / "runs" / "default").mkdir(parents=True)
    script = f"run={tmp_path}/runs/default; {status('done', 96)}"
    subprocess.run(["bash", "-c", script], check=True)
    ended = "echo 'srun: error: node1: task 0: Exited with exit code 2' >&2; exit 2"
    assert Life(tmp_path, ended).live().code == 2


def test_a_failed_rank_is_started_again_where_it_was(tmp_path: Path) -> None:
    failed = f"{status('failed', 8)}; echo 'srun: error: node3: task 5: Killed' >&2; exit 137"
    life = Life(tmp_path, ONCE + failed).live()
    assert (life.code, life.starts) == (0, 2)
    assert "requeue" not in "".join(life.calls)


def test_a_run_that_never_gets_anywhere_gives_up(tmp_path: Path) -> None:
    failed = f"{status('failed', 8)}; echo 'srun: error: node3: task 5: Killed' >&2; exit 137"
    life = Life(tmp_path, failed, words=("cluster.max_restarts=2",)).live()
    # The first life still brought a checkpoint: from nothing to 8 samples.
    assert (life.code, life.starts) == (3, 4)
    assert "2 restarts in a row brought no new checkpoint" in life.said


def test_lives_that_slurm_ended_are_counted_too(tmp_path: Path) -> None:
    for restarts in range(4):
        life = Life(tmp_path, "kill -9 $PPID", restarts=restarts).live()
        assert life.code == -9
    assert Life(tmp_path, "exit 0", restarts=4).live().code == 3
    # Sent again by hand, after whatever it was is mended, it is another job.
    (tmp_path / "runs/default/slurm/lives").write_text("76 9 0\n")
    assert Life(tmp_path, "exit 0").live().code == 0


def test_a_failed_node_is_excluded_and_the_job_goes_back_to_the_queue(tmp_path: Path) -> None:
    life = Life(tmp_path, NODE_FAILURE, words=("cluster.exclude=[node9]",)).live()
    assert (
        life.calls[-2:]
        == [
            "scontrol requeue 77",
            "scontrol update JobId=77 ExcNodeList=node2,node9",
        ]
        or life.calls[-1] == "scontrol update JobId=77 ExcNodeList=node2,node9"
    )
    excluded = tmp_path / "runs/default/slurm/excluded_nodes"
    assert excluded.read_text() == "node2\n"


def test_a_task_of_an_array_speaks_of_itself_alone(tmp_path: Path) -> None:
    # squeue answers with a line for each task if asked for the array, and scontrol acts on all of them.
    life = Life(tmp_path, NODE_FAILURE, task=1).live()
    assert life.calls[1:] == [
        "scontrol requeue 77_1",
        "scontrol update JobId=77_1 ExcNodeList=node2",
    ]


def test_a_task_that_gives_up_ends_its_own_tasks_in_the_rest_of_a_chain(tmp_path: Path) -> None:
    ended = "echo 'srun: error: node1: tasks 0-1: Exited with exit code 2' >&2; exit 2"
    life = Life(tmp_path, ended, task=1, waiting=WAITING_ARRAYS).live()
    assert life.calls[1:] == ["scancel 80_1 81_1"]


def test_a_failed_node_stays_when_there_are_too_few_others(tmp_path: Path) -> None:
    life = Life(tmp_path, NODE_FAILURE, others="node1 mix\nnode2 down*\nnode3 mix").live()
    assert life.calls[-1] == "scontrol requeue 77"
    assert (tmp_path / "runs/default/slurm/excluded_nodes").read_text() == ""


def test_with_fewer_nodes_allowed_it_goes_on_with_those_that_are_left(tmp_path: Path) -> None:
    loses = f"printf 'node1\\nnode3\\nnode4\\n' > nodes; {NODE_FAILURE}"
    life = Life(tmp_path, ONCE + loses, words=("cluster.min_nodes=2",)).live()
    assert (life.code, life.starts) == (0, 2)
    # 96 rows in micro-batches of 4 on 3 nodes: 6 replicas of 4 accumulated.
    assert "--nodelist=node1,node3,node4" in life.calls[-1].split()
    assert "requeue" not in "".join(life.calls)


def test_a_batch_that_does_not_divide_leaves_a_node_idle(tmp_path: Path) -> None:
    words = ("cluster.min_nodes=2", "optim.global_batch_size=64")
    life = Life(tmp_path, status("done", 64), nodes="node1\nnode3\nnode4", words=words).live()
    assert "--nodelist=node1,node3" in life.calls[0].split()


def test_nodes_are_checked_first_and_bad_ones_left_out(tmp_path: Path) -> None:
    bad = "echo node2 >> ${@: -1}; exit 3"
    check = (
        f'case "$*" in *preflight*) [ $(grep -c preflight calls) -gt 1 ] && exit 0; {bad} ;; esac\n'
    )
    words = ("cluster.preflight=true", "cluster.min_nodes=2")
    life = Life(tmp_path, check + status("done", 96), words=words).live()
    assert life.code == 0
    first, second, train = (line.split() for line in life.calls)
    assert first[first.index("python") :][:4] == ["python", "-m", "launch", "preflight"]
    assert first[-2:] == ["--exclude-file", "runs/default/slurm/excluded_nodes"]
    assert "--nodelist=node1,node2,node3,node4" in first
    assert "--nodelist=node1,node3,node4" in second
    assert "--nodelist=node1,node3,node4" in train
    assert "preflight" not in train


def test_a_bad_node_sends_a_job_that_needs_all_back_to_the_queue(tmp_path: Path) -> None:
    check = 'case "$*" in *preflight*) echo node2 >> "${@: -1}"; exit 3 ;; esac\n'
    life = Life(tmp_path, check + "exit 0", words=("cluster.preflight=true",)).live()
    assert life.calls[-2:] == [
        "scontrol requeue 77",
        "scontrol update JobId=77 ExcNodeList=node2",
    ]
    assert life.starts == 1  # the check


def checked_by(body: str) -> str:
    """Shell lines: what the node check does; the ranks that train end as done."""
    return f'case "$*" in *preflight*) {body} ;; esac\n' + status("done", 96)


def test_nothing_may_kill_the_rank_that_knows_the_verdict_and_nothing_may_outlive_it(
    tmp_path: Path,
) -> None:
    life = Life(tmp_path, checked_by("exit 0"), words=("cluster.preflight=true",)).live()
    assert (life.code, life.starts) == (0, 2)
    assert {"--kill-on-bad-exit=0", "--wait=300"} < set(life.calls[0].split())


@pytest.mark.parametrize("code", [3, 1, 137])
def test_a_check_that_names_no_node_starts_no_training(tmp_path: Path, code: int) -> None:
    life = Life(tmp_path, checked_by(f"exit {code}"), words=("cluster.preflight=true",)).live()
    assert life.calls[-1] == "scontrol requeue 77"
    assert life.starts == 1
    assert f"the node check ended with {code} and names no node" in life.said


def test_a_check_that_never_names_a_node_gives_up(tmp_path: Path) -> None:
    words = ("cluster.preflight=true", "cluster.max_restarts=2")
    for restarts in range(3):
        life = Life(tmp_path, checked_by("exit 3"), words=words, restarts=restarts).live()
        assert life.code == 75
    life = Life(tmp_path, checked_by("exit 3"), words=words, restarts=3).live()
    assert (life.code, life.starts) == (3, 3)
    assert "2 restarts in a row brought no new checkpoint" in life.said


def test_input_that_the_check_refuses_ends_the_job_and_its_chain(tmp_path: Path) -> None:
    refused = "echo 'data.paths (x) does not exist' >&2; exit 2"
    life = Life(tmp_path, checked_by(refused), words=("cluster.preflight=true",)).live()
    assert (life.code, life.starts) == (2, 1)
    assert life.calls[1:] == ["scancel 78 102"]
    assert life.said.index("data.paths (x)") < life.said.index("stands above")


def test_a_node_that_dies_in_the_check_is_left_out(tmp_path: Path) -> None:
    dies = f"[ $(grep -c preflight calls) -gt 1 ] && exit 0; {NODE_FAILURE}"
    words = ("cluster.preflight=true", "cluster.min_nodes=2")
    life = Life(tmp_path, checked_by(dies), words=words).live()
    assert life.code == 0
    assert "--nodelist=node1,node3,node4" in life.calls[-1].split()


def test_a_warning_during_the_check_ends_it_before_training(tmp_path: Path) -> None:
    warned = "kill -USR1 $PPID; sleep 1; touch checked; exit 0"
    life = Life(tmp_path, checked_by(warned), words=("cluster.preflight=true",)).live()
    assert (tmp_path / "checked").exists()
    assert life.calls[-1] == "scontrol requeue 77"
    assert life.starts == 1


def test_a_second_warning_does_not_hide_how_the_ranks_end(tmp_path: Path) -> None:
    warned = (
        "kill -USR1 $PPID; sleep 0.5; kill -USR1 $PPID; sleep 0.5; "
        f"{stop('the file runs/default/stop')}; {status('stopped', 8)}; exit 75"
    )
    life = Life(tmp_path, warned).live()
    assert life.calls[-1] == "scontrol requeue 77"
    assert "ended with 75, status stopped" in life.said


@pytest.mark.parametrize(
    ("words", "is_checked"),
    [([], True), (["device=cpu"], False), (["device=cpu", "cluster.preflight=true"], True)],
)
def test_nodes_with_gpus_are_checked_unless_told_otherwise(
    words: list[str], is_checked: bool
) -> None:
    assert (f"\npreflight={'yes' if is_checked else 'no'}\n") in render(words)


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
def test_a_script_that_slurm_took_for_dead_touches_nothing_of_the_next_life(
    tmp_path: Path, ended: str
) -> None:
    life = Life(tmp_path, OUTLIVED + ended).live()
    assert life.code in (75, 143)
    assert len(life.calls) == 1
    assert not (tmp_path / "runs/default/stop").exists()
    assert (tmp_path / "runs/default/slurm/excluded_nodes").read_text() == ""


def test_a_job_that_was_sent_twice_stays_its_own(tmp_path: Path) -> None:
    """The other job's script says nothing of this job's lives."""
    other = "echo 5 > $run/slurm/job_78_life\n"
    life = Life(tmp_path, other + f"{stop('SIGTERM')}; {status('stopped', 8)}; exit 75").live()
    assert life.calls[-1] == "scontrol requeue 77"


def test_a_controller_that_is_away_is_asked_again(tmp_path: Path) -> None:
    command(tmp_path / "bin" / "sleep", 'exec /bin/sleep "0.$1"')
    away = "[ -e {0} ] || {{ touch {0}; exit 1; }}\n"
    life = Life(
        tmp_path,
        f"{stop('SIGTERM')}; {status('stopped', 8)}; exit 75",
        before={"squeue": away.format("asked"), "scontrol": away.format("requeued")},
    ).live()
    assert life.starts == 1
    assert life.calls[-1] == "scontrol requeue 77"
    assert "--nodelist=node1,node2,node3,node4" in life.calls[0]


def test_when_slurm_ends_the_job_nothing_is_started_and_failed_nodes_are_excluded(
    tmp_path: Path,
) -> None:
    ended = "echo 'srun: error: Node failure on node2' >&2; kill -TERM $PPID; sleep 1; exit 143"
    life = Life(tmp_path, ended, job="PENDING").live()
    assert (life.code, life.starts) == (143, 1)
    assert "scontrol update JobId=77 ExcNodeList=node2" in life.calls
