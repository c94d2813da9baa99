"""What runs on the GPU while some code does: kernels by name, as torch's profiler sees them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


@dataclass(frozen=True)
class Kernel:
    """All launches of one kernel."""

    name: str
    count: int
    milliseconds: float


def kernels_of(call: Callable[[], Any], device: torch.device) -> list[Kernel]:
    """Kernels of a call, those that take longest first; on CPU its operators.

    Empty where the driver lets nobody profile, as in some containers.
    """
    on_cuda = device.type == "cuda"
    activities = [ProfilerActivity.CUDA if on_cuda else ProfilerActivity.CPU]
    with profile(activities=activities) as recorded:
        call()
        if on_cuda:
            torch.cuda.synchronize(device)
    found = []
    for each in recorded.key_averages():
        time = each.self_device_time_total if on_cuda else each.self_cpu_time_total
        if time > 0:
            found.append(Kernel(each.key, each.count, time / 1e3))
    return sorted(found, key=lambda kernel: -kernel.milliseconds)


def is_memory_copy(kernel: Kernel) -> bool:
    """True for copies and fills that the driver does."""
    return kernel.name.startswith(("Memcpy", "Memset"))
