"""A layer and its fused functions against the formulas, written with plain operations that PyTorch differentiates."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from configs.schema import AttentionPath, ModelConfig, Norm
from glm.dropout import Dropout
from glm.embedding import WordEmbedding
from glm.fused import FUSED, Fused, observing, traffic
from glm.layer import FinalNorm, GLMLayer
from glm.norm import LayerNorm, add, add_norm, norm
from glm.pre_norm import SandwichLayer, layer_class
from glm.row_fields import BLOCK_POSITION, POSITION, SAMPLE, may_attend, pack_fields
from glm.tensor_parallel import ensure_initialised

SEQ = 32


def fields_of_two_rows() -> Tensor:
    """A long segment with context and targets, and two shorter ones with padding after them."""
    contexts = [[(1, 20, 12)], [(1, 10, 3), (2, 8, 6)]]
    segment = torch.zeros(2, SEQ, dtype=torch.int64)
    context = torch.zeros(2, SEQ, dtype=torch.bool)
    block = torch.zeros(2, SEQ, dtype=torch.int64)
    for row, segments in enumerate(contexts):
        place = 0
        for number, before, targets in segments:
            segment[row, place : place + before + targets] = number
            context[row, place : place + before] = True
            block[row, place + before : place + before + targets] = torch.arange(1, targets + 1)
            place += before + targets
    position = torch.arange(SEQ).expand(2, SEQ)
    is_target = (segment > 0) & ~context
    return pack_fields(segment, context, position, block, is_target, torch.tensor([3, 2**33]))


def model_of(**options: Any) -> ModelConfig:
    """A small model."""
    sizes = {"num_layers": 4, "hidden_size": 32, "num_heads": 4, "ffn_size": 48, "seq_length": SEQ}
    return ModelConfig(**sizes, **options)


def layer_of(**options: Any) -> tuple[GLMLayer, Tensor, Tensor]:
    """A layer in double precision, with an input and the fields of two rows."""
    ensure_initialised()
    model = model_of(**options)
    layer = layer_class(model)(model, layer=2, seed=5).double()
    generator = torch.Generator().manual_seed(1)
    for parameter in layer.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data.add_(noise, alpha=0.05)
    hidden = torch.randn(2 * SEQ, 32, generator=generator, dtype=torch.float64)
    return layer, hidden.requires_grad_(), fields_of_two_rows()


def plain_layer(layer: GLMLayer, hidden: Tensor, fields: Tensor, variant: Norm) -> Tensor:
    """The layer's formulas."""
    alpha = math.sqrt(2 * 4) if variant is Norm.deepnorm else 1.0

    def normed(module: LayerNorm, values: Tensor) -> Tensor:
        shape = module.weight.shape
        return functional.layer_norm(values, shape, module.weight, module.bias, module.epsilon)

    def dropped(dropout: Dropout, values: Tensor) -> Tensor:
        if dropout.probability == 0:
            return values
        samples = fields[:, SAMPLE, 0]
        kept = dropout.kept(samples, torch.zeros_like(samples), values[0].numel())
        return values * kept.mask.view_as(values) / (1 - dropout.probability)

    x = hidden.view(2, SEQ, 32)
    h = normed(layer.input_norm, x)
    of_attention = dropped(
        layer._attention_dropout, plain_attention(layer, h, fields, normed, dropped)
    )
    if isinstance(layer, SandwichLayer):
        of_attention = normed(layer.attention_output_norm, of_attention)
    is_post = variant in (Norm.deepnorm, Norm.post)
    a = alpha * (h if is_post else x) + of_attention
    m = normed(layer.post_attention_norm, a)
    mlp = layer.mlp
    value = functional.linear(m, mlp.dense_value.weight, mlp.dense_value.bias)
    gate = functional.linear(m, mlp.dense_gate.weight, mlp.dense_gate.bias)
    inner = value * gate * (1 + torch.erf(gate / math.sqrt(2))) / 2
    expanded = functional.linear(inner, mlp.dense_out.weight, mlp.dense_out.bias)
    of_mlp = dropped(layer._mlp_dropout, expanded)
    if isinstance(layer, SandwichLayer):
        of_mlp = normed(layer.mlp_output_norm, of_mlp)
    return (alpha * (m if is_post else a) + of_mlp).view(2 * SEQ, 32)


