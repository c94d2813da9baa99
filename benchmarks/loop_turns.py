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
    """Receives the trainer's metrics after each step, and gives the bare loop its turn after each block of them.

    Args:
        config: of the run.
        dataset: of the run.
        block: steps of a turn.
    """

    config: Config
    dataset: GLMDataset
    block: int
    trainer: list[float] = field(default_factory=list)
    """CPU seconds of a step, of all threads of the process, of each turn."""
    bare: list[float] = field(default_factory=list)
    """Of the thread that runs the bare loop: it needs no other."""
    losses: list[tuple[float, float]] = field(default_factory=list)
    """Of each step: the trainer's and the bare loop's."""

    def __post_init__(self) -> None:
        self._plan = TrainingPlan.from_config(self.config)
        self._loop = BareLoop(self.config)
        self._steps: list[StepPlan] = []
        self._of_trainer: list[float] = []
        self.begin = time.process_time()

    def after_step(self, line: Metrics) -> None:
        """Take a step's metrics."""
        seen, size, loss = (
            line[key] for key in ("samples_seen", "optim/global_batch_size", "train/loss")
        )
        assert isinstance(seen, int) and isinstance(size, int) and isinstance(loss, float)
        self._steps.append(self._plan.step_at(seen - size))
        self._of_trainer.append(loss)
        if len(self._steps) == self.block:
            self.trainer.append((time.process_time() - self.begin) / self.block)
            self._train_bare()
            self.begin = time.process_time()

    def _train_bare(self) -> None:
        made = [self._micro_batches(step) for step in self._steps]
        begin = time.thread_time()
        losses = [
            float(self._loop.step(step, batches))
            for step, batches in zip(self._steps, made, strict=True)
        ]
        self.bare.append((time.thread_time() - begin) / self.block)
        self.losses += zip(self._of_trainer, losses, strict=True)
        self._steps, self._of_trainer = [], []

    def _micro_batches(self, step: StepPlan) -> list[MicroBatch]:
        config, topology = self.config, Topology.from_config(self.config.parallel, 0, 1)
        drawn = step_indices(step, topology, config.optim.micro_batch_size, [])
        batches = [collate([self.dataset[index] for index in each]) for each in drawn]
        weighting = config.objective.loss_weighting
        return [to_micro_batch(batch, row_weights(batch, weighting, 0.0)) for batch in batches]


def measured(words: list[str], block: int, turns: int, folder: Path) -> Turns:
    """Train `block * turns` steps twice, in turns.

    Args:
        words: of the run.
        block: steps of a turn.
        turns: how many.
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
        found.begin = time.process_time()
        training.run()
        training.close()
        training.release()
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        result = measured(sys.argv[3:], int(sys.argv[1]), int(sys.argv[2]), Path(temporary))
    figures = {"trainer": result.trainer, "bare": result.bare, "losses": result.losses}
    print(json.dumps(figures))
