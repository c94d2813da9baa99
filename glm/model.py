"""The model is a list: embedding, layers, final norm, tied head.

`GLMModel` runs the list in one process (generation, tests); train/engine/ hands the very same list to DeepSpeed's
pipeline. DeepSpeed ties whole modules, so the head is the embedding module with another function, and the final norm
is an entry of its own. The embedding's own norm (`model.embedding_norm`) is on the first stage alone: the tied copy of
the last stage is built without it. GLM-130B, figure 2 and section 2.1.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from configs.schema import ModelConfig
from glm.embedding import WordEmbedding, hidden_states, output_logits
from glm.layer import FinalNorm
from glm.pre_norm import layer_class
from glm.tensor_parallel import ensure_initialised

TIED_KEY = "embed"
TIED_WEIGHT = "word_embeddings.weight"
EMBEDDING_NAME = TIED_WEIGHT
"""Name that `parameter_name` gives to the tied matrix."""


@dataclass(frozen=True)
class LayerDef:
    """One entry of the list, not built yet."""

    cls: type[nn.Module]
    kwargs: dict[str, Any] = field(default_factory=dict)
    tied_key: str | None = None
    """Entries with the same key share one module."""
    tied_weight: str = ""
    """Path of the shared parameter inside the module."""
    forward: Callable[..., Any] | None = None
    """Function called as forward(module, inputs); None: the module's own forward."""


def layer_list(model: ModelConfig, seed: int, is_sequence_cut: bool = False) -> list[LayerDef]:
    """Describe the model as num_layers + 3 entries.

    Args:
        model: sizes and options.
        seed: of the initial weights and of dropout.
        is_sequence_cut: hidden states are cut over the tensor-parallel ranks by tokens.
    """
    cut = {"is_sequence_cut": is_sequence_cut}
    head = {"model": model, "seed": seed, **cut}
    return [
        LayerDef(WordEmbedding, {**head, "reads_tokens": True}, TIED_KEY, TIED_WEIGHT),
        *(
            LayerDef(layer_class(model), {"model": model, "layer": layer, "seed": seed, **cut})
            for layer in range(model.num_layers)
        ),
        LayerDef(FinalNorm, {"model": model, **cut}),
        LayerDef(WordEmbedding, head, TIED_KEY, TIED_WEIGHT, hidden_states),
    ]


def parameter_name(pipeline_name: str, num_layers: int) -> str:
    """Stable name of a parameter, from the one that DeepSpeed's pipeline module gives it.

    "tied_modules.embed.word_embeddings.weight" -> "word_embeddings.weight"; "3.mlp.dense_out.bias" ->
    "layers.2.mlp.dense_out.bias"; entry num_layers + 1 is the final norm.
    """
    prefix = f"tied_modules.{TIED_KEY}."
    if pipeline_name.startswith(prefix):
        return pipeline_name[len(prefix) :]
    entry, _, path = pipeline_name.partition(".")
    if int(entry) == num_layers + 1:
        return f"final_{path}"
    return f"layers.{int(entry) - 1}.{path}"


def layer_index(name: str) -> int | None:
    """Index of the Transformer layer of a parameter, from its stable name; None outside of the layers."""
    first, _, rest = name.partition(".")
    return int(rest.partition(".")[0]) if first == "layers" else None


class GLMModel(nn.Module):
    """The list, run in one process.

    Args:
        config: sizes and options.
        seed: of the initial weights and of dropout.
    """

    def __init__(self, config: ModelConfig, seed: int) -> None:
        super().__init__()
        ensure_initialised()
        self.config = config
        self.embedding = WordEmbedding(config, seed, reads_tokens=True)
        self.layers = nn.ModuleList(
            layer_class(config)(config, layer, seed) for layer in range(config.num_layers)
        )
        self.final = FinalNorm(config)

    def forward(self, tokens: Tensor, fields: Tensor) -> Tensor:
        """Compute the logits of all targets.

        Args:
            tokens: (batch, seq).
            fields: (batch, 6, seq); its target field says where logits are wanted.

        Returns:
            (targets, vocab) logits.
        """
        return output_logits(self.embedding, self.final_state(tokens, fields))

    def final_state(self, tokens: Tensor, fields: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden states (tokens, hidden) after the final norm, and the fields."""
        state = self.embedding((tokens, fields))
        for layer in self.layers:
            state = layer(state)
        return self.final(state)

    def stable_parameters(self) -> dict[str, nn.Parameter]:
        """Parameters by the names that checkpoints use."""
        named = {}
        for name, parameter in self.named_parameters():
            stable = name.removeprefix("embedding.").replace("final.norm.", "final_norm.")
            named[stable] = parameter
        return named
