"""The layers whose residual is not normalised: Pre-LN and Sandwich-LN, which GLM-130B's team tried before DeepNorm.

    pre                                          sandwich
    a  = x + Dropout(Attention(LayerNorm_in(x)))     a  = x + LayerNorm_3(Dropout(Attention(LayerNorm_in(x))))
    x' = a + Dropout(GeGLU(LayerNorm_post(a)))       x' = a + LayerNorm_4(Dropout(GeGLU(LayerNorm_post(a))))

Pre-LN: Radford et al. 2019, section 2.3. Sandwich-LN: Ding et al. 2021 (CogView), section 2.3. CogView's PB-Relax is not
part of it: in exact arithmetic it changes nothing, and GLM-130B's team found it slow and needless (appendix F). The
gains of the initial weights are in glm/gains.py.

These layers run a few kernels more than the default one, whose sums and norms are fused.
"""

from torch import Tensor

from configs.schema import ModelConfig, Norm
from glm.dropout import KeptElements, drop
from glm.layer import GLMLayer
from glm.norm import LayerNorm, add, norm
from glm.row_plan import RowPlan


class PreNormLayer(GLMLayer):
    """A layer with Pre-LN; arguments and parameters as in `GLMLayer`."""

    def forward(self, inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Map (hidden (tokens, hidden), fields (batch, 6, seq)) to the same shapes."""
        hidden, fields = inputs
        plan = RowPlan.of(fields)
        mixed = self.attention(norm(self.input_norm, hidden)[0], plan)
        kept = self._kept(self._attention_dropout, hidden, plan)
        hidden = self._after_attention(hidden, mixed, self.attention.dense.bias, kept)
        expanded = self.mlp(norm(self.post_attention_norm, hidden)[0])
        kept = self._kept(self._mlp_dropout, hidden, plan)
        return self._after_mlp(hidden, expanded, self.mlp.dense_out.bias, kept), fields

    def _after_attention(
        self, residual: Tensor, branch: Tensor, bias: Tensor, kept: KeptElements | None
    ) -> Tensor:
        return add(residual, branch, bias, kept, self._alpha)

    def _after_mlp(
        self, residual: Tensor, branch: Tensor, bias: Tensor, kept: KeptElements | None
    ) -> Tensor:
        return add(residual, branch, bias, kept, self._alpha)


class SandwichLayer(PreNormLayer):
    """A layer with Sandwich-LN: Pre-LN, and a LayerNorm at the end of each branch; arguments as in `GLMLayer`."""

    def __init__(
        self, model: ModelConfig, layer: int, seed: int, is_sequence_cut: bool = False
    ) -> None:
        super().__init__(model, layer, seed, is_sequence_cut)
        sizes = (model.hidden_size, model.layernorm_epsilon, is_sequence_cut)
        self.attention_output_norm = LayerNorm(*sizes)
        self.mlp_output_norm = LayerNorm(*sizes)

    def _after_attention(
        self, residual: Tensor, branch: Tensor, bias: Tensor, kept: KeptElements | None
    ) -> Tensor:
        return residual + _normed_branch(self.attention_output_norm, branch, bias, kept)

    def _after_mlp(
        self, residual: Tensor, branch: Tensor, bias: Tensor, kept: KeptElements | None
    ) -> Tensor:
        return residual + _normed_branch(self.mlp_output_norm, branch, bias, kept)


def layer_class(model: ModelConfig) -> type[GLMLayer]:
    """The class of all layers of a model."""
    return {
        Norm.deepnorm: GLMLayer,
        Norm.post: GLMLayer,
        Norm.pre: PreNormLayer,
        Norm.sandwich: SandwichLayer,
    }[model.norm]


def _normed_branch(
    module: LayerNorm, branch: Tensor, bias: Tensor, kept: KeptElements | None
) -> Tensor:
    branch = branch + bias
    return norm(module, branch if kept is None else drop(branch, kept))[0]
