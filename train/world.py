"""Which process this is: the one place that turns the launcher's environment into names.

Understands torchrun (RANK, LOCAL_RANK, WORLD_SIZE), srun (SLURM_PROCID, ...) and a plain process. It imports nothing
heavy, so that a mistake in the command line is reported before PyTorch is loaded.
"""

import contextlib
import ctypes
import itertools
import os
import signal
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from configs.errors import ConfigError
from train.cuda_environment import prepare_cuda

_PR_SET_PDEATHSIG = 1
# If they all fail, one rank of a node signals torchrun; torchrun gives its ranks 30 seconds to end.
_LOCAL_RANK_0_FIRST_SECONDS = 5.0
_TORCHRUN_ENDS_SECONDS = 30.0
# On a busy machine the ranks of a node read the command line seconds apart.
_RANK_0_REPORTS_SECONDS = 20.0
_STARTED, _PROCESS = time.time(), os.getpid()
_attempts = itertools.count()

LOOPBACK = "127.0.0.1"
# Names that the loopback interface has, by system.
_LOOPBACK_INTERFACES = ("lo", "lo0")
# What torchrun calls a run that was given no name: two of them are not the same.
_NO_RUN = "none"


@dataclass(frozen=True)
class Launch:
    """Who started this process: of two attempts of a run that one launcher started, it is known which one is over."""

    job: str = ""
    """SLURM's cluster and job; "" outside."""
    restarts: int = 0
    """How often SLURM has requeued the job."""
    step: int = 0
    """Of the job, since the last requeue."""
    elastic_run: str = ""
    """torchrun's run; "" outside."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "Launch":
        """Read the launcher's variables."""
        variables = os.environ if environment is None else environment
        job = variables.get("SLURM_JOB_ID", "")
        elastic_run = variables.get("TORCHELASTIC_RUN_ID", "")
        return cls(
            f"{variables.get('SLURM_CLUSTER_NAME', '')}:{job}" if job else "",
            _number(variables.get("SLURM_RESTART_COUNT", "")),
            _number(variables.get("SLURM_STEP_ID", "")),
            "" if elastic_run == _NO_RUN else elastic_run,
        )

    def follows(self, previous: "Launch", is_same_host: bool) -> bool:
        """True if the scheduler has ended `previous`, even if its processes may still be running somewhere.

        It requeues a job only when it is over. A batch script starts the next step when the last one has ended; on the
        same host the lock knows better, for two steps can be started at once.
        """
        if not self.job or self.job != previous.job:
            return False
        is_later_step = self.restarts == previous.restarts and self.step > previous.step
        return self.restarts > previous.restarts or (is_later_step and not is_same_host)

    def shares_launcher(self, previous: "Launch") -> bool:
        """True if one job, or one torchrun, has started both."""
        is_same_job = bool(self.job) and self.job == previous.job
        return is_same_job or (bool(self.elastic_run) and self.elastic_run == previous.elastic_run)


@dataclass(frozen=True)
class World:
    """One process among those that train together."""

    rank: int = 0
    """Global rank, 0 .. size - 1."""
    local_rank: int = 0
    """Rank within the node: the index of its GPU."""
    size: int = 1
    """Number of processes."""
    launcher: str = "none"
    """torchrun, slurm or none."""
    launch: Launch = Launch()
    """Who started it."""

    @property
    def is_main(self) -> bool:
        """True on the rank that logs and writes the run folder."""
        return self.rank == 0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "World":
        """Read the launcher's variables.

        Raises:
            ConfigError: the variables of a launcher are there, but incomplete.
        """
        variables = os.environ if environment is None else environment
        if "WORLD_SIZE" in variables:
            launcher = "torchrun" if "TORCHELASTIC_RUN_ID" in variables else "env"
            return cls._from_names(variables, "RANK", "LOCAL_RANK", "WORLD_SIZE", launcher)
        if int(variables.get("SLURM_NTASKS", "1")) > 1 and "SLURM_STEP_ID" in variables:
            return cls._from_names(
                variables, "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS", "slurm"
            )
        return cls(launch=Launch.from_environment(variables))

    @classmethod
    def _from_names(
        cls, variables: Mapping[str, str], rank: str, local_rank: str, size: str, launcher: str
    ) -> "World":
        missing = [name for name in (rank, local_rank, size) if name not in variables]
        if missing:
            raise ConfigError(
                [
                    f"{', '.join(missing)} not set although other launcher variables are. Start several "
                    "processes with: python -m train.torchrun --nproc-per-node N -m train"
                ]
            )
        return cls(
            int(variables[rank]),
            int(variables[local_rank]),
            int(variables[size]),
            launcher,
            Launch.from_environment(variables),
        )


