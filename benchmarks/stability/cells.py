"""One cell of the study: a variant, a learning rate and a seed, trained by the real engine in this process."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.stability.text import dataset_of
from configs.load import load_config
from train.batches import BatchStream, micro_batches_of
from train.engine.pipeline import PipelineEngine
from train.plan import TrainingPlan
from train.session import Session


@dataclass(frozen=True)
class CellName:
    """What a cell trains."""

    variant: str
    rate: float
    seed: int


@dataclass
class Cell:
    """What was recorded, a number per step; training ends at the first step that has one that is not finite."""

    variant: str
    rate: float
    seed: int
    losses: list[float] = field(default_factory=list[float])
    """Mean loss of the step's rows, which no other step reads."""
    embedding: list[float] = field(default_factory=list[float])
    """Gradient norm of the word embedding, lookup and tied head together, after its shrink and before the clip."""
    rest: list[float] = field(default_factory=list[float])
    """Gradient norm of everything else, before the clip."""
    is_finite: bool = True

    @property
    def name(self) -> CellName:
        """What it trained."""
        return CellName(self.variant, self.rate, self.seed)


def train_cell(name: CellName, words: Sequence[str], session: Session) -> Cell:
    """Train a cell from its initial weights to the end of its samples, or until a number is not finite.

    Args:
        name: what to train; its rate and its seed, which is also that of the text, are set here.
        words: the model, and everything that the cells share.
        session: of this process alone.
    """
    config = load_config([*words, f"optim.lr={name.rate!r}", f"seed={name.seed}"], 1)
    cell = Cell(name.variant, name.rate, name.seed)
    engine = PipelineEngine(config, session)
    plan, size = TrainingPlan.from_config(config), config.optim.micro_batch_size
    stream = BatchStream(dataset_of(config), plan, session.topology, size, [], 0)
    seen = 0
    while cell.is_finite and not plan.is_finished(seen):
        step = plan.step_at(seen)
        weighting = config.objective.loss_weighting
        batches = micro_batches_of(stream.next_step(), weighting, 0.0)
        outcome = engine.train_step(step, batches)
        seen += step.num_samples
        _record(cell, outcome.sums.mean, outcome.grad_norm, outcome.embedding_sum_of_squares)
    stream.close()
    engine.close()
    return cell


def _record(cell: Cell, loss: float | None, total: float, embedding_squares: float) -> None:
    assert loss is not None, "every row has a target"
    cell.is_finite = math.isfinite(loss) and math.isfinite(total)
    if cell.is_finite:
        cell.losses.append(loss)
        cell.embedding.append(math.sqrt(embedding_squares))
        cell.rest.append(math.sqrt(max(total**2 - embedding_squares, 0.0)))
