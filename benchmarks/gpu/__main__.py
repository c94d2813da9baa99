"""Run one section in this process; the session starts it so:  python -m benchmarks.gpu NAME FOLDER WHEELS [--dry-run]"""

import importlib
import sys
import warnings
from pathlib import Path

from benchmarks.gpu.bench import Bench


def main(words: list[str]) -> None:
    """Run the section."""
    warnings.filterwarnings("ignore", module="megatron|deepspeed|torch")
    name, folder, wheels = words[0], Path(words[1]), Path(words[2])
    bench = Bench(folder, folder / f"{name}.jsonl", "--dry-run" in words, wheels)
    if name != "setup":
        # Before PyTorch is imported, as in `python -m train`.
        from train.world import World, prepare_environment

        prepare_environment(World(), "cpu" if bench.is_dry else "cuda", 0)
    importlib.import_module(f"benchmarks.gpu.{name}").measure(bench)


if __name__ == "__main__":
    main(sys.argv[1:])
