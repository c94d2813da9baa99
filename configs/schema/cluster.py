"""The cluster: nodes, jobs, hardware."""

from dataclasses import dataclass, field
from typing import Annotated

from configs.bounds import AT_LEAST_1, Count, at_most, not_negative, plausible


@dataclass
class ClusterConfig:
    """The cluster of the run: used by `python -m launch`, and by the MFU metric."""

    nodes: Annotated[int, AT_LEAST_1, at_most(10**6, usual=8)] = 1
    """Number of nodes."""
    gpus_per_node: Annotated[int, AT_LEAST_1, at_most(10**4, usual=8)] = 1
    """Ranks per node (GPUs, or processes on a CPU node)."""
    min_nodes: Count | None = None
    """Fewest nodes on which the run may start or continue when others are missing: the batches stay the same, with fewer
    replicas. null: all nodes are needed."""
    tp_across_nodes: bool = False
    """Allow tensor parallelism over the network between nodes, which is slow: each layer waits for it four times."""
    partition: str | None = None
    """SLURM partition."""
    account: str | None = None
    """SLURM account."""
    qos: str | None = None
    """SLURM quality of service."""
    time: str = "24:00:00"
    """SLURM time limit: minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS."""
    signal_seconds: Count = 300
    """How long before the time limit the run is asked to save and stop, in seconds: enough for a step, a save and a
    minute, by which SLURM's warning may be late."""
    requeue: bool = True
    """Requeue the job automatically after a stop for the scheduler or the failure of a node."""
    max_restarts: Annotated[int, not_negative(3)] = 3
    """Number of restarts in a row without a new checkpoint after which a job gives up."""
    exclude: list[str] = field(default_factory=list[str])
    """Nodes that SLURM must not use, each entry a name or a list such as nid[0001-0008,12]."""
    preflight: bool | None = None
    """Begin each attempt of a job with `python -m launch preflight`, and leave out the nodes that fail it. null: yes,
    unless device is cpu."""
    cpus_per_rank: Count | None = None
    """CPU cores of each rank; also OMP_NUM_THREADS, unless `environment` sets it. null: the partition's default."""
    setup: list[str] = field(default_factory=list[str])
    """Shell lines to run before the ranks start, such as [module load cuda/12.1,source .venv/bin/activate]."""
    environment: list[str] = field(default_factory=list[str])
    """Environment variables of all ranks, such as [NCCL_SOCKET_IFNAME=ib0,XDG_CACHE_HOME=/shared/cache]."""
    container: str | None = None
    """Prefix that runs a command in a container, such as `apptainer exec --nv glm.sif`."""
    srun_options: list[str] = field(default_factory=list[str])
    """Further options of srun, such as [--container-image=glm.sqsh]."""
    sbatch_options: list[str] = field(default_factory=list[str])
    """Further #SBATCH lines, such as [--exclusive,--reservation=glm]."""
    hostfile: str | None = None
    """Clusters without a scheduler: file with a line `HOST` or `HOST slots=N` for each node."""
    image: str | None = None
    """Kubernetes: image with this program and its libraries."""
    volume: str | None = None
    """Kubernetes: `CLAIM:PATH`, a persistent volume claim that all pods mount at PATH; the run starts in that folder."""
    namespace: str = "default"
    """Kubernetes namespace."""
    gpu: str | None = None
    """GPU of the cluster, for estimates: A100-40G, A100-80G, H100, H200, B200, or custom with all the numbers below."""
    gpu_memory_gib: Annotated[float, plausible(80)] | None = None
    """Memory of one GPU; null: the preset's."""
    peak_tflops: Annotated[float, plausible(312)] | None = None
    """Dense peak of one device in TFLOP/s, for MFU and HFU; null: known for common GPUs, else MFU is null."""
    gpu_memory_gb_per_second: Annotated[float, plausible(2039)] | None = None
    """Memory bandwidth of one GPU; null: the preset's."""
    node_gb_per_second: Annotated[float, plausible(300)] | None = None
    """Bandwidth between GPUs of a node, per GPU and direction; null: the preset's."""
    network_gb_per_second: Annotated[float, plausible(25)] | None = None
    """Bandwidth between nodes, per GPU and direction; null: the preset's."""
    gpu_watts: Annotated[float, plausible(400)] | None = None
    """Power of one GPU at full load; null: the preset's."""
    gpu_price_per_hour: Annotated[float, plausible(2)] | None = None
    """Price of a GPU hour in dollars; null: the preset's round figure."""
    gpu_mtbf_hours: Annotated[float, plausible(50000)] | None = None
    """Mean time between failures per GPU, in hours; null: the preset's, from published logs."""
    storage_gb_per_second: Annotated[float, plausible(10)] | None = None
    """Write speed of the shared storage, all nodes together; null: 1 per node, at most 50."""
    restart_minutes: Annotated[float, plausible(15)] = 15.0
    """Time from a failure to the next step, in minutes: detection, requeue and loading."""
    host_memory_gib: Annotated[float, plausible(1000)] | None = None
    """Memory of a node, to check that a checkpoint's copy fits; null: not checked."""
    measured_seconds_per_step: Annotated[float, plausible(10)] | None = None
    """Measured seconds per step of the full batch; the estimate then derives MFU, days and cost from them."""
    exclude_slow: bool = False
    """Leave out the nodes of ranks that the last attempt has named as slow (docs/stability.md#silent-errors-and-slow-ranks), as far as enough others
    are there: the SLURM script excludes them at its next start."""
