"""How many samples a second one core builds, against the original algorithm in plain Python.

    python -m benchmarks data_sampling

Rows of 2048 tokens at the published mix of 30 % [MASK] and 70 % [gMASK], from tokens in memory: no disk is measured.
Both run in turns, and the processor's time is counted, not the clock's: what else the machine does matters little.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks import plain_collator
from configs.schema import ObjectiveConfig, SliceRule
from data_pipeline.dataset import GLMDataset, Source
from data_pipeline.special_tokens import SpecialTokens

SPECIAL = SpecialTokens(mask=1, gmask=2, sop=3, eop=4, eos=5, pad=0)
NUM_TOKENS, FIRST_TOKEN, VOCAB_SIZE = 4_000_000, 10, 150_000
ROUNDS, SAMPLES_PER_ROUND = 7, 400


@dataclass(frozen=True)
class ArrayStream:
    """Tokens in memory."""

    tokens: np.ndarray
    fingerprint: str = "random"

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.tokens)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Tokens [start, stop)."""
        return self.tokens[start:stop]


def builders(stream: ArrayStream) -> dict[str, Callable[[int], object]]:
    """What is measured: the sample of an index, by name."""

    def ours(**settings: object) -> Callable[[int], object]:
        objective = ObjectiveConfig(**settings)  # pyright: ignore[reportArgumentType]
        dataset = GLMDataset([Source("text", stream)], SPECIAL, objective, 2048, seed=1)
        return dataset.__getitem__

    def plain(
        build: Callable[..., plain_collator.Row],
    ) -> Callable[[int], object]:
        def row(index: int) -> object:
            start = index * plain_collator.STORED % (len(stream) - plain_collator.STORED)
            stored = stream.tokens[start : start + plain_collator.STORED].tolist()
            return build(random.Random(index), stored, SPECIAL)

        return row

    return {
        "plain, mix": plain(plain_collator.build_row),
        "plain, [MASK]": plain(plain_collator.mask_row),
        "plain, [gMASK]": plain(plain_collator.gmask_row),
        "ours, mix": ours(),
        "ours, [MASK]": ours(gmask_share=0.0),
        "ours, [gMASK]": ours(gmask_share=1.0),
        "ours, mix, slice_rule=glm_130b": ours(slice_rule=SliceRule.glm_130b),
    }


def measure(rounds: int = ROUNDS, samples: int = SAMPLES_PER_ROUND) -> dict[str, float]:
    """Samples per second of processor time, the best of several rounds in which all take turns."""
    tokens = np.random.default_rng(0).integers(FIRST_TOKEN, VOCAB_SIZE, NUM_TOKENS, dtype=np.int32)
    measured = builders(ArrayStream(tokens))
    best = dict.fromkeys(measured, 0.0)
    for round_number in range(rounds):
        for name, build in measured.items():
            first = round_number * samples
            started = time.process_time()
            for index in range(first, first + samples):
                build(index)
            best[name] = max(best[name], samples / (time.process_time() - started))
    return best


def run() -> None:
    """Print the figures of docs/benchmarks.md."""
    speeds = measure()
    print(f"{'samples/s on one core, rows of 2048':<36}")
    for name, speed in speeds.items():
        print(f"  {name:<34} {speed:>8,.0f}")
    for kind in ("mix", "[MASK]", "[gMASK]"):
        ratio = speeds[f"ours, {kind}"] / speeds[f"plain, {kind}"]
        print(f"  ours / plain, {kind:<20} {ratio:>8.1f}")
