"""What a GPU reaches of its data sheet: fixed shares, those of an H100, for every GPU alike.

An H100 is taken to do 700 TFLOP/s of its 989 in matrix products (the best shapes measured reach 794: stas00's MAMF
table), to move 3.0 TB/s of its 3.35, 350 GB/s of NVLink's 450, and all 50 GB/s of its network.
"""

from dataclasses import dataclass

from configs.hardware import Gpu
from configs.peak_rates import PEAK_RATES

MATMUL_SHARE = 700 / PEAK_RATES["H100"].half
MEMORY_SHARE = 3.0 / 3.35
NODE_SHARE = 350 / 450
NETWORK_SHARE = 50 / 50
# Of the rate of matrix products: fused attention kernels with heads of 128 reach about half of it, forward and
# backward together (Dao 2023, figures 4 to 6).
ATTENTION_SHARE = 0.5


@dataclass(frozen=True)
class Rates:
    """Operations and bytes per second of one GPU."""

    products: float
    """Operations of matrix products."""
    attention: float
    """Operations of fused attention kernels."""
    memory: float
    """Bytes of device memory."""
    node: float
    """Bytes to the other GPUs of the node, per direction."""
    network: float
    """Bytes to other nodes, per direction."""

    @classmethod
    def of(cls, gpu: Gpu) -> "Rates":
        """Apply the shares to a data sheet."""
        products = gpu.peak_tflops * 1e12 * MATMUL_SHARE
        return cls(
            products=products,
            attention=products * ATTENTION_SHARE,
            memory=gpu.memory_gb_per_second * 1e9 * MEMORY_SHARE,
            node=gpu.node_gb_per_second * 1e9 * NODE_SHARE,
            network=gpu.network_gb_per_second * 1e9 * NETWORK_SHARE,
        )
