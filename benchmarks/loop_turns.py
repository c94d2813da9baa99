"""One run of the trainer that takes turns with a bare loop over the same layers (benchmarks/bare_loop.py).

The trainer is the whole one: batches built in its thread, engine, norms, agreement, metrics and console. Between two of
its steps the bare loop trains the same rows, which are made before its time begins.
"""

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from configs import derive
from configs.load import load_config
from configs.schema import Config, Precision
from data_pipeline.batch import collate
from data_pipeline.dataset import GLMDataset
from glm.head import target_losses
from glm.model import GLMModel
from train.batches import MicroBatch, row_weights, step_indices, to_micro_batch
from train.distributed import distributed_session
from train.engine.optimizers import build_optimizer, optimizer_kind
from train.host_memory import keep_freed_memory
from train.metrics import Metrics
from train.plan import StepPlan, TrainingPlan
from train.prepared import prepared
from train.run_folder import RunFolder
from train.topology import Topology
from train.training import Training
from train.world import World, prepare_environment


class BareLoop:
    """Forward, backward, clip, update, and nothing else.

    In bf16 it has fp32 copies of the weights, with gradients summed in fp32, as the trainer has.

    Args:
        config: of the run; its precision is fp32 or bf16.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._masters = GLMModel(config.model, config.seed)
        self._model = self._masters
        if config.precision is Precision.bf16:
            self._model = GLMModel(config.model, config.seed).to(torch.bfloat16)
        kind = optimizer_kind(config.optim.name, "cpu")
        self._optimizer = build_optimizer(kind, self._masters, config.optim, "cpu")

    def step(self, step: StepPlan, micro_batches: Sequence[MicroBatch]) -> torch.Tensor:
        """Train one global batch; its loss."""
        embedding = self._model.embedding
        embedding.gradient_shrink = step.embedding_shrink
        for group in self._optimizer.param_groups:
            group["lr"] = step.learning_rate
        total = torch.zeros(())
        for inputs, (places, targets, rows, _, weights) in micro_batches:
            hidden, _ = self._model.final_state(*inputs)
            factors = weights.index_select(0, rows)
            chosen = hidden.index_select(0, places)
            loss, _ = target_losses(embedding, chosen, targets, factors)
            (loss / len(micro_batches)).backward()
            total += loss.detach() / len(micro_batches)
            self._add_to_masters()
        torch.nn.utils.clip_grad_norm_(self._masters.parameters(), self._config.optim.clip)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._copy_from_masters()
        return total

    @torch.no_grad()
    def _add_to_masters(self) -> None:
        if self._model is self._masters:
            return
        for master, parameter in zip(
            self._masters.parameters(), self._model.parameters(), strict=True
        ):
            assert parameter.grad is not None
            if master.grad is None:
                master.grad = parameter.grad.float()
            else:
                master.grad.add_(parameter.grad)
            parameter.grad = None

    @torch.no_grad()
    def _copy_from_masters(self) -> None:
        if self._model is self._masters:
            return
        for master, parameter in zip(
            self._masters.parameters(), self._model.parameters(), strict=True
        ):
            parameter.copy_(master)


@dataclass
class Turns:
    """Receives the trainer's metrics after each step, and lets the bare loop train the same steps in between.

    A machine's speed drifts within seconds, so the two take turns step by step; and whoever trains rows first pays for what
    their shapes need, so each goes first with every other step. The trainer's other threads go on meanwhile; they count as
    the trainer's.

    Args:
        config: of the run.
        dataset: of the run.
        block: steps that make a figure, an even number.
    """

    config: Config
    dataset: GLMDataset
    block: int
    trainer: list[float] = field(default_factory=list)
    """CPU seconds of a step, of all threads of the process, in each block."""
    bare: list[float] = field(default_factory=list)
    """Of the thread that runs the bare loop: it needs no other."""
    batches: list[float] = field(default_factory=list)
    """Of making the bare loop's batches, which the trainer's seconds have in them."""
    of_trainer: list[float] = field(default_factory=list)
    """Loss of each step."""
    of_bare: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        assert self.block % 2 == 0, self.block
        self._plan = TrainingPlan.from_config(self.config)
        self._loop = BareLoop(self.config)
        self._samples = 0
        self.start()

    def start(self) -> None:
        """Begin a block."""
        self._bare, self._batches, self._elsewhere = 0.0, 0.0, 0.0
        self._begin = time.process_time()

    def after_step(self, line: Metrics) -> None:
        """Take a step's metrics."""
        begin = time.thread_time()
        loss = line["train/loss"]
        assert isinstance(loss, float)
        self.of_trainer.append(loss)
        if len(self.of_trainer) % 2 == 1:
            self._train_bare()  # what the trainer has trained
            self._train_bare()  # what it trains next
        self._elsewhere += time.thread_time() - begin
        if len(self.of_trainer) % self.block == 0:
            of_process = time.process_time() - self._begin
            self.trainer.append((of_process - self._elsewhere) / self.block)
            self.bare.append(self._bare / self.block)
            self.batches.append(self._batches / self.block)
            self.start()

    def _train_bare(self) -> None:
        begin = time.thread_time()
        step = self._plan.step_at(self._samples)
        made = self._micro_batches(step)
        ready = time.thread_time()
        self.of_bare.append(float(self._loop.step(step, made)))
        self._samples += step.num_samples
        self._batches += ready - begin
        self._bare += time.thread_time() - ready

    def _micro_batches(self, step: StepPlan) -> list[MicroBatch]:
        config, topology = self.config, Topology.from_config(self.config.parallel, 0, 1)
        drawn = step_indices(step, topology, config.optim.micro_batch_size, [])
        batches = [collate([self.dataset[index] for index in each]) for each in drawn]
        weighting = config.objective.loss_weighting
        return [to_micro_batch(batch, row_weights(batch, weighting, 0.0)) for batch in batches]


def measured(words: list[str], block: int, turns: int, folder: Path) -> Turns:
    """Train `block * turns` steps twice, in turns; `turns` figures.

    Args:
        words: of the run.
        block: steps that make a figure.
        turns: how many of these.
        folder: for the run.
    """
    config = load_config([*words, f"run.dir={folder / 'run'}", "device=cpu"], 1)
    config.run.stop_after_samples = block * turns * config.optim.global_batch_size
    world = World()
    prepare_environment(world, "cpu")
    keep_freed_memory()
    torch.set_num_threads(1)
    device, run_folder = torch.device("cpu"), RunFolder(Path(derive.run_dir(config)))
    topology = Topology.from_config(config.parallel, 0, 1)
    with (
        prepared(config, words, world, device, run_folder, None) as ready,
        distributed_session(world, topology, device, ready.rendezvous) as session,
    ):
        training = Training(ready, session)
        training.resume()
        found = Turns(config, ready.training, block)
        report = training.trackers.log_metrics

        def log_metrics(line: Metrics) -> None:
            report(line)
            found.after_step(line)

        training.trackers.log_metrics = log_metrics
        found.start()
        training.run()
        training.close()
        training.release()
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        result = measured(sys.argv[3:], int(sys.argv[1]), int(sys.argv[2]), Path(temporary))
    losses = list(zip(result.of_trainer, result.of_bare, strict=True))
    names = ("trainer", "bare", "batches")
    figures = {**{name: getattr(result, name) for name in names}, "losses": losses}
    print(json.dumps(figures))
