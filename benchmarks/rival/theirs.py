"""SwissArmyTransformer 0.2.12's GLM130B as a worker, in that library's own environment.

The library is used as it is, with three adaptations to a CPU, where its 2022 code assumes CUDA and half precision:
`torch.cuda.current_device` names the CPU, attention weights are converted to the precision of the weights where it
always takes fp16, and in bf16 its rotary tables are made by its own option for bf16. It is in evaluation mode, so it
skips dropout, which has probability 0 on both sides.
"""

import argparse
import importlib
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from benchmarks.rival.worker import Rows, serve


class Theirs:
    """The library's model, and the cross-entropy of its logits.

    Args:
        inputs: see `sizes.write_inputs`.
        dtype: of weights and activations.
    """

    def __init__(self, inputs: dict[str, Any], dtype: torch.dtype) -> None:
        torch.cuda.current_device = lambda: torch.device("cpu")
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        importlib.import_module("SwissArmyTransformer.mpu").initialize_model_parallel(1)
        library = importlib.import_module("SwissArmyTransformer.model.official.glm130B_model")
        self.module = library.GLM130B(_arguments(inputs["size"]))
        for parameter in self.module.parameters():
            parameter.data = parameter.data.to(dtype)
        loaded = self.module.load_state_dict(inputs["theirs"], strict=False)
        assert not loaded.unexpected_keys, loaded.unexpected_keys
        assert all(name.endswith("inv_freq") for name in loaded.missing_keys), loaded.missing_keys
        if dtype is torch.bfloat16:
            self.module.get_mixin("rotary-embedding").rotary_emb.precision = dtype
        self.module.eval()
        self._dtype = dtype
        self._heads = {
            "all": self.module.get_mixin("final-forward"),
            "targets": _target_head(library.BaseMixin),
        }

    def loss(self, rows: Rows, head: str) -> Tensor:
        """See `worker.Side`."""
        logits = self._forward(rows, head).float()
        return torch.dot(cross_entropy(logits, rows["targets"], reduction="none"), rows["factors"])

    def logits(self, rows: Rows) -> Tensor:
        """See `worker.Side`."""
        return self._forward(rows, "all")

    def _forward(self, rows: Rows, head: str) -> Tensor:
        """Logits of the targets, picked before or after the head."""
        self.module.del_mixin("final-forward")
        self.module.add_mixin("final-forward", self._heads[head])
        with mock.patch.object(torch.Tensor, "half", lambda values: values.to(self._dtype)):
            logits, *_ = self.module(
                rows["tokens"], rows["position_ids"], rows["is_hidden"], places=rows["places"]
            )
        return logits if head == "targets" else logits.flatten(0, 1)[rows["places"]]


def _target_head(mixin: Any) -> Any:
    """A head that is given the hidden states of the targets alone: a mixin, as the library lets users replace its parts."""

    class TargetHead(mixin):
        def final_forward(self, logits: Tensor, places: Tensor, **_: object) -> Tensor:
            chosen = logits.transpose(0, 1).flatten(0, 1).index_select(0, places)
            return linear(chosen, self.transformer.word_embeddings.weight)

    return TargetHead()


def _arguments(size: dict[str, Any]) -> argparse.Namespace:
    return argparse.Namespace(
        num_layers=size["layers"],
        vocab_size=size["vocab"],
        hidden_size=size["hidden"],
        num_attention_heads=size["heads"],
        hidden_size_per_attention_head=None,
        inner_hidden_size=size["ffn"],
        max_sequence_length=size["seq"],
        hidden_dropout=0.0,
        attention_dropout=0.0,
        checkpoint_activations=False,
        checkpoint_num_layers=1,
        layernorm_order="post",
        model_parallel_size=1,
        fp16=False,
        skip_init=True,
        use_gpu_initialization=False,
    )


if __name__ == "__main__":
    serve(Theirs)