def is_on_one_node(world: World, environment: Mapping[str, str] | None = None) -> bool:
    """True if the launcher's variables say that all ranks are on this machine."""
    variables = os.environ if environment is None else environment
    if world.size == 1 or variables.get("LOCAL_WORLD_SIZE") == str(world.size):
        return True
    if world.launcher == "slurm":
        nodes = variables.get("SLURM_STEP_NUM_NODES") or variables.get("SLURM_NNODES")
        return nodes == "1"
    address = variables.get("MASTER_ADDR", "")
    return address in ("localhost", "::1") or address.startswith("127.")


def sees_only_its_gpus(world: World, environment: Mapping[str, str] | None = None) -> bool:
    """True if the launcher has given each rank of a node GPUs of its own, so that each counts from 0.

    SLURM does with --gpus-per-task, and wrappers that set CUDA_VISIBLE_DEVICES for each rank do. torchrun's ranks share
    what torchrun sees.
    """
    variables = os.environ if environment is None else environment
    if world.launcher == "torchrun":
        return False
    given = _number(variables.get("SLURM_GPUS_PER_TASK", "").rpartition(":")[2])
    if world.launcher == "slurm" and given:
        return True
    visible = variables.get("CUDA_VISIBLE_DEVICES", "")
    is_shared = variables.get("SLURM_GPUS_ON_NODE") == "1" and world.local_rank > 0
    return bool(visible) and "," not in visible and not is_shared


def prepare_environment(world: World, device: str, index: int | None = None) -> None:
    """Set what the libraries read from the environment while they are imported.

    Args:
        world: this process.
        device: "cpu" or "cuda".
        index: of this rank's device among those that it sees; None: its local rank.
    """
    prepare_cuda()  # for programs that have not done so before they imported PyTorch
    # DeepSpeed picks its accelerator at import; left alone it takes CUDA wherever a GPU is visible.
    os.environ["DS_ACCELERATOR"] = device
    # PipelineModule reads LOCAL_RANK; torch.distributed's env:// reads the others (srun sets none of them).
    os.environ.setdefault("RANK", str(world.rank))
    os.environ.setdefault("LOCAL_RANK", str(world.local_rank))
    os.environ.setdefault("WORLD_SIZE", str(world.size))
    if index is not None:
        # PipelineModule takes it for the device's index.
        os.environ["LOCAL_RANK"] = str(index)
    if is_on_one_node(world) and (interface := _loopback_interface()):
        # Left alone, both listen on the address of this machine's name, which others can reach, and which need not exist.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", interface)


def _loopback_interface() -> str | None:
    with contextlib.suppress(OSError):
        names = [name for _, name in socket.if_nameindex()]
        return next((name for name in _LOOPBACK_INTERFACES if name in names), None)
    return None


def let_nccl_fail() -> None:
    """Let a NCCL operation that does not end raise where it is waited for, after the timeout of its group.

    Otherwise PyTorch's watchdog takes the whole process down. Must be set before the group is made.
    """
    os.environ["TORCH_NCCL_BLOCKING_WAIT"] = "1"


class StoreAddress(NamedTuple):
    """Where the launcher's key-value store is."""

    host: str
    port: int
    is_served: bool
    """True if the launcher serves it (torchrun); otherwise rank 0 does."""
    restarts: int
    """How often the launcher that serves it has started the ranks again."""


def store_address() -> StoreAddress | None:
    """Where the ranks meet; None for a process on its own."""
    if not has_rendezvous():
        return None
    is_served = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    restarts = _number(os.environ.get("TORCHELASTIC_RESTART_COUNT", ""))
    return StoreAddress(
        os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_served, restarts
    )


