"""Turn measurements into verdicts, in pure functions, so that every rule has a test.

A node is as good as its worst rank. Speeds are compared with the median of the nodes: equal GPUs differ by a few
percent, a throttled or badly seated one by far more. (GLM-130B's log: 134 TFLOP/s fell to 127 after a node was
replaced, and the slow node had to be found by hand.)
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median, median_low

from train.preflight.measurement import Measurement, Traffic, cut_off, dead_links, links_of

SILENT = "did not answer"


@dataclass(frozen=True)
class NodeLimits:
    """How much worse than the median a node may be."""

    compute: float = 0.9
    """Smallest share of the median matmul rate and memory bandwidth."""
    network: float = 0.7
    """Smallest share of the median all-reduce bandwidth."""
    disk: float = 0.3
    """Smallest share of the median disk speed."""
    memory_size: float = 0.95
    """Smallest share of the median size of a GPU's memory, and of its free memory."""
    clock_seconds: float = 1.0
    """Largest distance from the median clock."""


GPU_LIMITS = NodeLimits()
# On CPU nodes, processes share cores and caches with whatever else runs there.
CPU_LIMITS = NodeLimits(compute=0.4, network=0.2, disk=0.1)


@dataclass(frozen=True)
class Verdict:
    """Speeds and problems of one node."""

    host: str
    matmul_tflops: float | None
    memory_gb_per_second: float | None
    within_node_gb_per_second: float | None
    between_nodes_gb_per_second: float | None
    disk_mb_per_second: float | None
    problems: list[str]
    """Empty: the node may join."""
    notes: list[str]
    """What could not be checked."""


@dataclass(frozen=True)
class Judgement:
    """The result of the check."""

    nodes: list[Verdict]
    """All nodes, in the order of their first ranks."""
    problems: list[str]
    """Problems that no single node causes."""

    @property
    def bad_hosts(self) -> list[str]:
        """The nodes that must not join."""
        return [verdict.host for verdict in self.nodes if verdict.problems]

    @property
    def is_good(self) -> bool:
        """True if the run may start on these nodes."""
        return not self.bad_hosts and not self.problems


def judge(
    hosts: Mapping[int, str],
    ranks: Mapping[int, Measurement],
    traffic: Mapping[int, Traffic],
    silent: Mapping[int, str],
    num_devices: int,
    limits: NodeLimits,
) -> Judgement:
    """Compare the nodes.

    Args:
        hosts: the node of each rank that has started.
        ranks: the measurements of each rank.
        traffic: bandwidths by rank; empty if not all ranks measured themselves.
        silent: ranks that did not answer, with the reason; SILENT if the reason is not known.
        num_devices: GPUs that each node must have at least: one for each of its ranks.
        limits: how much worse than the median a node may be.
    """
    nodes: dict[str, list[int]] = {}
    for rank in sorted(hosts):
        nodes.setdefault(hosts[rank], []).append(rank)
    speeds = {host: _speeds(members, ranks, traffic) for host, members in nodes.items()}
    middle = {name: _median([speed[name] for speed in speeds.values()]) for name in _SHARES}
    usual = _Usual.of(list(ranks.values()), num_devices)
    links = links_of(hosts, traffic)
    lonely = cut_off(links)
    verdicts: list[Verdict] = []
    # A problem that all nodes have is not the fault of any single node.
    excusable: dict[str, list[str]] = {host: [] for host in nodes}
    for host, members in nodes.items():
        found = _slow(speeds[host], middle, limits)
        for rank in members:
            if rank in silent:
                problem = f"rank {rank} {silent[rank]}"
                (found if silent[rank] == SILENT else excusable[host]).append(problem)
            if rank not in ranks:
                continue
            found += _wrong(ranks[rank], usual, limits)
            if rank in traffic and host in traffic[rank].errors:
                excusable[host].append(
                    f"the all-reduce within the node failed: {traffic[rank].errors[host]}"
                )
        if host in lonely:
            found.append(lonely[host])
        notes = [note for rank in members if rank in ranks for note in ranks[rank].notes]
        verdicts.append(_verdict(host, speeds[host], found, notes))
    is_common = len(nodes) > 1 and all(excusable.values())
    if not is_common:
        verdicts = [
            replace(each, problems=list(dict.fromkeys([*each.problems, *excusable[each.host]])))
            for each in verdicts
        ]
    absent = [rank for rank in silent if rank not in hosts]
    problems = _wrong_everywhere(list(ranks.values()), usual)
    if is_common:
        first = next(iter(excusable.values()))[0]
        problems.append(
            f"On every node: {first}. Check what the nodes share: the environment (NCCL_SOCKET_IFNAME), the installation."
        )
    if absent:
        named = ", ".join(map(str, absent))
        problems.append(f"Ranks {named} never started: their nodes are not known.")
    bad_hosts = [verdict.host for verdict in verdicts if verdict.problems]
    return Judgement(verdicts, problems + dead_links(links, bad_hosts))


