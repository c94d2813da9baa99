"""Logits of a few rows while a model is in training, on its own layout and beside its schedule.

Rows may be of any length. The parts of the model run one after the other, and each stage waits for the one before it, so
this is for a few short rows. Nothing runs compiled (glm/fused.py), so the next step has the kernels that it would have had.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from glm.collectives import finish, start_gather
from glm.embedding import WordEmbedding
from glm.fused import eagerly
from glm.model import TIED_KEY
from glm.row_fields import TARGET
from glm.tensor_parallel import parallel_state
from train.engine.stages import StagedModule
from train.session import Session


def target_logits(
    module: StagedModule, session: Session, tokens: Tensor, fields: Tensor, width: int, cut: int
) -> Tensor | None:
    """Compute the logits of all targets. Collective over the ranks of one replica.

    Args:
        module: this rank's stage; all its weights are there. It is in evaluation mode meanwhile.
        session: the open process groups.
        tokens: (batch, seq), the same on all ranks.
        fields: (batch, 6, seq) likewise.
        width: of the hidden states.
        cut: over how many ranks hidden states are cut by tokens; it divides batch * seq.

    Returns:
        (targets, vocab) fp32, targets in row order, on the last stage; None on the others.
    """
    tokens, fields = tokens.to(session.device), fields.to(session.device)
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad(), eagerly():
            shape = (tokens.numel() // cut, width)
            hidden = _final_state(module, session, tokens, fields, shape)
            return None if hidden is None else _logits(module, hidden, fields)
    finally:
        module.train(was_training)


def _final_state(
    module: StagedModule, session: Session, tokens: Tensor, fields: Tensor, shape: tuple[int, int]
) -> Tensor | None:
    """Run this stage's parts in their turn: hidden states of all tokens after the last one; None on other stages."""
    place = session.topology
    group: Any = parallel_state.get_pipeline_model_parallel_group()
    before, after = ((place.pp_rank + step) % place.pp for step in (-1, 1))
    last = place.pp * place.chunks - 1
    dtype = next(module.parameters()).dtype
    for chunk in range(place.chunks):
        part = chunk * place.pp + place.pp_rank
        received = tokens
        if part > 0:
            received = torch.empty(shape, dtype=dtype, device=session.device)
            dist.recv(received, src=module.rank_of_stage(before), group=group)
        module.activate(chunk)
        outputs = module((received, fields))
        if part == last:
            return outputs
        dist.send(outputs[0].contiguous(), dst=module.rank_of_stage(after), group=group)
    return None


def _logits(module: StagedModule, hidden: Tensor, fields: Tensor) -> Tensor:
    head = module.tied_modules[TIED_KEY]
    assert isinstance(head, WordEmbedding), "the head is the embedding with another function"
    table = head.word_embeddings
    local = table.logits(hidden[fields[:, TARGET].reshape(-1).bool()], table.weight).float()
    if dist.get_world_size(table.group) == 1:
        return local
    # Each rank has the columns of its rows of the table.
    return finish(start_gather(local.t(), table.group)).t()