def plain_attention(
    layer: GLMLayer,
    h: Tensor,
    fields: Tensor,
    normed: Callable[[LayerNorm, Tensor], Tensor],
    dropped: Callable[[Dropout, Tensor], Tensor],
) -> Tensor:
    """Attention as in the paper."""
    attention = layer.attention
    qkv = functional.linear(h, attention.query_key_value.weight, attention.query_key_value.bias)
    q, k, v = qkv.view(2, SEQ, 4, 24).transpose(1, 2).chunk(3, dim=-1)
    if attention.query_norm is not None and attention.key_norm is not None:
        q, k = normed(attention.query_norm, q), normed(attention.key_norm, k)

    def rotate(values: Tensor, ids: Tensor) -> Tensor:
        size = values.shape[-1]
        frequencies = 1e4 ** (-torch.arange(0, size, 2) / size)
        angles = (ids[:, None, :, None] * frequencies).float()
        first, second = values.chunk(2, dim=-1)
        turned = torch.complex(first, second) * torch.polar(torch.ones_like(angles), angles)
        return torch.cat([turned.real, turned.imag], dim=-1)

    def rotate_head(values: Tensor) -> Tensor:
        if not attention._model.rope_2d:
            return rotate(values, fields[:, POSITION])
        by_position, by_block = values.chunk(2, dim=-1)
        parts = (
            rotate(by_position, fields[:, POSITION]),
            rotate(by_block, fields[:, BLOCK_POSITION]),
        )
        return torch.cat(parts, dim=-1)

    scores = rotate_head(q) @ rotate_head(k).transpose(-1, -2) / math.sqrt(8)
    weights = scores.masked_fill(~may_attend(fields)[:, None], -math.inf).softmax(-1)
    mixed = (dropped(attention._dropout, weights) @ v).transpose(1, 2).reshape(2, SEQ, 32)
    return functional.linear(mixed, attention.dense.weight, attention.dense.bias)


CASES: dict[str, dict[str, Any]] = {
    "sdpa": {},
    "reference": {"attention": AttentionPath.reference},
    "hidden dropout": {"hidden_dropout": 0.2},
    "dropout of weights": {"attention_dropout": 0.2},
    "two dimensions": {"rope_2d": True},
    "post": {"norm": Norm.post},
    "pre": {"norm": Norm.pre},
    "pre, dropout": {"norm": Norm.pre, "hidden_dropout": 0.2, "attention_dropout": 0.2},
    "sandwich": {"norm": Norm.sandwich},
    "sandwich, dropout": {"norm": Norm.sandwich, "hidden_dropout": 0.2},
    "norms of queries and keys": {"qk_norm": True},
    "the same in two dimensions": {"qk_norm": True, "rope_2d": True, "norm": Norm.sandwich},
    "softmax without fp32": {"softmax_fp32": False},
    "the same with dropout": {"softmax_fp32": False, "attention_dropout": 0.2},
}


@pytest.mark.parametrize("case", CASES)
def test_a_layer_and_its_gradients_are_those_of_the_formulas(case: str) -> None:
    layer, hidden, fields = layer_of(**CASES[case])
    weights = torch.randn(2 * SEQ, 32, dtype=torch.float64)
    computed, _ = layer((hidden, fields))
    parameters = dict(layer.named_parameters())
    inputs = [hidden, *parameters.values()]
    gradients = torch.autograd.grad((computed * weights).sum(), inputs)
    expected = plain_layer(layer, hidden, fields, CASES[case].get("norm", Norm.deepnorm))
    # Queries and keys are turned in fp32.
    torch.testing.assert_close(computed, expected, rtol=1e-5, atol=1e-5)
    wanted = torch.autograd.grad((expected * weights).sum(), inputs)
    for name, gradient, other in zip(["hidden", *parameters], gradients, wanted, strict=True):
        scale = float(other.abs().max())
        torch.testing.assert_close(gradient / scale, other / scale, rtol=1e-4, atol=1e-5, msg=name)


