"""The device: which one it is, which precision suits it, how much memory it used. The only file that uses torch.cuda."""

import resource
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from configs.errors import ConfigError
from configs.peak_rates import peak_tflops_of
from configs.schema import DeviceKind, Precision
from train.world import World, sees_only_its_gpus

_MEMORY_ENTRIES = 100_000
"""Allocations that a history of memory holds; the oldest are dropped."""


def resolve_device(kind: DeviceKind, world: World) -> torch.device:
    """Choose this rank's device; CUDA is not started by that.

    Raises:
        ConfigError: there is no GPU although CUDA was asked for, or none for this rank.
    """
    count = torch.cuda.device_count()
    if kind is DeviceKind.cpu or (kind is DeviceKind.auto and count == 0):
        return torch.device("cpu")
    if count == 0:
        raise ConfigError(["device (cuda): no GPU is visible to PyTorch. Try device=cpu."])
    index = 0 if sees_only_its_gpus(world) else world.local_rank
    if index >= count:
        raise ConfigError(
            [
                f"local rank {world.local_rank} has no GPU of its own: {count} are visible. Start at most {count} "
                f"processes a node: python -m train.torchrun --nproc-per-node {count} -m train ..."
            ]
        )
    return torch.device("cuda", index)


def start_device(device: torch.device) -> None:
    """Make it the device that PyTorch means if none is named, which starts CUDA: the environment must be prepared."""
    if device.type == "cuda":
        torch.cuda.set_device(device)


def idle_devices_hint(device: torch.device, world: World) -> str | None:
    """What to type if one process sees several GPUs."""
    count = torch.cuda.device_count() if device.type == "cuda" else 0
    if world.size == 1 and count > 1:
        return (
            f"This process uses one of {count} GPUs. To use all of them: python -m train.torchrun --nproc-per-node {count} "
            "-m train ..."
        )
    return None


def resolve_precision(precision: Precision, device: torch.device) -> tuple[Precision, str]:
    """Resolve `auto` to the fastest precision that the device supports; returns it with the reason."""
    if precision is not Precision.auto:
        return precision, "as configured"
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Precision.bf16, "this GPU supports bf16"
        return Precision.fp16, "this GPU does not support bf16"
    flags = _cpu_flags()
    if "amx_bf16" in flags or "avx512_bf16" in flags:
        return Precision.bf16, "this CPU has bf16 instructions"
    return Precision.fp32, "this CPU has no bf16 instructions"


def make_deterministic(device: torch.device) -> None:
    """Use deterministic kernels on CUDA."""
    if device.type == "cuda":
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False


def device_name(device: torch.device) -> str:
    """Name of the device, for messages."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'' if threads == 1 else 's'}"


def device_count() -> int:
    """GPUs that this process sees."""
    return torch.cuda.device_count()


def total_memory_gib(device: torch.device) -> float | None:
    """Memory of the GPU; None on CPU."""
    if device.type != "cuda":
        return None
    return torch.cuda.get_device_properties(device).total_memory / 2**30


def free_memory_gib(device: torch.device) -> float | None:
    """Free memory of the GPU, which neither this process nor another one holds; None on CPU."""
    if device.type != "cuda":
        return None
    return torch.cuda.mem_get_info(device)[0] / 2**30


def peak_tflops(device: torch.device, precision: Precision = Precision.bf16) -> float | None:
    """Dense peak of this device in TFLOP/s; None if it is not known."""
    if device.type != "cuda":
        return None
    return peak_tflops_of(torch.cuda.get_device_name(device), precision)


def peak_hint(device: torch.device, precision: Precision, configured: float | None) -> str | None:
    """What to type if MFU and HFU will be null on a GPU; on a CPU nobody expects them.

    Args:
        device: of this rank.
        precision: of the run.
        configured: `cluster.peak_tflops`.
    """
    if device.type != "cuda" or configured or peak_tflops(device, precision) is not None:
        return None
    return (
        f"The peak rate of {torch.cuda.get_device_name(device)} in {precision.value} is not known, so MFU and HFU are null. "
        "Try cluster.peak_tflops=NUMBER, its dense TFLOP/s."
    )


def peak_memory_gib(device: torch.device) -> float:
    """Most memory used so far: of PyTorch's allocator on CUDA, of the resident set on CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def cached_memory_gib(device: torch.device) -> float | None:
    """What PyTorch's allocator has reserved on CUDA at most, beyond what was in use at its peak; None on CPU."""
    if device.type != "cuda":
        return None
    return torch.cuda.max_memory_reserved(device) / 2**30 - peak_memory_gib(device)


def record_memory_history() -> None:
    """Begin to record what PyTorch's allocator does on CUDA."""
    torch.cuda.memory._record_memory_history(max_entries=_MEMORY_ENTRIES, stacks="python")


def dump_memory_history(path: Path) -> None:
    """Write what was recorded, and what is allocated; pytorch.org/memory_viz shows it."""
    torch.cuda.memory._dump_snapshot(str(path))


def stop_memory_history() -> None:
    """Record no more."""
    torch.cuda.memory._record_memory_history(enabled=None)


def synchronize(device: torch.device) -> None:
    """Wait for the device, so that times can be measured."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def ahead(batches: Iterable[Any], device: torch.device) -> Iterator[Any]:
    """Move batches, trees of tensors, to the device one before they are asked for; on CPU they stay as they are.

    They travel from pinned memory, so that the device computes meanwhile and the host waits for nothing.
    """
    if device.type == "cpu":
        yield from batches
        return
    waiting = list[Any]()
    for batch in batches:
        waiting.append(_moved(batch, device))
        if len(waiting) > 1:
            yield waiting.pop(0)
    yield from waiting


def _moved(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, Tensor):
        return batch.pin_memory().to(device, non_blocking=True)
    return tuple(_moved(part, device) for part in batch)


class HostTransfer:
    """Copies from a device into host memory while the device computes.

    Args:
        device: of this rank.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._done = torch.cuda.Event() if self._stream is not None else None

    def buffer(self, num_bytes: int) -> Tensor:
        """Host memory that the device can write to by itself: pinned, on CUDA."""
        return torch.empty(num_bytes, dtype=torch.uint8, pin_memory=self._stream is not None)

    def start(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Copy each (device tensor, host buffer): at once on a CPU, after what is queued on CUDA."""
        if self._stream is None or self._done is None:
            for source, buffer in pairs:
                buffer.copy_(source)
            return
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            for source, buffer in pairs:
                buffer.copy_(source, non_blocking=True)
            self._done.record(self._stream)

    def hold_device(self) -> None:
        """Make the device finish the copies before anything that is queued from now on."""
        if self._done is not None:
            torch.cuda.current_stream(self._device).wait_event(self._done)

    def wait(self) -> None:
        """Return once the host buffers are filled."""
        if self._done is not None:
            self._done.synchronize()


class GpuEvents:
    """Marks moments on the stream of the computation, whose distance is known once the device has passed them."""

    def mark(self) -> Any:
        """The moment at which the device has done what is queued now."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, first: Any, last: Any) -> float:
        """Between two moments; waits for the later one."""
        last.synchronize()
        return first.elapsed_time(last) / 1e3


def _cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    line = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return set(line.split())
