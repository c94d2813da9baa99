"""The sections of a GPU session: in order of value, each with the seconds by which it must be over."""

from dataclasses import dataclass

MOST_SECONDS = 280
"""Of a whole session: two fit in a quarter of an hour, with the start of the machine."""


@dataclass(frozen=True)
class Section:
    """One part of a session; `benchmarks/gpu/NAME.py` measures it."""

    name: str
    seconds: int
    """Its share of the session; what earlier sections leave over is added."""
    tells: str
    """What is known once it has run."""


SECTIONS = (
    Section("setup", 15, "libraries, driver, compilers"),
    Section("attention", 54, "FlexAttention against the reference, its times and its recompiles"),
    Section("training", 44, "python -m train in bf16 and fp16, host syncs, determinism"),
    Section("layer", 42, "a 130B layer in the engine: MFU, memory, kernels, recompute, dropout"),
    Section("fused", 30, "kernels and bytes of every fused function"),
    Section("stage", 25, "a middle stage of the 768-GPU run, without communication"),
    Section("rates", 12, "rates of matrix products and of memory"),
    Section("save", 30, "a save while training goes on, kill -9 and resume"),
    Section("dropout", 14, "dropout masks, products that are added up in fp32"),
    Section("weights", 12, "initial weights: rate, and equality with a CPU's"),
)

NEVER = (
    "NCCL and everything between GPUs: sums over tensor-parallel ranks, transfers between stages, reductions",
    "loss curves longer than a few steps",
    "Apex, and GPUs other than this one",
)
"""What one GPU cannot show."""


def deadlines(sections: tuple[Section, ...] = SECTIONS) -> list[int]:
    """Seconds after the start of the session by which each section is over."""
    found, total = list[int](), 0
    for section in sections:
        total += section.seconds
        found.append(total)
    return found
