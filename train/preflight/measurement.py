"""What ranks measure, as plain data that travels as JSON."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Measurement:
    """One rank, on its own."""

    host: str
    local_rank: int
    device: str
    """Name of the device."""
    num_devices: int | None
    """GPUs that the node shows; None on CPU nodes."""
    memory_gib: float | None
    """Total memory of the GPU; None on CPU nodes."""
    free_memory_gib: float | None
    """Of it, what no process held before this one measured."""
    matmul_tflops: float
    memory_gb_per_second: float
    disk_mb_per_second: float | None
    """Written to the folder of the runs, on the node's first rank."""
    clock_offset_seconds: float
    """This clock less rank 0's."""
    versions: dict[str, str]
    disk_error: str = ""
    """Why the folder of the runs cannot be written to, on the node's first rank."""
    device_errors: list[str] = field(default_factory=list[str])
    """What the driver reports, on the node's first rank."""
    notes: list[str] = field(default_factory=list[str])
    """What could not be looked at, on the node's first rank."""
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
    """All-reduce bandwidths of one rank's node, in GB/s of bus traffic."""

    within_node: float | None
    """None with one rank per node, or if the sum failed."""
    between_nodes: dict[str, float]
    """By the other node of the pair; without those whose sum failed."""
    errors: dict[str, str] = field(default_factory=dict[str, str])
    """Why sums failed, by the other node of the pair; within the node by its own name."""

    def to_json(self) -> str:
        """Encode."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Traffic":
        """Decode."""
        values: dict[str, Any] = json.loads(text)
        return cls(**values)
