"""This program's model as a worker."""

import time
from typing import Any

import torch
from torch import Tensor

from benchmarks.rival.sizes import Size
from benchmarks.rival.worker import Rows, serve
from glm.attention_paths import sdpa_attention
from glm.head import target_losses
from glm.model import GLMModel
from glm.row_fields import TARGET
from glm.row_plan import RowPlan
from train.host_memory import keep_freed_memory


class Ours:
    """`GLMModel`, with the trainer's head and loss.

    Args:
        inputs: see `sizes.write_inputs`.
        dtype: of weights and activations.
    """

    def __init__(self, inputs: dict[str, Any], dtype: torch.dtype) -> None:
        self._model = Size(**inputs["size"]).config().model
        self.module = GLMModel(self._model, seed=1)
        named = self.module.stable_parameters()
        assert named.keys() == inputs["ours"].keys()
        with torch.no_grad():
            for name, parameter in named.items():
                parameter.copy_(inputs["ours"][name])
        self.module.to(dtype)

    def loss(self, rows: Rows, head: str) -> Tensor:
        """See `worker.Side`."""
        # A new tensor of fields, as every micro-batch has: what is derived from it is derived again.
        hidden, _ = self.module.final_state(rows["tokens"], rows["fields"].clone())
        places, targets, factors = (rows[name] for name in ("places", "targets", "factors"))
        if head == "all":
            targets = torch.zeros(len(hidden), dtype=torch.int64).index_copy(0, places, targets)
            factors = torch.zeros(len(hidden)).index_copy(0, places, factors)
        else:
            hidden = hidden.index_select(0, places)
        return target_losses(self.module.embedding, hidden, targets, factors)[0]

    def logits(self, rows: Rows) -> Tensor:
        """See `worker.Side`."""
        assert int(rows["fields"][:, TARGET].sum()) == len(rows["places"])
        return self.module(rows["tokens"], rows["fields"].clone())

    def attention(self, rows: Rows) -> float:
        """CPU seconds of both passes of all layers' attention, between their products with the weights."""
        model, plan = self._model, RowPlan(rows["fields"])
        batch, _, seq = rows["fields"].shape
        shape = (batch, seq, model.num_heads, model.hidden_size // model.num_heads)
        dtype = next(self.module.parameters()).dtype
        seconds = 0.0
        for _ in range(model.num_layers):
            q, k, v = (torch.randn(shape).to(dtype).transpose(1, 2) for _ in range(3))
            inputs = [values.requires_grad_() for values in (q, k, v)]
            gradient = torch.randn(shape).to(dtype).transpose(1, 2)
            begin = time.process_time()
            sdpa_attention(*inputs, plan).backward(gradient)
            seconds += time.process_time() - begin
        return seconds


if __name__ == "__main__":
    keep_freed_memory()  # as `python -m train` does on CPU
    serve(Ours, Ours.attention)
