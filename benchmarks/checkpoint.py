"""What a checkpoint costs:  python -m benchmarks checkpoint

One process holds a state of 1 GB (fp32 weights and Adam's moments) and trains. Printed side by side, from one run on
one disk: the blocked time of a save against a copy of the same bytes in host memory and against a plain synchronous
write with fsync; how much slower steps are while the file is written; time to load; peak host memory. Then the same
for DeepSpeed's own `engine.save_checkpoint` on the same engine.
"""

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from configs import derive
from configs.load import load_config
from configs.schema import Config, LossWeighting
from data_pipeline.corpus import ensure_prepared
from data_pipeline.opening import open_dataset
from data_pipeline.tokenizer import load_tokenizer
from train.batches import BatchStream, micro_batches_of
from train.distributed import distributed_session
from train.plan import TrainingPlan
from train.session import Session
from train.topology import Topology
from train.world import World, prepare_environment

STATE_BYTES = 1_000_000_000
REPETITIONS = 10
OVERRIDES = [
    "precision=fp32",
    "device=cpu",
    "model.num_layers=10",
    "model.hidden_size=768",
    "model.num_heads=12",
    "model.ffn_size=2048",
    "model.vocab_size=16384",
    "model.seq_length=128",
    "data.tokenizer=bytes",
    "optim.micro_batch_size=1",
    "optim.global_batch_size=1",
    "optim.total_samples=100000",
    "checkpoint.keep_last=1",
]


class Trained:
    """A run that can be stepped."""

    def __init__(self, config: Config, session: Session) -> None:
        from train.engine.pipeline import PipelineEngine

        corpora = ensure_prepared(config.data, config.model.vocab_size, print)
        tokenizer = load_tokenizer(corpora.tokenizer)
        dataset = open_dataset(config, corpora, tokenizer, is_validation=False)
        self.plan = TrainingPlan.from_config(config)
        self.engine = PipelineEngine(config, session)
        self._batches = BatchStream(dataset, self.plan, session.topology, 1, [], 0)
        self.steps = 0

    def step(self) -> float:
        """Train one step; its seconds."""
        batches = micro_batches_of(self._batches.next_step(), LossWeighting.row, 0.0)
        started = time.perf_counter()
        self.engine.train_step(self.plan.step_at(self.steps), batches)
        self.steps += 1
        return time.perf_counter() - started

    def close(self) -> None:
        """Let go of the engine."""
        self._batches.close()
        self.engine.close()


def run() -> None:
    """Measure and print."""
    config = load_config(OVERRIDES, 1)
    world = World()
    prepare_environment(world, "cpu")
    topology = Topology.from_config(config.parallel, 0, 1)
    folder = Path(tempfile.mkdtemp(prefix="checkpoint-benchmark-", dir="."))
    try:
        with distributed_session(world, topology, torch.device("cpu")) as session:
            trained = Trained(config, session)
            quiet = statistics.median(trained.step() for _ in range(6))
            state = 3 * 4 * derive.parameters(config.model)
            print(
                f"state {state / 1e9:.2f} GB, a step {quiet:.2f} s, {torch.get_num_threads()} threads"
            )
            _measure_ours(config, session, trained, folder / "ours", quiet, state)
            _measure_deepspeed(trained, folder / "deepspeed", quiet)
            trained.close()
    finally:
        shutil.rmtree(folder)


