"""Which norms survive which learning rates:  python -m benchmarks stability_study --json FILE [--processes N]

Trains every cell of benchmarks/stability/variants.py - a variant of a deep, narrow model, a learning rate, a seed - with
the engine of `python -m train`, one thread each, and records losses and gradient norms of every step. FILE is written
after each cell, and cells that it holds are not trained again: the same command goes on where it was interrupted.
`python -m benchmarks.plots` draws the pictures; docs/stability.md says what they show.
"""

import argparse
import json
import multiprocessing
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.report import Record
from benchmarks.stability.cells import Cell, CellName, train_cell
from benchmarks.stability.outcome import gradient_rows, rows
from benchmarks.stability.variants import GRADIENTS_AT, STEPS, WORDS, cells


def run() -> None:
    """Say what to type: a study is long, and its record is its result."""
    sys.exit(__doc__)


def main(words: list[str]) -> int:
    """Train what FILE lacks, and print the table; returns the exit code."""
    parser = argparse.ArgumentParser("python -m benchmarks stability_study")
    parser.add_argument("--json", type=Path, required=True, metavar="FILE")
    parser.add_argument("--processes", type=int, default=1, metavar="N")
    options = parser.parse_args(words)
    if not options.json.absolute().parent.is_dir():
        parser.error(f"--json {options.json}: there is no folder {options.json.absolute().parent}")
    record, known = Record("stability_study"), read(options.json)
    wanted = [name for name in cells() if name not in known]
    for cell in _trained(wanted, options.processes):
        known[cell.name] = cell
        _write(options.json, record, known)
        end = f"{cell.losses[-1]:.3f}" if cell.is_finite else "not finite"
        print(f"{cell.variant}, {cell.rate:g}, seed {cell.seed}: {end}", flush=True)
    found = list(known.values())
    print("\n".join([*rows(found), *gradient_rows(found, GRADIENTS_AT)]))
    return 0


def read(path: Path) -> dict[CellName, Cell]:
    """The cells of a record; of no file none.

    Raises:
        SystemExit: the record is of another study.
    """
    if not path.exists():
        return {}
    record = json.loads(path.read_text())
    if record["words"] != _words():
        sys.exit(f"{path} is of a study with other settings. Move it away.")
    return {cell.name: cell for cell in (Cell(**values) for values in record["cells"])}


def _write(path: Path, record: Record, known: dict[CellName, Cell]) -> None:
    made = [_rounded(known[name]) for name in cells() if name in known]
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(record.text(steps=STEPS, words=_words(), cells=made) + "\n")
    temporary.replace(path)


def _words() -> dict[str, list[str]]:
    return {variant: list(words) for variant, words in WORDS.items()}


def _rounded(cell: Cell) -> dict[str, Any]:
    """A cell's numbers, with the digits that a picture can show."""
    values = asdict(cell)
    for key in ("losses", "embedding", "rest"):
        values[key] = [float(f"{number:.5g}") for number in values[key]]
    return values


def _trained(wanted: list[CellName], processes: int) -> Iterator[Cell]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, _open) as pool:
        for done in as_completed(
            [pool.submit(_train, name, WORDS[name.variant]) for name in wanted]
        ):
            yield done.result()


_session: Any = None


def _open() -> None:
    """Open this process's session, for all of its cells."""
    global _session
    import torch

    from train.distributed import distributed_session
    from train.topology import Topology
    from train.world import World, prepare_environment

    world = World()
    prepare_environment(world, "cpu")
    torch.set_num_threads(1)
    _session = distributed_session(world, Topology(1, 1, 1, 0), torch.device("cpu")).__enter__()


def _train(name: CellName, words: tuple[str, ...]) -> Cell:
    return train_cell(name, words, _session)
