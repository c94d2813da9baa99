"""Peak rates of GPUs: dense matrix products in TFLOP/s, as the vendor's data sheets give them, without sparsity.

Half precision is that of tensor cores with fp32 sums. fp32 is that of the plain units: PyTorch uses TF32 only where it is
told to, and nothing here does.
"""

import re
from dataclasses import dataclass

from configs.schema import Precision


@dataclass(frozen=True)
class PeakRates:
    """Of one kind of device, in TFLOP/s."""

    half: float
    """bf16 and fp16."""
    fp32: float
    has_bf16: bool = True
    """False before Ampere: PyTorch then computes bf16 by other means, whose rate is not known."""


# By a part of the driver's device name, such as "NVIDIA H100 80GB HBM3"; the longest part that occurs as a word counts. The
# sources are NVIDIA's data sheets and architecture papers of these names; their figures with sparsity are halved.
PEAK_RATES: dict[str, PeakRates] = {
    "V100": PeakRates(125, 15.7, has_bf16=False),
    "V100-PCIE": PeakRates(112, 14, has_bf16=False),
    "V100S": PeakRates(130, 16.4, has_bf16=False),
    "T4": PeakRates(65, 8.1, has_bf16=False),
    "A100": PeakRates(312, 19.5),
    "A800": PeakRates(312, 19.5),
    "A30": PeakRates(165, 10.3),
    "A10": PeakRates(125, 31.2),
    "A10G": PeakRates(70, 31.2),
    "A40": PeakRates(149.7, 37.4),
    "RTX A6000": PeakRates(154.8, 38.7),
    "L4": PeakRates(121, 30.3),
    "L20": PeakRates(119.5, 59.8),
    "L40": PeakRates(181, 90.5),
    "L40S": PeakRates(362, 91.6),
    "RTX 6000 Ada": PeakRates(364.2, 91.1),
    "RTX 3090": PeakRates(71, 35.6),
    "RTX 4090": PeakRates(165.2, 82.6),
    "RTX 5090": PeakRates(209.5, 104.8),
    "H100": PeakRates(989, 67),
    "H100 PCIe": PeakRates(756, 51),
    "H100 NVL": PeakRates(835, 60),
    "H800": PeakRates(989, 67),
    "H800 PCIe": PeakRates(756, 51),
    "H20": PeakRates(148, 44),
    "GH200": PeakRates(989, 67),
    "H200": PeakRates(989, 67),
    "H200 NVL": PeakRates(835, 60),
    "B200": PeakRates(2250, 75),
    "B300": PeakRates(2250, 75),
    "GB200": PeakRates(2500, 80),
    "GB300": PeakRates(2500, 80),
}


# A slice of a device, and devices that bear another one's name but are slower or faster.
_OTHER_DEVICES = ("MIG", "Ti", "SUPER", "D", "Laptop", "Max-Q")


def peak_tflops_of(device_name: str, precision: Precision = Precision.bf16) -> float | None:
    """Dense peak of a device in TFLOP/s.

    Args:
        device_name: as the driver gives it, such as "NVIDIA A100-SXM4-40GB".
        precision: of the run; `auto` counts as bf16.

    Returns:
        The rate; None if it is not known, as for a slice of a device (MIG).
    """
    if re.search(rf"\b({'|'.join(_OTHER_DEVICES)})\b", device_name):
        return None
    found = [part for part in PEAK_RATES if re.search(rf"\b{re.escape(part)}\b", device_name)]
    if not found:
        return None
    rates = PEAK_RATES[max(found, key=len)]
    if precision is Precision.fp32:
        return rates.fp32
    if precision is not Precision.fp16 and not rates.has_bf16:
        return None
    return rates.half