_SHARES: dict[str, tuple[str, Callable[[NodeLimits], float]]] = {
    "matmul": ("TFLOP/s of matrix products", lambda limits: limits.compute),
    "memory": ("GB/s of memory", lambda limits: limits.compute),
    "within": ("GB/s within the node", lambda limits: limits.network),
    "between": ("GB/s between nodes", lambda limits: limits.network),
    "disk": ("MB/s to disk", lambda limits: limits.disk),
}


def _speeds(
    members: Sequence[int], ranks: Mapping[int, Measurement], traffic: Mapping[int, Traffic]
) -> dict[str, float | None]:
    """The speeds of a node: those of its worst rank; over the network, that with its better neighbour."""
    measured = [ranks[rank] for rank in members if rank in ranks]
    within = [traffic[rank].within_node for rank in members if rank in traffic]
    between = [
        max(traffic[rank].between_nodes.values())
        for rank in members
        if rank in traffic and traffic[rank].between_nodes
    ]
    return {
        "matmul": min((each.matmul_tflops for each in measured), default=None),
        "memory": min((each.memory_gb_per_second for each in measured), default=None),
        "within": min((speed for speed in within if speed is not None), default=None),
        "between": min(between, default=None),
        "disk": _median([each.disk_mb_per_second for each in measured]),
    }


def _slow(
    speeds: Mapping[str, float | None], middle: Mapping[str, float | None], limits: NodeLimits
) -> list[str]:
    found = []
    for name, (unit, share_of) in _SHARES.items():
        speed, usual = speeds[name], middle[name]
        if speed is not None and usual is not None and speed < share_of(limits) * usual:
            found.append(f"{speed:.4g} {unit}, the median is {usual:.4g}")
    return found


@dataclass(frozen=True)
class _Usual:
    """The usual values among the ranks: a rank that differs has a problem; a problem of all ranks is no single node's."""

    num_devices: int
    memory_gib: float | None
    free_memory_gib: float | None
    clock_offset_seconds: float
    versions: dict[str, str]
    readable: set[str]
    """The data.paths that at least one rank can read."""
    is_disk_writable: bool

    @classmethod
    def of(cls, ranks: Sequence[Measurement], num_devices: int) -> "_Usual":
        versions = Counter(version for rank in ranks for version in rank.versions.items())
        has_gpus = any(rank.num_devices is not None for rank in ranks)
        return cls(
            num_devices if has_gpus else 0,
            _median([rank.memory_gib for rank in ranks]),
            _median([rank.free_memory_gib for rank in ranks]),
            # With only two clocks that differ, the lower offset counts as the usual one.
            median_low([rank.clock_offset_seconds for rank in ranks] or [0.0]),
            {name: version for (name, version), _ in reversed(versions.most_common())},
            {path for rank in ranks for path, state in rank.data.items() if state == "readable"},
            any(rank.disk_mb_per_second is not None for rank in ranks),
        )


def _wrong(rank: Measurement, usual: _Usual, limits: NodeLimits) -> list[str]:
    """The problems of a rank other than its speeds."""
    where = f"local rank {rank.local_rank}: "
    found = list(rank.device_errors)
    num_shown = rank.num_devices or 0
    if rank.local_rank == 0 and num_shown < usual.num_devices:
        found.append(f"{num_shown} GPUs, but the run has {usual.num_devices} ranks on each node")
    sizes = (
        ("GiB of GPU memory", rank.memory_gib, usual.memory_gib),
        ("GiB of GPU memory free", rank.free_memory_gib, usual.free_memory_gib),
    )
    for what, size, other in sizes:
        if size is not None and other is not None and size < limits.memory_size * other:
            found.append(f"{where}{size:.4g} {what}, the median is {other:.4g}")
    off = rank.clock_offset_seconds - usual.clock_offset_seconds
    if abs(off) > limits.clock_seconds:
        found.append(f"{where}its clock is {off:+.1f} s off")
    for name, version in rank.versions.items():
        if version != usual.versions[name]:
            found.append(f"{where}{name} is {version}, elsewhere {usual.versions[name]}")
    if rank.disk_error and usual.is_disk_writable:
        found.append(f"it cannot write to {rank.disk_error}")
    for path, state in rank.data.items():
        if state != "readable" and path in usual.readable:
            found.append(f"data.paths: {path}{_state(state)}")
    return found


def _wrong_everywhere(ranks: Sequence[Measurement], usual: _Usual) -> list[str]:
    """Problems that all nodes have: a shared file is damaged, or a shared folder is full."""
    found: dict[str, None] = {}
    for rank in ranks:
        if rank.disk_error and not usual.is_disk_writable:
            found[f"No node can write to {rank.disk_error}"] = None
        for path, state in rank.data.items():
            # A path that is absent everywhere is the name of a data set.
            if state not in ("readable", "absent") and path not in usual.readable:
                found[f"No node can read data.paths: {path}{_state(state)}"] = None
    return list(found)


def _state(state: str) -> str:
    return " is not there" if state == "absent" else f": {state}"


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _verdict(
    host: str, speeds: Mapping[str, float | None], problems: list[str], notes: list[str]
) -> Verdict:
    return Verdict(
        host,
        speeds["matmul"],
        speeds["memory"],
        speeds["within"],
        speeds["between"],
        speeds["disk"],
        list(dict.fromkeys(problems)),
        notes,
    )
