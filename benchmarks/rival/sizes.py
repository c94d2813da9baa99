"""The sizes at which the two models are compared, and the rows and weights that both are given."""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.live_memory import cycle_dataset
from configs.load import load_config
from configs.schema import Config
from data_pipeline.batch import collate
from glm.model import GLMModel
from glm.row_fields import POSITION, may_attend
from train.batches import row_weights, to_micro_batch

PARTS = {
    "input_norm": "input_layernorm",
    "attention.query_key_value": "attention.query_key_value",
    "attention.dense": "attention.dense",
    "post_attention_norm": "post_attention_layernorm",
    "mlp.dense_out": "mlp.dense_4h_to_h",
}
"""Of a layer: our names and the library's. Its first feed-forward matrix is our value and our gate, one below the other."""


@dataclass(frozen=True)
class Size:
    """A model and a micro-batch."""

    name: str
    layers: int
    hidden: int
    heads: int
    ffn: int
    vocab: int
    """A multiple of `model.vocab_multiple`: the library adds no rows."""
    seq: int
    rows: int
    """Of a micro-batch."""

    def config(self) -> Config:
        """Of a run of this size, with the rotary tables of the run of 2022, which are the library's."""
        words = {
            "num_layers": self.layers,
            "hidden_size": self.hidden,
            "num_heads": self.heads,
            "ffn_size": self.ffn,
            "vocab_size": self.vocab,
            "seq_length": self.seq,
            "rope_tables": "fp16",
        }
        batch = [f"optim.{each}_batch_size={self.rows}" for each in ("micro", "global")]
        return load_config(
            [*(f"model.{key}={value}" for key, value in words.items()), *batch, "precision=fp32"], 1
        )


def write_inputs(size: Size, count: int, path: Path) -> None:
    """Write what both processes read: a model's initial weights, and `count` micro-batches."""
    config = size.config()
    model = GLMModel(config.model, seed=1)
    dataset = cycle_dataset(config)
    rows = []
    for number in range(count):
        first = number * size.rows
        batch = collate([dataset[index] for index in range(first, first + size.rows)])
        weights = row_weights(batch, config.objective.loss_weighting, 0.0)
        (tokens, fields), (places, targets, of_rows, _, weight_of_rows) = to_micro_batch(
            batch, weights
        )
        rows.append(
            {
                "tokens": tokens,
                "fields": fields,
                "position_ids": fields[:, POSITION].contiguous(),
                "is_hidden": ~may_attend(fields)[:, None],
                "places": places,
                "targets": targets,
                "factors": weight_of_rows[of_rows],
            }
        )
    ours = {name: value.detach() for name, value in model.stable_parameters().items()}
    torch.save(
        {"size": asdict(size), "ours": ours, "theirs": renamed(ours, size.layers), "rows": rows},
        path,
    )


def renamed(ours: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """The same weights by the library's names."""
    theirs = {"transformer.word_embeddings.weight": ours["word_embeddings.weight"]}
    for kind in ("weight", "bias"):
        theirs[f"transformer.final_layernorm.{kind}"] = ours[f"final_norm.{kind}"]
        for layer in range(layers):
            here, there = f"layers.{layer}", f"transformer.layers.{layer}"
            for name, other in PARTS.items():
                theirs[f"{there}.{other}.{kind}"] = ours[f"{here}.{name}.{kind}"]
            halves = [ours[f"{here}.mlp.dense_{half}.{kind}"] for half in ("value", "gate")]
            theirs[f"{there}.mlp.dense_h_to_4h.{kind}"] = torch.cat(halves)
    return theirs
