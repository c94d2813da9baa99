"""Section: `python -m train`, small, in bf16 and fp16, beside fp32 on CPU; twice the same; and what the host waits for."""

import contextlib
import math
import warnings
from collections import Counter
from collections.abc import Iterator

import torch

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.engines import COMMON, Trainee, session_on
from benchmarks.gpu.runs import Run
from configs.load import load_config

# Of the first loss, in nats: before any update only the precision differs. Of the last one: more has happened.
_FIRST_LIMIT, _LAST_LIMIT = 0.02, 0.15
_MODEL = ("model=tiny", "precision=bf16", "optim.micro_batch_size=2", "optim.global_batch_size=16")
_FEW, _MANY = 8, 16


def measure(bench: Bench) -> None:
    """All runs at once: they are small, and most of their time is their start."""
    device = f"device={bench.device.type}"
    exact = Run(bench, "fp32-cpu", "device=cpu", "precision=fp32", "deterministic=true")
    if (
        bench.is_dry
    ):  # every start costs seconds: the run on CPU is one of the two that must be the same
        others, twins = [], [exact, Run(bench, "again", *exact.words)]
    else:
        same = (device, "deterministic=true", "precision=bf16")
        others = [Run(bench, name, device, f"precision={name}") for name in ("bf16", "fp16")]
        twins = [Run(bench, f"twin-{number}", *same) for number in (1, 2)]
    for run in [exact, *others, *twins]:
        run.wait()
    for run in [*others, *twins]:
        _compare(bench, run, exact.losses())
    one, other = (run.metrics() for run in twins)
    differing = [n for n, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1]]
    bench.check("deterministic: twice the same", one == other, steps=len(one), differing=differing)
    bench.say(f"{len(one)} steps, twice {'the same' if one == other else 'NOT the same'}")
    _count_syncs(bench)


def _compare(bench: Bench, run: Run, expected: list[float | None]) -> None:
    found = run.losses()
    pairs = [
        (mine, theirs)
        for mine, theirs in zip(found, expected, strict=True)
        if mine is not None and theirs is not None
    ]
    differences = [abs(mine - theirs) for mine, theirs in pairs]
    is_close = bool(pairs) and differences[0] <= _FIRST_LIMIT and differences[-1] <= _LAST_LIMIT
    bench.check(
        f"losses of {run.name}",
        is_close and all(math.isfinite(mine) for mine, _ in pairs),
        skipped=len(found) - len(pairs),
        first=differences[:1],
        last=differences[-1:],
        largest=max(differences, default=None),
        end=found[-1],
    )
    if pairs:
        bench.say(
            f"{run.name}: loss {pairs[-1][0]:.4f} after {len(found)} steps, fp32 on CPU {pairs[-1][1]:.4f}"
        )


def _count_syncs(bench: Bench) -> None:
    """Where the host waits for the GPU in a step, by line; per micro-batch by the difference of two steps."""
    config = load_config([*_MODEL, *COMMON])
    with session_on(bench.device, config) as session:
        trainee = Trainee(config, session)
        try:
            for samples in (_MANY, _FEW):
                trainee.step(samples)
            with _syncs(bench) as few:
                trainee.step(_FEW)
            with _syncs(bench) as many:
                trainee.step(_MANY)
        finally:
            trainee.engine.close()
    if bench.is_dry:
        return
    micro_batches = (_MANY - _FEW) // config.optim.micro_batch_size
    each = (sum(many.values()) - sum(few.values())) / micro_batches
    bench.check("the host waits for nothing in a micro-batch", each == 0, each=each)
    bench.record("host syncs", of_a_step=dict(few.most_common()), more=dict((many - few).items()))
    bench.say(f"host syncs: {sum(few.values())} a step, {each:g} a micro-batch")


@contextlib.contextmanager
def _syncs(bench: Bench) -> Iterator[Counter[str]]:
    """Count PyTorch's warnings of calls that wait for the GPU."""
    found = Counter[str]()
    if bench.is_dry:
        yield found
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode("default")
    for each in caught:
        if "synchroniz" in str(each.message):
            found["/".join(each.filename.split("/")[-3:]) + f":{each.lineno}"] += 1
