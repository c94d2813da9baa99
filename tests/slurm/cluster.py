"""A real SLURM cluster on one Debian host: munge, slurmctld, and nodes that can die.

Each node has network, hostname, process, mount and IPC namespaces of its own (tests/slurm/node.py), the controller a
network and a hostname; a bridge connects them to the host, where sbatch and squeue need nothing but SLURM_CONF. The
file system is shared, as it is on a cluster. Nothing listens on the host's own interfaces, and everything ends when
the test process ends, even by kill -9.

SLURM 22.05 needs what the configuration below says and no manual does: slurmd loads a cgroup plugin even if nothing
uses cgroups (v1 works with nothing mounted), and a requeued job waits for cred_expire, 121 s unless it is set.
"""

import os
import re
import shutil
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.slurm.node import Network, Node, TiedProcess, wait_until

PACKAGES = "slurmctld slurmd slurm-client munge iproute2"
_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "ip", "unshare")

# What is short for tests: a silent node counts as dead after 5 s, a killed process gets 5 s to end.
_CONFIGURATION = """\
ClusterName=glmtest
SlurmctldHost=controller({controller})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/spool/%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
SlurmdParameters=config_overrides
SlurmdTimeout=5
SlurmctldTimeout=30
MessageTimeout=5
TCPTimeout=1
KillWait=5
InactiveLimit=0
MinJobAge=3600
ReturnToService=2
JobRequeue=1
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
SlurmctldParameters=preempt_send_user_signal
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=node[1-{nodes}] NodeAddr={addresses} CPUs=16 RealMemory=64000 Gres=gpu:8 State=UNKNOWN
PartitionName=main Nodes=node[1-{nodes}] Default=YES PriorityTier=5 PreemptMode=OFF MaxTime=INFINITE
PartitionName=preemptible Nodes=node[1-{nodes}] PriorityTier=1 PreemptMode=REQUEUE GraceTime=20 MaxTime=INFINITE
"""


