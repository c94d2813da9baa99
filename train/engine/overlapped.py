"""Where `parallel.overlap` is joined to the engine: which gradients wait, and which layers wait for which weights."""

from typing import Any

from torch import nn

from configs.schema import Config
from glm.layer import FinalNorm, GLMLayer
from glm.model import TIED_KEY, TIED_WEIGHT
from glm.tensor_parallel import has_partial_gradient
from train.engine.overlap import Overlap
from train.engine.reduction import replace_reduction
from train.engine.stages import StagedModule
from train.session import Session


def build_overlap(
    config: Config, session: Session, engine: Any, module: StagedModule
) -> Overlap | None:
    """Have gradients reduced and weights gathered while passes run; None where that is off, or on one replica.

    Args:
        config: of the run.
        session: the open process groups.
        engine: DeepSpeed's pipeline engine; what it does to reduce gradients is replaced.
        module: its module.
    """
    if not config.parallel.overlap or session.topology.dp == 1:
        return None
    tied: list[nn.Parameter] = []
    if TIED_KEY in module.tied_modules:
        tied = [module.tied_modules[TIED_KEY].get_parameter(TIED_WEIGHT)]
    is_shared = session.topology.pp > 1  # with another stage, which adds its gradient first
    deferred = {each for each in module.parameters() if has_partial_gradient(each)}
    deferred |= set(tied) if is_shared else set()
    # On one stage the embedding's gradient comes twice, from the head and from the lookup.
    overlap = Overlap(engine.optimizer, dict.fromkeys(tied, 2), deferred)
    _wait_for_weights(overlap, module, tied)

    replace_reduction(engine, lambda _: overlap.finish())
    return overlap


def _wait_for_weights(overlap: Overlap, module: StagedModule, tied: list[nn.Parameter]) -> None:
    for part in module.modules():
        if isinstance(part, GLMLayer):
            overlap.wait_before(part, list(part.parameters()))
        elif isinstance(part, FinalNorm):
            # The head reads the tied matrix outside of any module's forward pass, right after it.
            overlap.wait_before(part, [*part.parameters(), *tied])
    if TIED_KEY in module.tied_modules:
        embedding = module.tied_modules[TIED_KEY]
        overlap.wait_before(embedding, list(embedding.parameters()))
