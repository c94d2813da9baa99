"""The model beside SwissArmyTransformer 0.2.12's GLM130B:  python -m benchmarks swissarmy [--json FILE]

That library's model is what the released inference code of GLM-130B ran, and it has every part of this one: DeepNorm,
GeGLU, rotary positions, softmax in fp32, scores scaled by depth. Both have the same weights and are given the same rows,
forward and backward, on CPU, in one process of one thread each, which take turns. The ratios are of CPU seconds, theirs
over ours, in three ways:

    as it is    this program's head computes the logits of the targets, the library's those of every position
    targets     both compute those of the targets (in the library by a mixin of ours)
    all         both compute those of every position

The library is installed at the first call, into an environment of its own in the user's cache folder.
"""

import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from benchmarks.report import Record, json_file
from benchmarks.rival.environment import library_python
from benchmarks.rival.process import Worker
from benchmarks.rival.sizes import Size, write_inputs
from benchmarks.rival.worker import HEADS
from benchmarks.trees import summary

ROUNDS = 5
SIZES = (
    Size("8 x 512", 8, 512, 8, 1408, 32_768, 1_024, 2),
    Size("8 x 512, short rows", 8, 512, 8, 1408, 32_768, 512, 4),
    Size("4 x 256, long rows", 4, 256, 4, 704, 8_192, 2_048, 2),
)
PRECISIONS = {"fp32": "float32", "bf16": "bfloat16"}
WAYS = {"as it is": ("targets", "all"), "targets": ("targets", "targets"), "all": ("all", "all")}
"""Our head and theirs."""
BOUND = ("as it is", "targets")
"""Where our head computes the logits of the targets, as `products` does."""
WANTED = {("8 x 512", "fp32", "as it is"): 3.0, ("8 x 512", "fp32", "targets"): 2.2}


@dataclass
class Compared:
    """One size in one precision."""

    size: str
    precision: str
    parameters: int
    """Of each model."""
    logits_differ: float
    """Largest difference of two logits of the targets."""
    largest_logit: float
    losses: dict[str, float] = field(default_factory=dict)
    """Ours and theirs, of the first micro-batch."""
    norms: dict[str, float] = field(default_factory=dict)
    """Of the gradients."""
    ours: dict[str, list[float]] = field(default_factory=lambda: {head: [] for head in HEADS})
    """CPU seconds of each round, by head."""
    theirs: dict[str, list[float]] = field(default_factory=lambda: {head: [] for head in HEADS})
    products: list[float] = field(default_factory=list)
    """CPU seconds of the products with the weights alone, the head's of the targets (benchmarks/rival/worker.py)."""
    attention: list[float] = field(default_factory=list)
    """Of our attention alone."""

    def bounds(self, way: str) -> list[float]:
        """Theirs over the products and the attention alone, in each round: no ratio can be larger with these kernels."""
        parts = zip(self.theirs[WAYS[way][1]], self.products, self.attention, strict=True)
        return [theirs / (products + attention) for theirs, products, attention in parts]

    def ratios(self, way: str) -> list[float]:
        """Theirs over ours in each round."""
        mine, other = WAYS[way]
        return [
            theirs / ours for ours, theirs in zip(self.ours[mine], self.theirs[other], strict=True)
        ]


def run() -> None:
    """Print the table."""
    main([])


def main(words: list[str]) -> int:
    """Run the command; returns the exit code."""
    path = json_file(words)
    python = library_python()
    record = Record("swissarmy")
    print(record.heading())
    found = []
    for size in SIZES:
        for precision in PRECISIONS:
            found.append(compared(size, precision, python, ROUNDS))
            print("\n".join(lines(found[-1])), flush=True)
    if path is not None:
        path.write_text(record.text(compared=[asdict(each) for each in found]) + "\n")
    return 0


def compared(size: Size, precision: str, python: Path, rounds: int) -> Compared:
    """Measure both models.

    Args:
        size: of both.
        precision: of both.
        python: of the library's environment.
        rounds: each has a micro-batch of its own.

    Raises:
        SystemExit: a process failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "inputs.pt"
        write_inputs(size, rounds, inputs)
        with (
            Worker(Path(sys.executable), "ours", inputs, PRECISIONS[precision]) as ours,
            Worker(python, "theirs", inputs, PRECISIONS[precision]) as theirs,
        ):
            workers = {"ours": ours, "theirs": theirs}
            counts = {name: worker.answer()["parameters"] for name, worker in workers.items()}
            assert counts["ours"] == counts["theirs"], counts
            logits = {}
            for name, worker in workers.items():
                place = Path(folder) / name
                worker.ask(rows=0, logits_to=str(place))
                logits[name] = torch.load(place, weights_only=True)
            differ = float((logits["ours"] - logits["theirs"]).abs().max())
            largest = float(logits["ours"].abs().max())
            result = Compared(size.name, precision, counts["ours"], differ, largest)
            for number in range(-1, rounds):  # the first passes allocate
                if number >= 0:
                    alone = ours.ask(rows=number, products=True)
                    result.products.append(alone["cpu"])
                    result.attention.append(alone["attention"])
                for head in HEADS:
                    for name, worker in workers.items():
                        answer = worker.ask(rows=max(number, 0), head=head)
                        if number < 0:
                            result.losses[name], result.norms[name] = answer["loss"], answer["norm"]
                        else:
                            getattr(result, name)[head].append(answer["cpu"])
    return result


def lines(found: Compared) -> Iterator[str]:
    """What is printed of a size in a precision."""
    yield f"{found.size}, {found.precision}, {found.parameters:,} parameters each"
    yield (
        f"  logits differ by {found.logits_differ:.2g} at most (the largest is {found.largest_logit:.2f}); "
        f"losses {found.losses['ours']:.6f} and {found.losses['theirs']:.6f}; "
        f"gradient norms {found.norms['ours']:.6f} and {found.norms['theirs']:.6f}"
    )
    bound = "; ".join(f"{way} {statistics.median(found.bounds(way)):.2f}" for way in BOUND)
    yield (
        f"  products with the weights alone {statistics.median(found.products):.2f} s, attention alone "
        f"{statistics.median(found.attention):.2f} s: were all else free, the ratios would be: {bound}"
    )
    for way, (mine, other) in WAYS.items():
        wanted = WANTED.get((found.size, found.precision, way))
        yield (
            f"  {way:10}{summary(found.ratios(way))}  {statistics.median(found.ours[mine]):.2f} s ours, "
            f"{statistics.median(found.theirs[other]):.2f} s theirs"
            + (f"; wanted: {wanted}" if wanted else "")
        )