def why_impossible() -> str | None:
    """Why no cluster can be started here; None if it can."""
    if os.geteuid() != 0:
        return "a cluster of network namespaces needs root"
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} not installed: apt-get install --no-install-recommends {PACKAGES}"
    trial = ["unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "true"]
    if subprocess.run(trial, capture_output=True).returncode:
        return "namespaces cannot be made here (no CAP_SYS_ADMIN)"
    return None


class Cluster:
    """A running cluster.

    Args:
        folder: for its state and logs.
        num_nodes: called node1, node2, ...
    """

    def __init__(self, folder: Path, num_nodes: int) -> None:
        self.folder = folder
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        self._daemons: list[TiedProcess] = []
        self._network: Network | None = None
        self._num_nodes = num_nodes
        self.nodes: dict[str, Node] = {}

    def start(self) -> "Cluster":
        """Start everything and wait until all nodes are idle."""
        for name in ("munge", "state", "spool", "log", "gpu"):
            (self.folder / name).mkdir(parents=True)
        self._network = Network.claim()
        self._configure(self._network)
        self._start_munge()
        self._start_controller(self._network)
        for number in range(1, self._num_nodes + 1):
            node = Node(f"node{number}", 100 + number, self._network, self.folder)
            self.nodes[node.name] = node
            node.start()
        self.wait_for_idle(self._num_nodes)
        return self

    def stop(self) -> None:
        """Kill everything, in any state."""
        for node in self.nodes.values():
            node.kill()
        for daemon in reversed(self._daemons):
            daemon.kill()
        if self._network is not None:
            self._network.release()

    def repair(self) -> None:
        """Bring back every node that is dead, cut off, or without its daemon."""
        for node in self.nodes.values():
            node.kill()
        for node in self.nodes.values():
            node.start()

    def run(self, *words: str, check: bool = True) -> str:
        """Run a client command on the host, which stands for the login node."""
        done = subprocess.run(
            words, env=self.environment, capture_output=True, text=True, timeout=60
        )
        if check and done.returncode:
            raise AssertionError(f"{words} ended with {done.returncode}: {done.stderr}")
        return done.stdout.strip()

    def wait_for_idle(self, num_nodes: int) -> None:
        """Wait until that many nodes are ready for jobs."""

        def is_ready() -> bool:
            return self.run("sinfo", "-h", "-p", "main", "-t", "idle", "-o", "%D", check=False) == (
                str(num_nodes)
            )

        wait_until(is_ready, 60, f"{num_nodes} idle nodes", self.logs)

    def job(self, job: str, field: str) -> str:
        """One field of `scontrol show job`, such as JobState."""
        found = re.search(rf"\b{field}=(\S*)", self.run("scontrol", "show", "job", job))
        assert found, f"job {job} has no {field}"
        return found.group(1)

    def wait_for_job(self, job: str, timeout_seconds: float) -> str:
        """Wait until a job has left the queue; its final state."""

        def has_left() -> bool:
            return not self.run("squeue", "-h", "-j", job, check=False)

        wait_until(has_left, timeout_seconds, f"the end of job {job}", self.logs)
        return self.job(job, "JobState")

    def wait_for(self, condition: Callable[[], bool], timeout_seconds: float, what: str) -> float:
        """Wait for anything; the seconds that it took."""
        started = time.monotonic()
        wait_until(condition, timeout_seconds, what, self.logs)
        return time.monotonic() - started

    def logs(self) -> str:
        """The ends of all daemons' logs, for the message of a failed test."""
        files = sorted((self.folder / "log").iterdir())
        ends = [f"--- {path.name}\n{path.read_text(errors='replace')[-2000:]}" for path in files]
        return "\n".join([self.run("squeue", check=False), *ends])

    def _configure(self, network: Network) -> None:
        text = _CONFIGURATION.format(
            folder=self.folder,
            nodes=self._num_nodes,
            controller=network.address(2),
            addresses=f"{network.prefix}.[101-{100 + self._num_nodes}]",
        )
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        for gpu in range(
            8
        ):  # slurmd believes in a GPU that is a device file; these are /dev/null by another name
            device = self.folder / "gpu" / f"nvidia{gpu}"
            os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        gpus = f"Name=gpu File={self.folder}/gpu/nvidia[0-7] Flags=nvidia_gpu_env\n"
        (self.folder / "gres.conf").write_text(gpus)
        hosts = ["127.0.0.1 localhost", f"{network.address(2)} controller"]
        for number in range(1, self._num_nodes + 1):
            address = network.address(100 + number)
            # PyTorch looks up the name of the IPv4-mapped address of its dual-stack sockets.
            hosts += [f"{address} node{number}", f"::ffff:{address} node{number}.cluster"]
        (self.folder / "hosts").write_text("\n".join(hosts) + "\n")

    def _start_munge(self) -> None:
        folder = self.folder / "munge"
        key = folder / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        shutil.chown(folder, "munge", "munge")
        shutil.chown(key, "munge", "munge")
        for parent in [folder, *folder.parents]:  # pytest's folders are closed to other users
            parent.chmod(parent.stat().st_mode | 0o111)
        user = ["setpriv", "--reuid", "munge", "--regid", "munge", "--clear-groups"]
        names = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log"}
        options = [f"--{option}={folder / name}" for option, name in names.items()]
        self._daemons.append(
            TiedProcess([*user, "munged", "--foreground", *options, f"--seed-file={folder}/seed"])
        )
        wait_until((folder / "socket").exists, 20, "munge")

    def _start_controller(self, network: Network) -> None:
        namespace = network.add("controller", 2)
        hosts = self.folder / "hosts"
        script = f'hostname controller; mount --bind {hosts} /etc/hosts; exec "$@"'
        inside = ["ip", "netns", "exec", namespace, "unshare", "--mount", "--uts"]
        daemon = ["slurmctld", "-D", "-f", str(self.folder / "slurm.conf")]
        self._daemons.append(
            TiedProcess(
                [*inside, "sh", "-c", script, "sh", *daemon], self.folder / "log" / "controller.out"
            )
        )
