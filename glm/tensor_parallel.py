"""The only module that imports Megatron-core, and uses its layers: matrices cut over the tensor-parallel ranks.

Column-parallel layers cut their output, row-parallel layers their input, the embedding its vocabulary. Each weight is
filled here, slice by slice, from (seed, name, global position): no rank ever holds a whole matrix, and every cut of
the same matrix starts from the same numbers. Shoeybi et al. 2019.

In a plain process without a launcher `ensure_initialised` opens a group of one, which Megatron's layers need. A layer
keeps the group that it was built in: with `whole_layers` a rank of a session builds a model of its own, beside the one
that is cut over the ranks.
"""

import contextlib
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from glm.counter_random import key_of, normal_
from glm.light_imports import light_imports

with light_imports(), warnings.catch_warnings():
    warnings.simplefilter(
        "ignore"
    )  # it recommends Transformer Engine and Apex, which are optional here
    from megatron.core import ModelParallelConfig, parallel_state
    from megatron.core.tensor_parallel import (
        ColumnParallelLinear,
        RowParallelLinear,
        VocabParallelEmbedding,
        set_tensor_model_parallel_attributes,
        vocab_parallel_cross_entropy,
    )
    from megatron.core.tensor_parallel.layers import (
        linear_with_grad_accumulation_and_async_allreduce,
    )


# The group of this process alone, while `whole_layers` is active; None: the session's group.
_alone: ContextVar[Any] = ContextVar("alone", default=None)


def ensure_initialised() -> None:
    """Open a process group of one and Megatron's groups over it, unless a session has opened its own."""
    if not dist.is_initialized():
        hook = sys.excepthook
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        # PyTorch puts [rank0]: before every line of a traceback; a user's plain script has no ranks.
        sys.excepthook = hook
    if not parallel_state.is_initialized():
        parallel_state.initialize_model_parallel()


@contextlib.contextmanager
def whole_layers() -> Iterator[None]:
    """Build layers that this process alone holds and runs, even within a session; no other rank takes part."""
    ensure_initialised()
    group = None
    if tp_size() > 1:
        group = dist.new_group([dist.get_rank()], backend="gloo", use_local_synchronization=True)
    token = _alone.set(group)
    try:
        yield
    finally:
        _alone.reset(token)


def tp_size() -> int:
    """Number of ranks that share each layer that is built now."""
    return dist.get_world_size(_group())


def tp_rank() -> int:
    """This rank's index among them."""
    return dist.get_rank(_group())


def partition_dim(parameter: Tensor) -> int | None:
    """Axis along which a parameter is cut over the tensor-parallel ranks; None if every rank holds it whole."""
    if not getattr(parameter, "tensor_model_parallel", False):
        return None
    return int(cast(Any, parameter).partition_dim)


class ColumnLinear(nn.Module):
    """y = x A^T + b with the rows of A, the outputs, cut over the ranks.

    Args:
        input_size: width of x, whole on every rank.
        output_size: width of y over all ranks.
        seed: of the initial weights.
        name: of this layer; "<name>.weight" keys its numbers.
        row_stds: standard deviations of the initial rows, repeating down the whole matrix: one number, or one per
            row of a repeating pattern given as (std, rows) pairs.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        seed: int,
        name: str,
        row_stds: Sequence[tuple[float, int]],
    ) -> None:
        super().__init__()
        layer = ColumnParallelLinear(
            input_size,
            output_size,
            config=_config(),
            init_method=_no_init,
            gather_output=False,
            tp_group=_group(),
        )
        assert layer.weight is not None, "it was asked to allocate one"
        _claim(layer.weight, 0)
        # Keep Megatron's layer out of the parameter names: they are part of the checkpoint format.
        self.weight: nn.Parameter = layer.weight
        self.bias = layer.bias
        object.__setattr__(self, "_tp_group", _group())
        first = tp_rank() * layer.output_size_per_partition
        _fill_rows(self.weight, row_stds, key_of(seed, f"{name}.weight"), first)
        _zero(self.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (..., input_size) to (..., output_size / tp)."""
        return _linear(inputs, self.weight, self.bias, self.__dict__["_tp_group"])


