"""Initial weights of the norm variants, the embedding's norm, and a softmax that rounds, by hand."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from configs import derive
from configs.errors import ConfigError
from configs.load import load_config
from configs.schema import ModelConfig, Norm, Precision
from glm.attention_paths import rounded_attention
from glm.dropout import KeptElements
from glm.embedding import WordEmbedding
from glm.gains import Gains, gains_of
from glm.layer import GLMLayer
from glm.model import GLMModel
from glm.pre_norm import PreNormLayer, SandwichLayer, layer_class
from glm.row_fields import pack_fields
from glm.row_plan import RowPlan
from glm.tensor_parallel import ensure_initialised
from train.start import check_precision

# 8 layers: alpha is 4 and beta 1/4.
SIZES: dict[str, Any] = {
    "num_layers": 8,
    "hidden_size": 64,
    "num_heads": 4,
    "ffn_size": 128,
    "vocab_size": 32,
    "vocab_multiple": 8,
    "seq_length": 32,
}
OF_SQUARE, OF_FFN = math.sqrt(2 / 128), math.sqrt(2 / 192)


def model_of(**options: Any) -> ModelConfig:
    return ModelConfig(**SIZES, **options)


@pytest.mark.parametrize(
    ("variant", "cls", "gains"),
    [
        (Norm.deepnorm, GLMLayer, Gains(4.0, 0.25, 0.25, 0.25, 0.25)),
        (Norm.post, GLMLayer, Gains(1.0, 1.0, 1.0, 1.0, 1.0)),
        (Norm.pre, PreNormLayer, Gains(1.0, 1.0, 0.25, 1.0, 0.25)),
        (Norm.sandwich, SandwichLayer, Gains(1.0, 1.0, 0.25, 1.0, 0.25)),
    ],
)
def test_every_variant_begins_with_its_own_weights(
    variant: Norm, cls: type[GLMLayer], gains: Gains
) -> None:
    ensure_initialised()
    model = model_of(norm=variant)
    assert gains_of(model) == gains
    assert layer_class(model) is cls
    layer = cls(model, 0, seed=1)
    qkv = layer.attention.query_key_value.weight.view(4, 3, 16, 64)
    found = {
        "queries": (qkv[:, 0], OF_SQUARE),
        "keys": (qkv[:, 1], OF_SQUARE),
        "values": (qkv[:, 2], OF_SQUARE * gains.value),
        "attention output": (layer.attention.dense.weight, OF_SQUARE * gains.attention_output),
        "value": (layer.mlp.dense_value.weight, OF_FFN * gains.ffn_input),
        "gate": (layer.mlp.dense_gate.weight, OF_FFN * gains.ffn_input),
        "output": (layer.mlp.dense_out.weight, OF_FFN * gains.ffn_output),
    }
    for name, (weights, std) in found.items():
        # Of 4,096 numbers or more: the deviation of a deviation is 1.1 %.
        assert float(weights.std()) == pytest.approx(std, rel=0.05), name
    for name, parameter in layer.named_parameters():
        if parameter.dim() == 1:
            is_norm_weight = "norm.weight" in name
            assert torch.equal(parameter, torch.full_like(parameter, float(is_norm_weight))), name


@pytest.mark.parametrize(
    "options",
    [{"norm": each} for each in Norm]
    + [{"norm": Norm.sandwich, "embedding_norm": True, "qk_norm": True}],
    ids=str,
)
def test_a_model_has_the_derived_number_of_parameters(options: dict[str, Any]) -> None:
    model = model_of(**options)
    parameters = GLMModel(model, seed=0).stable_parameters()
    assert sum(each.numel() for each in parameters.values()) == derive.parameters(model)
    assert ("embedding_norm.bias" in parameters) is model.embedding_norm


def test_the_variants_share_every_number_but_for_the_gains() -> None:
    """A matrix is drawn from its name alone, so a study compares the same draws."""
    default, pre = (GLMModel(model_of(norm=each), seed=3) for each in (Norm.deepnorm, Norm.pre))
    one, other = default.stable_parameters(), pre.stable_parameters()
    torch.testing.assert_close(
        4 * one["layers.5.mlp.dense_gate.weight"], other["layers.5.mlp.dense_gate.weight"]
    )
    for name in ("word_embeddings.weight", "layers.5.mlp.dense_out.weight"):
        assert torch.equal(one[name], other[name])


def fields_of_one_segment() -> Tensor:
    """Two rows of 32 tokens, the second half of each targets."""
    place = torch.arange(32).expand(2, 32)
    is_context = place < 16
    numbers = torch.tensor([3, 4])
    return pack_fields(torch.ones_like(place), is_context, place, place, ~is_context, numbers)


def test_the_embeddings_norm_acts_between_lookup_and_dropout() -> None:
    ensure_initialised()
    config = model_of(embedding_norm=True, hidden_dropout=0.25)
    embedding = WordEmbedding(config, seed=0, reads_tokens=True)
    embedding.gradient_shrink = 0.5
    module = embedding.embedding_norm
    assert module is not None
    torch.nn.init.normal_(module.weight, 1.0, 0.1, generator=torch.Generator().manual_seed(1))
    torch.nn.init.normal_(module.bias, 0.0, 0.1, generator=torch.Generator().manual_seed(2))
    tokens = torch.arange(64).view(2, 32) % 30
    hidden, _ = embedding((tokens, fields_of_one_segment()))
    rows = embedding.weight[tokens.view(-1)]
    normed = functional.layer_norm(
        rows, (64,), module.weight, module.bias, config.layernorm_epsilon
    )
    is_kept = hidden != 0
    assert 0.7 < float(is_kept.float().mean()) < 0.8
    torch.testing.assert_close(hidden[is_kept], normed[is_kept] / 0.75)
    weights = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(3))
    inputs = [embedding.weight, module.weight, module.bias]
    ours = torch.autograd.grad((hidden * weights).sum(), inputs)
    plain = torch.autograd.grad((normed * is_kept / 0.75 * weights).sum(), inputs)
    # The shrink is the embedding's alone.
    for mine, other, factor in zip(ours, plain, (0.5, 1.0, 1.0), strict=True):
        torch.testing.assert_close(mine, factor * other)


def test_a_head_by_itself_has_no_norm() -> None:
    ensure_initialised()
    embedding = WordEmbedding(model_of(embedding_norm=True), seed=0)
    assert [name for name, _ in embedding.named_parameters()] == ["word_embeddings.weight"]


def bf16(value: float) -> float:
    return float(torch.tensor(value).bfloat16())


def rounded_weights(kept: KeptElements | None = None) -> list[float]:
    """What the last of 32 tokens gives to all of them, whose scores are 0, 0.34, 0.68, ... in bf16."""
    q, k = (torch.zeros(2, 1, 32, 32, dtype=torch.bfloat16) for _ in range(2))
    q[..., 0] = 2 * math.sqrt(32)
    k[..., 0] = torch.arange(32) * 0.17
    v = torch.eye(32, dtype=torch.bfloat16).expand(2, 1, 32, 32)
    plan = RowPlan.of(fields_of_one_segment())
    return rounded_attention(q, k, v, plan, kept)[0, 0, -1].tolist()


def test_every_step_of_a_softmax_without_fp32_rounds() -> None:
    scale = bf16(bf16(2 * math.sqrt(32)) / math.sqrt(32))
    scores = [bf16(scale * bf16(number * 0.17)) for number in range(32)]
    exponentials = [bf16(math.exp(bf16(score - scores[-1]))) for score in scores]
    total = bf16(sum(exponentials))
    expected = [bf16(each / total) for each in exponentials]
    assert rounded_weights() == expected
    exact = torch.tensor(scores).softmax(-1).bfloat16().tolist()
    assert expected != exact, "an FP32 softmax that is rounded once gives other numbers"


def test_dropout_of_rounded_weights() -> None:
    mask = torch.ones(2, 1, 32, 32, dtype=torch.bool)
    mask[..., 1] = False
    found = rounded_weights(KeptElements(mask, 0.5))
    expected = [2 * each for each in rounded_weights()]
    expected[1] = 0.0
    assert found == expected


def test_precision_auto_that_becomes_fp32_refuses_a_softmax_without_it() -> None:
    config = load_config(["precision=auto", "model.softmax_fp32=false"])
    check_precision(config, Precision.bf16)
    with pytest.raises(
        ConfigError, match=r"precision \(auto: fp32 on this device\).*Try precision=bf16"
    ):
        check_precision(config, Precision.fp32)
