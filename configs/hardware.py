"""The hardware of a cluster: GPU presets, and the keys of `cluster.*` that replace their numbers.

Memory is what PyTorch reports as the device's total, speeds are the vendors' data sheets: dense bf16 peak, memory
bandwidth, NVLink per direction, and the network of the vendor's usual 8-GPU node divided by 8. Watts are the board's
limit. Prices are round figures of rented GPUs, and failures are those of published logs; both differ by a factor of two
between clusters: set your own.
"""

import difflib
from dataclasses import dataclass, fields, replace

from configs.peak_rates import PEAK_RATES
from configs.schema import ClusterConfig

CUSTOM = "custom"


@dataclass(frozen=True)
class Gpu:
    """One GPU, with its share of the node's network."""

    memory_gib: float
    """Total device memory."""
    peak_tflops: float
    """Dense bf16 or fp16 matrix products, TFLOP/s."""
    memory_gb_per_second: float
    """Device memory bandwidth."""
    node_gb_per_second: float
    """Bandwidth to the other GPUs of the node, per direction."""
    network_gb_per_second: float
    """Bandwidth to other nodes, per direction."""
    watts: float
    """Board power at full load."""
    price_per_hour: float
    """Rent of one GPU, in dollars."""
    mtbf_hours: float
    """Mean time between failures that stop a run, per GPU."""


# Failures: GLM-130B's log counts about ten of nodes and file system in 58 days of 768 GPUs, one in 107,000 GPU hours.
# Llama 3 (Llama team 2024, section 3.3.4) had 419 unexpected interruptions in 54 days of 16,384 H100, one in 50,700.
PRESETS: dict[str, Gpu] = {
    "A100-40G": Gpu(39.5, PEAK_RATES["A100"].half, 1555, 300, 25, 400, 1.5, 107_000),
    "A100-80G": Gpu(79.1, PEAK_RATES["A100"].half, 2039, 300, 25, 400, 2.0, 50_000),
    "H100": Gpu(79.1, PEAK_RATES["H100"].half, 3350, 450, 50, 700, 3.0, 50_000),
    "H200": Gpu(139.8, PEAK_RATES["H200"].half, 4800, 450, 50, 700, 3.5, 50_000),
    "B200": Gpu(178.3, PEAK_RATES["B200"].half, 8000, 900, 50, 1000, 5.0, 50_000),
}

# The key of ClusterConfig that replaces each number of the preset.
KEYS: dict[str, str] = {
    "memory_gib": "gpu_memory_gib",
    "peak_tflops": "peak_tflops",
    "memory_gb_per_second": "gpu_memory_gb_per_second",
    "node_gb_per_second": "node_gb_per_second",
    "network_gb_per_second": "network_gb_per_second",
    "watts": "gpu_watts",
    "price_per_hour": "gpu_price_per_hour",
    "mtbf_hours": "gpu_mtbf_hours",
}


def gpu_of(cluster: ClusterConfig) -> Gpu | None:
    """The cluster's GPU: the preset, with the numbers that `cluster.*` sets; None if `cluster.gpu` is not set."""
    if cluster.gpu is None:
        return None
    given = {name: getattr(cluster, key) for name, key in KEYS.items()}
    known = {name: value for name, value in given.items() if value is not None}
    if cluster.gpu == CUSTOM:
        return Gpu(**known)
    return replace(PRESETS[cluster.gpu], **known)


def gpu_problems(cluster: ClusterConfig) -> list[str]:
    """Check that the GPU is a preset or fully described."""
    if cluster.gpu is None:
        return []
    if cluster.gpu == CUSTOM:
        missing = [
            f"cluster.{KEYS[part.name]}"
            for part in fields(Gpu)
            if getattr(cluster, KEYS[part.name]) is None
        ]
        if not missing:
            return []
        example = PRESETS["A100-80G"]
        values = {f"cluster.{key}": getattr(example, name) for name, key in KEYS.items()}
        typed = " ".join(f"{key}={values[key]:g}" for key in missing)
        return [f"cluster.gpu ({CUSTOM}) needs {', '.join(missing)}. Try (an A100's) {typed}."]
    if cluster.gpu in PRESETS:
        return []
    by_lower = {name.lower(): name for name in (*PRESETS, CUSTOM)}
    asked = cluster.gpu.lower()
    near = [name for name in by_lower if name.startswith(asked) or asked.startswith(name)]
    near = near or difflib.get_close_matches(asked, by_lower, n=2, cutoff=0.3)
    nearest = [by_lower[name] for name in near] or list(PRESETS)
    return [
        f"cluster.gpu ({cluster.gpu}) is not known: {', '.join(PRESETS)}, or {CUSTOM} with all its numbers. "
        f"Try cluster.gpu={' or cluster.gpu='.join(nearest)}."
    ]
