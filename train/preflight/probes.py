"""The measurements of a single rank: matrix products, memory, disk, versions, data. They take seconds."""

import hashlib
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch

from configs import derive
from configs.schema import Config
from data_pipeline.storage.shards import is_shard, open_stream
from train.device import device_count, device_name, free_memory_gib, synchronize, total_memory_gib
from train.preflight.driver import DriverReport, driver_report, driver_version
from train.preflight.measurement import Measurement, Traffic
from train.preflight.meeting import Meeting
from train.preflight.network import measure_traffic
from train.world import World, sees_only_its_gpus

_REPEATS = 5
_PACKAGES = ("torch", "deepspeed", "megatron-core", "numpy")
_ROOT = Path(__file__).parents[2]
_DISK_BYTES = 1 << 26


@dataclass(frozen=True)
class Probes:
    """The measurements of a rank; tests replace them."""

    num_devices: Callable[[torch.device], int | None] = lambda device: num_devices(device)
    matmul_tflops: Callable[[torch.device], float] = lambda device: matmul_tflops(device)
    memory_gb_per_second: Callable[[torch.device], float] = lambda device: memory_speed(device)
    total_memory_gib: Callable[[torch.device], float | None] = total_memory_gib
    free_memory_gib: Callable[[torch.device], float | None] = free_memory_gib
    disk_mb_per_second: Callable[[Path], float] = lambda folder: disk_speed(folder)
    traffic: Callable[[Meeting, torch.device, Sequence[str], float], Traffic] = measure_traffic
    now: Callable[[], float] = time.time
    versions: Callable[[], dict[str, str]] = lambda: versions()
    driver: Callable[[torch.device], DriverReport] = lambda device: (
        driver_report() if device.type == "cuda" else DriverReport()
    )


def measure(config: Config, meeting: Meeting, device: torch.device, probes: Probes) -> Measurement:
    """Measure this rank; the disk and the driver only on the first rank of each node.

    Args:
        config: configuration of the run, whose folder and data are checked.
        meeting: the open store.
        device: device of this rank.
        probes: the measurements.
    """
    offset = meeting.clock_offset_seconds(probes.now)
    is_first = meeting.world.local_rank == 0
    free = probes.free_memory_gib(device)  # before the measurements allocate memory
    driver = probes.driver(device) if is_first else DriverReport()
    disk, disk_error = _disk(Path(derive.run_dir(config)), probes) if is_first else (None, "")
    return Measurement(
        host=meeting.host,
        local_rank=meeting.world.local_rank,
        device=device_name(device),
        num_devices=_node_devices(config, meeting.world, device, probes),
        memory_gib=probes.total_memory_gib(device),
        free_memory_gib=free,
        matmul_tflops=probes.matmul_tflops(device),
        memory_gb_per_second=probes.memory_gb_per_second(device),
        disk_mb_per_second=disk,
        clock_offset_seconds=offset,
        versions=probes.versions(),
        disk_error=disk_error,
        device_errors=driver.problems,
        notes=driver.notes,
        data={path: data_state(path) for path in config.data.paths},
    )


def _disk(folder: Path, probes: Probes) -> tuple[float | None, str]:
    try:
        return probes.disk_mb_per_second(folder), ""
    except OSError as error:
        return None, f"{folder}: {error.strerror}"


def _node_devices(config: Config, world: World, device: torch.device, probes: Probes) -> int | None:
    """Number of GPUs of this node; if each rank sees only its own GPU, the number of ranks."""
    seen = probes.num_devices(device)
    return derive.ranks_per_node(config) if seen and sees_only_its_gpus(world) else seen


def num_devices(device: torch.device) -> int | None:
    """Number of GPUs that are visible on this node; None if the ranks compute on its CPUs."""
    return device_count() if device.type == "cuda" else None


def matmul_tflops(device: torch.device) -> float:
    """Rate of a square matrix product, the best of several."""
    is_gpu = device.type == "cuda"
    size, dtype = (8192, torch.bfloat16) if is_gpu else (1024, torch.float32)
    left, right = (torch.full((size, size), 0.5, dtype=dtype, device=device) for _ in range(2))
    seconds = _best_seconds(lambda: torch.matmul(left, right), device)
    return 2 * size**3 / seconds / 1e12


def memory_speed(device: torch.device) -> float:
    """Memory bandwidth of a copy in GB/s, read and write together, the best of several."""
    source = torch.zeros(
        1 << (30 if device.type == "cuda" else 26), dtype=torch.uint8, device=device
    )
    target = torch.empty_like(source)
    return 2 * source.numel() / _best_seconds(lambda: target.copy_(source), device) / 1e9


def disk_speed(folder: Path) -> float:
    """Write speed to disk, in MB/s, in the folder of the run or its nearest existing parent.

    Raises:
        OSError: the folder cannot be written to.
    """
    place = next((parent for parent in (folder, *folder.parents) if parent.is_dir()), Path())
    block = bytes(1 << 20)
    started = time.perf_counter()
    with tempfile.TemporaryFile(dir=place) as file:
        for _ in range(_DISK_BYTES // len(block)):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return _DISK_BYTES / (time.perf_counter() - started) / 1e6


def versions() -> dict[str, str]:
    """The versions that must be equal on all nodes: of Python, the libraries, the driver, and this program."""
    found = {"python": platform.python_version(), "glm-pretraining": _source_digest()}
    for package in _PACKAGES:
        found[package] = metadata.version(package)
    driver = driver_version()
    if driver is not None:
        found["driver"] = driver
    return found


def data_state(path: str) -> str:
    """Try to read the first and last token of shards, or a byte of a file; see `Measurement.data`."""
    try:
        if is_shard(path):
            stream = open_stream(path)
            stream.read(0, 1)
            stream.read(max(len(stream) - 1, 0), len(stream))
            return "readable"
        if Path(path).is_file():
            with Path(path).open("rb") as file:
                file.read(1)
            return "readable"
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return "absent"


def _best_seconds(work: Callable[[], object], device: torch.device) -> float:
    best = float("inf")
    for _ in range(_REPEATS + 1):  # the first one is a warm-up
        synchronize(device)
        started = time.perf_counter()
        work()
        synchronize(device)
        best = min(best, time.perf_counter() - started)
    return best


def _source_digest() -> str:
    digest = hashlib.blake2b(digest_size=6)
    for package in ("configs", "data_pipeline", "glm", "launch", "train"):
        for path in sorted((_ROOT / package).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()
