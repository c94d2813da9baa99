"""Section: a save while training goes on, then kill -9 and the same command again.

The copy of the state is compared, byte for byte, with one that was made on the device before the step; the step of
the copy is timed beside steps without one.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.engines import COMMON, Trainee, session_on
from benchmarks.gpu.runs import Run
from configs.load import load_config
from train.checkpoint.host_copy import HostCopy
from train.device import HostTransfer, synchronize

_SHAPE = ("model=glm_335m", "precision=bf16", "optim.micro_batch_size=4")
_TINY = ("model=tiny", "precision=bf16", "optim.micro_batch_size=4")
_PLAIN = ("model.hidden_dropout=0", "model.attention_dropout=0", "optim.global_batch_size=16")
_SAVES = 2


def measure(bench: Bench) -> None:
    """The copy first: runs beside it would take its time."""
    config = load_config([*(_TINY if bench.is_dry else _SHAPE), *_PLAIN, *COMMON])
    with session_on(bench.device, config) as session:
        trainee = Trainee(config, session)
        try:
            _copies(bench, trainee)
        finally:
            trainee.engine.close()
        del trainee
    _kill(bench)


def _copies(bench: Bench, trainee: Trainee) -> None:
    device, engine = bench.device, trainee.engine
    for _ in range(2):  # the second step has every slot of the optimizer
        trainee.step()
    copy = HostCopy(HostTransfer(device))
    engine.add_hook(lambda _: copy.hold_updates())
    pieces = engine.state.pieces()
    size = sum(piece.values.nbytes for piece in pieces)
    # The first copy allocates pinned memory.
    copy.take(pieces)
    copy.wait()
    alone = _seconds(device, lambda: (copy.take(pieces), copy.wait()))
    plain = statistics.median(
        _seconds(device, trainee.step) for _ in range(2 if bench.is_dry else 5)
    )
    during = []
    for number in range(_SAVES):
        before = [piece.values.clone() for piece in pieces]
        synchronize(device)
        taken: list[Any] = []
        during.append(
            _seconds(device, lambda t=taken: (t.append(copy.take(pieces)), trainee.step()))
        )
        copy.wait()
        pairs = zip(taken[0], before, strict=True)
        wrong = sum(not _same_bytes(piece.values, values) for piece, values in pairs)
        changed = sum(
            not _same_bytes(piece.values, values)
            for piece, values in zip(pieces, before, strict=True)
        )
        # Unless the step has changed the state, an early and a late copy are the same.
        bench.check(
            f"copy {number + 1} is the state before the step",
            wrong == 0 and changed > len(pieces) // 2,
            pieces=len(pieces),
            wrong=wrong,
            changed_by_the_step=changed,
        )
    ratio = statistics.median(during) / plain
    bench.record("save", bytes=size, copy_seconds=alone, step_seconds=plain, ratio=ratio)
    bench.say(
        f"{size / 1e9:.2f} GB copied at {size / alone / 1e9:.1f} GB/s; a step with the copy takes {ratio:.2f} times as long"
    )


def _kill(bench: Bench) -> None:
    """An undisturbed run beside one that is killed and started again."""
    words = [f"device={bench.device.type}", "deterministic=true"]
    words += ["precision=fp32" if bench.is_dry else "precision=bf16"]
    # On a GPU a step takes milliseconds, and must not be the last one before the kill arrives.
    samples = 160 if bench.is_dry else 1600
    words += ["checkpoint.save_every_samples=40", f"optim.total_samples={samples}"]
    whole, killed = Run(bench, "whole", *words), Run(bench, "killed", *words)
    steps = killed.kill_after(6)
    again = Run(bench, "killed", *words)
    whole.wait()
    again.wait()
    expected, found = whole.metrics(), again.metrics()
    bench.check("after kill -9 the same metrics", found == expected, steps=len(expected), at=steps)
    bench.say(f"killed after {steps} of {len(expected)} steps, continued")


def _seconds(device: torch.device, call: Callable[[], Any]) -> float:
    synchronize(device)
    started = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - started


def _same_bytes(one: torch.Tensor, other: torch.Tensor) -> bool:
    mine, theirs = (
        values.detach().reshape(-1).to(other.device).view(torch.uint8) for values in (one, other)
    )
    return torch.equal(mine, theirs)
