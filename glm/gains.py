"""What a norm variant multiplies: the residual, and the initial weights inside the branches.

All matrices of a layer are drawn Xavier-normal, with the gains given here; biases start at 0, norms at weight 1. So the
variants differ by these factors alone, and one rule serves every width.

- deepnorm: residual times alpha; beta for values, attention output and feed-forward. GLM-130B, section 2.1.
- post: plain Post-LN: no alpha, and gain 1 everywhere. Vaswani et al. 2017.
- pre: gain 1, and (2L)^(-1/2) for the two matrices that write to the residual: GPT-2's scaling, which Megatron-LM and
  GLM's smaller models use too (there on a fixed deviation, such as 0.02). Radford et al. 2019, section 2.3.
- sandwich: as pre; CogView's code draws its weights as Megatron-LM does. Ding et al. 2021, section 2.3.
"""

from dataclasses import dataclass

from configs.schema import ModelConfig, Norm
from glm.deepnorm import alpha, beta


@dataclass(frozen=True)
class Gains:
    """The factors of one model; queries and keys always have gain 1."""

    residual: float
    """Of the residual in every sum."""
    value: float
    attention_output: float
    ffn_input: float
    """Of value and gate of the GeGLU."""
    ffn_output: float


def gains_of(model: ModelConfig) -> Gains:
    """The factors that `model.norm` stands for."""
    inside = beta(model.num_layers)
    if model.norm is Norm.deepnorm:
        return Gains(alpha(model.num_layers), inside, inside, inside, inside)
    if model.norm is Norm.post:
        return Gains(1.0, 1.0, 1.0, 1.0, 1.0)
    # DeepNorm's beta is the same number, (2L)^(-1/2).
    return Gains(1.0, 1.0, inside, 1.0, inside)