def _measure_ours(
    config: Config, session: Session, trained: Trained, folder: Path, quiet: float, state: int
) -> None:
    from train.checkpoint import Saver, restore, verify_together
    from train.progress import Progress

    copy_once = _copy_of(state)
    copy_once()
    plain = _median(lambda: _write_plainly(trained, folder.with_name("plain")), 3)
    saver = Saver(folder, config, {"dataset": {}}, session, trained.engine, {})
    copies, blocked, complete = [], [], []
    with _peak() as peak:
        for number in range(REPETITIONS + 1):
            # In turn, so that whatever else the machine does meets both.
            copies.append(_seconds(copy_once))
            started = time.perf_counter()
            saver.save(Progress(number + 1, number + 1, 0, number + 1, 0))
            blocked.append(time.perf_counter() - started)
            (outcome,) = saver.finish()
            complete.append(time.perf_counter() - started)
            assert outcome.error is None, outcome.error
    copy = statistics.median(copies[1:])
    first, usual = blocked[0], statistics.median(blocked[1:])
    during: list[float] = []
    for _ in range(3):
        saver.save(Progress(99, 99, 0, 99, 0))
        during += _steps_while(trained, lambda: saver.poll(False) == [])
        saver.finish()
    verifying = _median(lambda: verify_together(folder / "step_00000099", session), 3)
    manifest = verify_together(folder / "step_00000099", session)
    loading = _median(lambda: restore(trained.engine, folder / "step_00000099", manifest), 3)
    print(f"copy of the same bytes in host memory   {copy:7.3f} s (median of {REPETITIONS})")
    print(
        f"blocked by a save                       {usual:7.3f} s, {usual / copy:.2f} of that copy"
    )
    print(f"  the first save, which takes buffers   {first:7.3f} s")
    print(f"  share of a plain write with fsync     {usual / plain:7.1%} of {plain:.2f} s")
    print(f"complete after (nothing else running)   {statistics.median(complete):7.2f} s")
    _print_rest("steps meanwhile", during, quiet, peak.value)
    print(f"load: verify every byte, then restore   {verifying:7.2f} s + {loading:.2f} s")


def _measure_deepspeed(trained: Trained, folder: Path, quiet: float) -> None:
    engine = trained.engine.deepspeed
    with _peak() as peak:
        saving = _median(lambda: engine.save_checkpoint(str(folder), tag="t"), 3)
        os.sync()
    after = [trained.step() for _ in range(3)]
    loading = _median(lambda: engine.load_checkpoint(str(folder), tag="t"), 3)
    print(f"DeepSpeed's save_checkpoint: blocked    {saving:7.2f} s (no fsync, no checksums)")
    _print_rest("steps after it (the disk still writes)", after, quiet, peak.value)
    print(f"load, nothing verified                  {loading:7.2f} s")


def _print_rest(what: str, steps: list[float], quiet: float, peak_bytes: int) -> None:
    ratio = statistics.mean(steps) / quiet
    print(f"{what:<39} {ratio:7.2f} of a step at rest ({len(steps)})")
    print(f"host memory above that of training      {peak_bytes / 1e9:7.2f} GB")


def _copy_of(num_bytes: int) -> Callable[[], object]:
    """The fastest copy that PyTorch makes: contiguous, into memory that is there."""
    source, target = (torch.zeros(num_bytes // 4) for _ in range(2))
    return lambda: target.copy_(source)


def _write_plainly(trained: Trained, folder: Path) -> None:
    """The same bytes to the same disk, without checksums, and fsync."""
    folder.mkdir(exist_ok=True)
    with (folder / "state").open("wb") as file:
        for piece in trained.engine.state.pieces():
            file.write(piece.values.contiguous().numpy().data)
        file.flush()
        os.fsync(file.fileno())
    shutil.rmtree(folder)


def _steps_while(trained: Trained, is_writing: Callable[[], bool]) -> list[float]:
    """Seconds of each step that began while a save was under way."""
    seconds = [trained.step()]
    while is_writing():
        seconds.append(trained.step())
    return seconds


def _median(work: Callable[[], Any], repetitions: int = REPETITIONS) -> float:
    work()
    return statistics.median(_seconds(work) for _ in range(repetitions))


def _seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


class _Peak:
    value = 0


@contextmanager
def _peak() -> Iterator[_Peak]:
    """Peak memory of this process above that on entry, page cache excluded."""
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = _memory("VmRSS")
    peak = _Peak()
    yield peak
    peak.value = _memory("VmHWM") - before


def _memory(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024