def test_sums_and_norms_have_the_gradients_of_the_formulas() -> None:
    generator = torch.Generator().manual_seed(0)
    x, branch = (
        torch.randn(6, 8, dtype=torch.float64, generator=generator).requires_grad_()
        for _ in range(2)
    )
    bias = torch.randn(8, dtype=torch.float64, generator=generator).requires_grad_()
    first, second = (LayerNorm(8, 1e-5).double() for _ in range(2))
    samples = torch.arange(6)
    kept = Dropout(0.4, 1, 0, "mlp_output").kept(samples, torch.zeros_like(samples), 8)
    for kept_or_all in (None, kept):
        mask = torch.ones(6, 8) if kept_or_all is None else kept.mask.double() / 0.6
        normed, residual = norm(first, x, 3.0)
        again, residual = add_norm(second, residual, branch * normed, bias, kept_or_all, 3.0)
        result = add(residual, branch * again, bias, kept_or_all, 3.0)

        def plain(module: LayerNorm, values: Tensor) -> Tensor:
            return functional.layer_norm(values, (8,), module.weight, module.bias, 1e-5)

        one = plain(first, x)
        two = plain(second, 3 * one + (branch * one + bias) * mask)
        expected = 3 * two + (branch * two + bias) * mask
        torch.testing.assert_close(result, expected)
        inputs = [x, branch, bias, *first.parameters(), *second.parameters()]
        ours, theirs = (torch.autograd.grad(y.pow(3).sum(), inputs) for y in (result, expected))
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, other)


def test_a_layer_makes_one_kernel_of_each_fused_function() -> None:
    layer, hidden, fields = layer_of(hidden_dropout=0.1, attention_dropout=0.1)
    called: list[str] = []

    def observe(function: Fused, arguments: tuple[object, ...]) -> object:
        called.append(function.name)
        return function.function(*arguments)

    with observing(observe):
        layer((hidden, fields))[0].sum().backward()
    assert called == [
        *("layer_norm", "rotated_heads", "keep_mask", "masked_softmax", "keep_mask"),
        *("residual_norm", "geglu", "keep_mask", "residual_sum"),
        *("kept_gradient", "geglu_gradients", "norm_input_gradient", "norm_parameter_gradients"),
        *("kept_gradient", "masked_softmax_gradient", "rotated_heads_gradient"),
        *("norm_input_gradient", "norm_parameter_gradients"),
    ]
    assert set(called) == set(FUSED)


def test_declared_traffic_counts_each_tensor_once_and_an_expanded_axis_not_at_all() -> None:
    matrix = torch.zeros(4, 8)
    assert traffic((matrix, 2.0, None)) == 128
    assert traffic([matrix, matrix]) == 128
    assert traffic(matrix[:1].expand(4, 8)) == 32
    assert traffic((matrix, matrix[:2].half())) == 128 + 32


@pytest.fixture(autouse=True)
def _no_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No computation on CPU may need a compiler."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("torch.compile was called")

    monkeypatch.setattr(torch, "compile", refuse)
    yield


def test_embedding_and_final_norm_keep_the_shape_of_tokens() -> None:
    ensure_initialised()
    config = model_of(hidden_dropout=0.5)
    fields = fields_of_two_rows()
    embedding = WordEmbedding(config, seed=0)
    hidden, same = embedding((torch.zeros(2, SEQ, dtype=torch.int64), fields))
    assert hidden.shape == (2 * SEQ, config.hidden_size) and same is fields
    share = float((hidden == 0).float().mean())
    assert 0.45 < share < 0.55
    assert FinalNorm(config)((hidden, fields))[0].shape == hidden.shape