def has_rendezvous() -> bool:
    """True if the launcher said where the ranks meet (MASTER_ADDR and MASTER_PORT)."""
    return "MASTER_ADDR" in os.environ and "MASTER_PORT" in os.environ


def threads_are_chosen() -> bool:
    """True if the user or the launcher fixed the number of CPU threads."""
    return "OMP_NUM_THREADS" in os.environ


def choose_one_thread(num_ranks: int) -> bool:
    """Give each of several ranks of a node one CPU thread, as torchrun does, unless their number was chosen.

    Args:
        num_ranks: of this node.

    Returns:
        True if it was chosen here.
    """
    if num_ranks == 1 or threads_are_chosen():
        return False
    os.environ["OMP_NUM_THREADS"] = "1"
    return True


def die_with_parent(world: World) -> None:
    """Ask Linux to kill this rank when its launcher dies.

    Without this a killed torchrun leaves its ranks training as orphans, and the next start finds the run in use.
    """
    if world.launcher != "torchrun":
        return
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    except (OSError, AttributeError):
        return  # not Linux: torchrun's own clean-up is all there is
    # In a container torchrun may be process 1 itself; any other process 1 adopted this rank.
    if os.getppid() == 1 and not _is_torchrun(1):
        os.kill(os.getpid(), signal.SIGKILL)  # it died before the request was made


def wait_for_rank_0(world: World) -> None:
    """Let rank 0 report what all ranks have found; when rank 0 exits, torchrun ends this rank.

    Does nothing under other launchers, which end no rank because another one has ended, or do so later.
    """
    if world.launcher != "torchrun":
        return
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(_RANK_0_REPORTS_SECONDS)


def end_torchrun(world: World) -> None:
    """Make torchrun end instead of restarting the ranks, as it does on any exit code but 0.

    For errors that would come again. Does nothing under other launchers, or if torchrun has no restart left anyway.
    """
    restarts = _number(os.environ.get("TORCHELASTIC_MAX_RESTARTS", ""))
    if world.launcher != "torchrun" or restarts <= _number(
        os.environ.get("TORCHELASTIC_RESTART_COUNT", "")
    ):
        return
    parent = os.getppid()
    if not _is_torchrun(parent):
        return  # something stands between, which a signal would only hurt
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if world.local_rank:
        time.sleep(
            _LOCAL_RANK_0_FIRST_SECONDS
        )  # a second signal would disturb torchrun while it cleans up
    os.kill(parent, signal.SIGTERM)
    time.sleep(_TORCHRUN_ENDS_SECONDS)  # it ends this process


def launcher_pid(world: World) -> int | None:
    """The torchrun that started this rank; None under another launcher."""
    parent = os.getppid()
    return parent if world.launcher == "torchrun" and _is_torchrun(parent) else None


def _is_torchrun(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"torch" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def node_name(environment: Mapping[str, str] | None = None) -> str:
    """What this node is called: SLURM's name for it, which need not be the host's, or else the host's."""
    variables = os.environ if environment is None else environment
    return variables.get("SLURMD_NODENAME") or socket.gethostname()


def process_start() -> float:
    """When this module was imported, at the beginning of the process; in seconds since the epoch."""
    return _STARTED


def attempt_start() -> float:
    """When the attempt that asks has begun, in seconds since the epoch; each asks once.

    The first attempt of a process began with the process; a later one, or one in a fork, begins here.
    """
    is_first = next(_attempts) == 0 and os.getpid() == _PROCESS
    return _STARTED if is_first else time.time()


def job_end(usual_seconds: int, environment: Mapping[str, str] | None = None) -> float | None:
    """When SLURM ends the job, in seconds since the epoch; None if it does not say.

    Args:
        usual_seconds: the time limit in the configuration, for a SLURM that gives only the start of the job.
        environment: the launcher's variables.
    """
    variables = os.environ if environment is None else environment
    end = _number(variables.get("SLURM_JOB_END_TIME", ""))
    start = _number(variables.get("SLURM_JOB_START_TIME", ""))
    return float(end) if end else float(start + usual_seconds) if start else None


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0
