"""The observers that a run's configuration asks for."""

from configs.schema import Config
from train.engine import Engine
from train.observe import source_losses
from train.observe.activations import ActivationObserver
from train.observe.memory import MemoryObserver
from train.observe.norms import GradientObserver, WeightObserver
from train.observe.observers import Observer
from train.observe.source_losses import SourceObserver
from train.prepared import Prepared
from train.resume import Resumed
from train.session import Session


def details_observers(
    prepared: Prepared, session: Session, resumed: Resumed, skip_samples: list[list[int]]
) -> list[Observer]:
    """Observers of what details.jsonl has, in the order of its keys; none without `log.details_every_steps`.

    Args:
        prepared: the start.
        session: its process groups.
        resumed: the run, from which they continue.
        skip_samples: ranges of the data stream that are left out.
    """
    config, engine = prepared.config, resumed.engine
    every = config.log.details_every_steps
    if every is None:
        return []
    manifest = resumed.own_manifest
    return [
        *_of_layers(every, config, engine, session),
        MemoryObserver(every, engine, session),
        SourceObserver(
            every,
            engine,
            session,
            prepared.training,
            prepared.validation,
            config.optim.micro_batch_size,
            skip_samples,
            config.eval.num_samples,
            None if manifest is None else manifest.extra.get(source_losses.ENTRY),
        ),
    ]


def _of_layers(every: int, config: Config, engine: Engine, session: Session) -> list[Observer]:
    return [
        GradientObserver(every, engine),
        WeightObserver(every, engine, session, config.model.num_layers),
        ActivationObserver(every, engine, session, config),
    ]