class RowLinear(nn.Module):
    """y = x A^T + b with the columns of A, the inputs, cut over the ranks; the result is summed over them.

    Args:
        input_size: width of x over all ranks.
        output_size: width of y, whole on every rank.
        seed: of the initial weights.
        name: of this layer.
        std: standard deviation of the initial weights.
    """

    def __init__(self, input_size: int, output_size: int, seed: int, name: str, std: float) -> None:
        super().__init__()
        layer = RowParallelLinear(
            input_size,
            output_size,
            config=_config(),
            init_method=_no_init,
            bias=True,
            input_is_parallel=True,
            skip_bias_add=False,
            tp_group=_group(),
        )
        _claim(layer.weight, 1)
        self.weight, self.bias = layer.weight, layer.bias
        object.__setattr__(self, "_layer", layer)
        first = tp_rank() * layer.input_size_per_partition
        key = key_of(seed, f"{name}.weight")
        normal_(self.weight.data, std, key, full_width=input_size, column_offset=first)
        _zero(self.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (..., input_size / tp) to (..., output_size)."""
        layer = self.__dict__["_layer"]
        # DeepSpeed may have replaced the parameters that Megatron's layer was built with.
        layer.weight, layer.bias = self.weight, self.bias
        outputs, _ = layer(inputs)
        return outputs


class VocabEmbedding(nn.Module):
    """Lookup table with its rows, the vocabulary, cut over the ranks; also the tied output matrix."""

    def __init__(self, vocab_size: int, hidden_size: int, seed: int, name: str, std: float) -> None:
        super().__init__()
        layer = VocabParallelEmbedding(
            vocab_size, hidden_size, init_method=_no_init, config=_config(), tp_group=_group()
        )
        _claim(layer.weight, 0)
        self.weight = layer.weight
        object.__setattr__(self, "_layer", layer)
        key = key_of(seed, f"{name}.weight")
        normal_(self.weight.data, std, key, hidden_size, row_offset=layer.vocab_start_index)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (batch, seq) ids to (batch, seq, hidden)."""
        layer = self.__dict__["_layer"]
        layer.weight = self.weight
        return layer(tokens)

    @property
    def first_row(self) -> int:
        """Global id of this rank's first row."""
        return self.__dict__["_layer"].vocab_start_index

    @property
    def tp_group(self) -> Any:
        """The ranks that share the table."""
        return self.__dict__["_layer"].tp_group

    def logits(self, hidden: Tensor, weight: Tensor) -> Tensor:
        """Map (targets, hidden) to (targets, vocab_local), with the table (or a view of it) as the output matrix."""
        return _linear(hidden, weight, None, self.__dict__["_layer"].tp_group)


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy over the whole vocabulary, in fp32; `logits` are overwritten.

    Args:
        logits: (targets, vocab_local).
        targets: (targets,) global ids.

    Returns:
        (targets,) fp32.
    """
    return vocab_parallel_cross_entropy(logits.float(), targets)


def _linear(inputs: Tensor, weight: Tensor, bias: Tensor | None, group: Any) -> Tensor:
    """Matrix product whose backward pass sums the input's gradient over the ranks."""
    return linear_with_grad_accumulation_and_async_allreduce(
        input=inputs,
        weight=weight,
        bias=bias,
        gradient_accumulation_fusion=False,
        allreduce_dgrad=dist.get_world_size(group) > 1,
        sequence_parallel=False,
        tp_group=group,
    )


def _group() -> Any:
    return _alone.get() or parallel_state.get_tensor_model_parallel_group()


def _config() -> ModelParallelConfig:
    # "CPU initialisation" only means: allocate on torch's default device, which also serves meta and CUDA.
    return ModelParallelConfig(
        tensor_model_parallel_size=tp_size(),
        use_cpu_initialization=True,
        perform_initialization=False,
        gradient_accumulation_fusion=False,
    )


def _no_init(weight: Tensor) -> Tensor:
    return weight


def _claim(weight: Tensor, dim: int) -> None:
    # Megatron sets these only when it initialises; DeepSpeed's gradient norm and our checkpoints read them.
    set_tensor_model_parallel_attributes(weight, True, dim, 1)


def _zero(parameter: Tensor) -> None:
    with torch.no_grad():
        parameter.zero_()


def _fill_rows(
    weight: Tensor, row_stds: Sequence[tuple[float, int]], key: tuple[int, int], first: int
) -> None:
    """Fill rows [first, first + rows) of the whole matrix, whose rows follow a repeating pattern of stds."""
    normal_(weight.data, 1.0, key, full_width=weight.shape[1], row_offset=first)
    if weight.is_meta:
        return
    pattern = torch.cat([torch.full((rows,), std) for std, rows in row_stds])
    place = torch.arange(first, first + weight.shape[0]) % len(pattern)
    with torch.no_grad():
        weight.mul_(pattern[place][:, None].to(weight))
