"""Section: initial weights on the GPU: their rate, and how they differ from a CPU's."""

import torch

from benchmarks.gpu.bench import Bench, milliseconds
from glm.counter_random import key_of, normal_

_STD = 0.0052


def measure(bench: Bench) -> None:
    """Compare a part of a matrix far from its beginning with the CPU's, and time a large one."""
    device = bench.device
    rows, width = (16, 256) if bench.is_dry else (256, 12288)
    key = key_of(1, "layers.3.mlp.dense_out.weight")
    place = {"full_width": width, "row_offset": 400_000, "column_offset": 0}
    for dtype in (torch.float32, torch.bfloat16):
        here, there = (torch.empty(rows, width, dtype=dtype, device=d) for d in ("cpu", device))
        normal_(here, _STD, key, **place)
        normal_(there, _STD, key, **place)
        found = there.cpu()
        # Neighbouring numbers: in bits, a difference of one. Signs are equal, or both are next to nothing.
        bits = {torch.float32: torch.int32, torch.bfloat16: torch.int16}[dtype]
        apart = (found.view(bits).long() - here.view(bits).long()).abs()
        differing = int((apart > 0).sum())
        bench.check(
            f"weights in {dtype} are the CPU's up to the last bit",
            int(apart.max()) <= 1,
            differing=differing,
            elements=apart.numel(),
            furthest=int(apart.max()),
            std=float(found.float().std()),
        )
        bench.say(f"{dtype}: {differing} of {apart.numel()} elements differ from the CPU's")
    big = torch.empty(*((64, 256) if bench.is_dry else (1 << 15, 12288)), device=device)
    ms = milliseconds(lambda: normal_(big, _STD, key, big.shape[1]), device, 5)
    bench.record("rate", elements=big.numel(), milliseconds=ms)
    bench.say(f"{big.numel() / ms / 1e6:.2f} thousand million weights/s")
