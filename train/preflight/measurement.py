"""The measurements of ranks, as plain data that is exchanged as JSON."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Measurement:
    """What one rank measured on its own."""

    host: str
    local_rank: int
    device: str
    """Name of the device."""
    num_devices: int | None
    """Number of GPUs that are visible on the node; None on CPU nodes."""
    memory_gib: float | None
    """Total memory of the GPU; None on CPU nodes."""
    free_memory_gib: float | None
    """GPU memory that was free before the measurements."""
    matmul_tflops: float
    memory_gb_per_second: float
    disk_mb_per_second: float | None
    """Write speed in the folder of the runs, on the node's first rank."""
    clock_offset_seconds: float
    """Difference of this clock from rank 0's."""
    versions: dict[str, str]
    disk_error: str = ""
    """Why the folder of the runs cannot be written to, on the node's first rank."""
    device_errors: list[str] = field(default_factory=list[str])
    """Faults that the driver reports, on the node's first rank."""
    notes: list[str] = field(default_factory=list[str])
    """What could not be checked, on the node's first rank."""
    data: dict[str, str] = field(default_factory=dict[str, str])
    """State of each of data.paths: "readable", "absent", or what is wrong."""

    def to_json(self) -> str:
        """Encode."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Measurement":
        """Decode."""
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Traffic:
    """All-reduce bus bandwidths of one rank's node, in GB/s."""

    within_node: float | None
    """Bandwidth within the node; None with one rank per node, or if the all-reduce failed."""
    between_nodes: dict[str, float]
    """Bandwidth by the other node of the pair; pairs whose all-reduce failed are left out."""
    errors: dict[str, str] = field(default_factory=dict[str, str])
    """Reasons of failed all-reduces, by the other node of the pair, or by the node's own name within the node."""

    def to_json(self) -> str:
        """Encode."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Traffic":
        """Decode."""
        values: dict[str, Any] = json.loads(text)
        return cls(**values)


Links = dict[tuple[str, str], str]
"""For each pair of neighbouring nodes why its all-reduce failed; "" if it did not. Names are in alphabetical order."""


def links_of(hosts: Mapping[int, str], traffic: Mapping[int, Traffic]) -> Links:
    """Find the links between nodes; a link has failed if any rank at either end reports it.

    Args:
        hosts: the node of each rank.
        traffic: the bandwidths of the ranks that have reported them.
    """
    links: Links = {}
    for rank, seen in sorted(traffic.items()):
        for other in (*seen.between_nodes, *seen.errors):
            if other != hosts[rank]:
                first, second = sorted((hosts[rank], other))
                links[first, second] = links.get((first, second)) or seen.errors.get(other, "")
    return links


def cut_off(links: Links) -> dict[str, str]:
    """Find the nodes all of whose links have failed while others work; returns the message for each.

    If no link works at all, the network or its settings are the cause, not a single node.
    """
    if all(links.values()):
        return {}
    ends = dict.fromkeys(host for link in links for host in link)
    found: dict[str, str] = {}
    for host in ends:
        failed = {link: why for link, why in links.items() if host in link}
        if all(failed.values()):
            others = " nor ".join(end for link in failed for end in link if end != host)
            found[host] = f"no all-reduce with {others} succeeded: {next(iter(failed.values()))}"
    return found


def dead_links(links: Links, bad_hosts: list[str]) -> list[str]:
    """Messages for failed links between nodes that are otherwise good: the run would wait on them forever."""
    return [
        f"The all-reduce between {first} and {second} failed: {why}"
        for (first, second), why in links.items()
        if why and first not in bad_hosts and second not in bad_hosts
    ]
