"""One execution of an sbatch script, on stand-ins for SLURM's commands."""

import json
import os
import shlex
import stat
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from configs import derive
from configs.load import load_config
from launch import slurm as module
from launch.sweep import Variant

FOUR_NODES = ("cluster.nodes=4", "cluster.gpus_per_node=2", "optim.global_batch_size=96")


def render(words: list[str], is_chain: bool = False) -> str:
    """The script of one run."""
    run = Variant(words, {}, load_config(words))
    return module.render([run], words, derive.run_name(run.config), run.folder, is_chain)


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
class Attempt:
    """One execution of a script against stand-ins.

    Attributes:
        srun: shell lines that stand for the ranks.
        nodes: of the allocation.
        others: nodes of the partition, each `NAME STATE`.
        job: state of the job, as squeue says.
        words: overrides.
        restarts: attempts of the job before this one.
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

    def live(self) -> "Attempt":
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
