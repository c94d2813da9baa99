"""Section: install the wheels that the machine lacks, and record what it has."""

import importlib.metadata
import importlib.util
import shutil
import subprocess
import sys

from benchmarks.gpu.bench import Bench, output_of

_VERSIONS = ("torch", "triton", "deepspeed", "megatron-core", "numpy", "hydra-core", "msgspec")
# What training on a text that is read as bytes imports.
_NEEDED = ("torch", "deepspeed", "megatron.core", "hydra", "omegaconf", "numpy", "msgspec")
_NEEDED_TOO = ("safetensors", "rich", "yaml")
_QUERY = "name,memory.total,driver_version,clocks.max.sm,clocks.max.mem,power.limit"


def measure(bench: Bench) -> None:
    """Install beside the machine's own packages, without an index and without touching PyTorch."""
    wheels = sorted(bench.wheels.glob("*.whl"))
    target = bench.folder / "packages"
    if wheels:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
        command += ["--upgrade", "--target", str(target), *map(str, wheels)]
        subprocess.run(command, check=True)
        # PYTHONPATH named the folder before it was there.
        importlib.invalidate_caches()
    names = {name: _version(name) for name in _VERSIONS}
    bench.record(
        "machine",
        python=sys.version.split()[0],
        versions=names,
        wheels=len(wheels),
        installed=sorted(
            f"{each.name} {each.version}"
            for each in importlib.metadata.distributions(path=[str(target)])
        ),
        nvidia_smi=output_of(["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader"]),
        compilers={name: shutil.which(name) for name in ("gcc", "g++", "nvcc")},
    )
    missing = [name for name in (*_NEEDED, *_NEEDED_TOO) if not _is_there(name)]
    bench.check("every library that the sections import is there", not missing, missing=missing)
    _look_at_device(bench)
    bench.say(f"PyTorch {names['torch']}, DeepSpeed {names['deepspeed']}, {len(wheels)} wheels")


def _look_at_device(bench: Bench) -> None:
    import torch

    if bench.is_dry:
        bench.record("device", name="CPU", threads=torch.get_num_threads())
        return
    found = torch.cuda.get_device_properties(0)
    bench.record(
        "device",
        name=found.name,
        memory_bytes=found.total_memory,
        multiprocessors=found.multi_processor_count,
        capability=[found.major, found.minor],
        cuda=torch.version.cuda,
        has_bf16=torch.cuda.is_bf16_supported(including_emulation=False),
    )


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
