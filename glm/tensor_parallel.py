"""Matrices cut over the tensor-parallel ranks; the module that imports Megatron-core, for its groups and losses.

Column-parallel layers cut their output, row-parallel layers their input, the embedding its vocabulary. Each weight is
filled here, slice by slice, from (seed, name, global position): no rank ever holds a whole matrix, and every cut of
the same matrix starts from the same numbers. Shoeybi et al. 2019.

In a plain process without a launcher `ensure_initialised` opens a group of one, which the layers need. A layer keeps
the group that it was built in: with `whole_layers` a rank of a session builds a model of its own, beside the one that
is cut over the ranks.

With sequence parallelism (`is_sequence_cut`) what lies between the matrices (norms, residuals, dropout) is cut over the
same ranks by tokens: a row-parallel layer scatters its sum, and the next column-parallel one gathers it. Korthikanti et
al. 2022, section 4.2.
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

from glm.collectives import Gather, ScatterSum, Sum
from glm.counter_random import key_of, normal_
from glm.light_imports import light_imports
from glm.linear import linear
from glm.lookup import lookup

with light_imports(), warnings.catch_warnings():
    warnings.simplefilter(
        "ignore"
    )  # it recommends Transformer Engine and Apex, which are optional here
    from megatron.core import parallel_state
    from megatron.core.tensor_parallel import (
        set_tensor_model_parallel_attributes,
        vocab_parallel_cross_entropy,
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


def tp_group() -> Any:
    """The ranks that share each layer that is built now."""
    return _alone.get() or parallel_state.get_tensor_model_parallel_group()


def tp_size() -> int:
    """Number of ranks that share each layer that is built now."""
    return dist.get_world_size(tp_group())


def tp_rank() -> int:
    """This rank's index among them."""
    return dist.get_rank(tp_group())


def partition_dim(parameter: Tensor) -> int | None:
    """Axis along which a parameter is cut over the tensor-parallel ranks; None if every rank holds it whole."""
    if not getattr(parameter, "tensor_model_parallel", False):
        return None
    return int(cast(Any, parameter).partition_dim)


class ColumnLinear(nn.Module):
    """Parameters of y = x A^T + b with the rows of A, the outputs, cut over the ranks; see `column_linear`.

    Args:
        input_size: width of x, whole on every rank.
        output_size: width of y over all ranks.
        seed: of the initial weights.
        name: of this layer; "<name>.weight" keys its numbers.
        row_stds: standard deviations of the initial rows, repeating down the whole matrix: one number, or one per
            row of a repeating pattern given as (std, rows) pairs.
        is_sequence_cut: x is this rank's part of the tokens, y has all of them.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        seed: int,
        name: str,
        row_stds: Sequence[tuple[float, int]],
        is_sequence_cut: bool = False,
    ) -> None:
        super().__init__()
        rows = output_size // tp_size()
        self.weight = _cut_parameter(0, rows, input_size)
        self.bias = _cut_parameter(0, rows)
        self.group, self.is_sequence_cut = tp_group(), is_sequence_cut
        _fill_rows(self.weight, row_stds, key_of(seed, f"{name}.weight"), tp_rank() * rows)
        _zero(self.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (tokens, input_size) to (all tokens, output_size / tp)."""
        return column_linear(inputs, [self])[0]


def column_linear(inputs: Tensor, layers: Sequence[ColumnLinear]) -> list[Tensor]:
    """Apply layers that share an input; its gradient is summed over the ranks once.

    Args:
        inputs: (tokens, input_size).
        layers: all of one group.

    Returns:
        (all tokens, output_size / tp) each.
    """
    weights, biases = [layer.weight for layer in layers], [layer.bias for layer in layers]
    return linear(inputs, weights, biases, layers[0].group, layers[0].is_sequence_cut)


class RowLinear(nn.Module):
    """y = x A^T with the columns of A, the inputs, cut over the ranks; the result is summed over them.

    The bias is left to the caller, who adds it together with the residual.

    Args:
        input_size: width of x over all ranks.
        output_size: width of y, whole on every rank.
        seed: of the initial weights.
        name: of this layer.
        std: standard deviation of the initial weights.
        is_sequence_cut: x has all tokens, y is this rank's part of them.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        seed: int,
        name: str,
        std: float,
        is_sequence_cut: bool = False,
    ) -> None:
        super().__init__()
        columns = input_size // tp_size()
        self.weight = _cut_parameter(1, output_size, columns)
        self.bias = whole_parameter(torch.zeros(output_size), is_sequence_cut)
        self.group, self.is_sequence_cut = tp_group(), is_sequence_cut
        self.tp_rank = tp_rank()
        key, first = key_of(seed, f"{name}.weight"), tp_rank() * columns
        normal_(self.weight.data, std, key, full_width=input_size, column_offset=first)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (all tokens, input_size / tp) to (tokens, output_size), without the bias."""
        (partial,) = linear(inputs, [self.weight], [None], None)
        return _reduce(partial, self.group, self.is_sequence_cut)


class VocabEmbedding(nn.Module):
    """Lookup table with its rows, the vocabulary, cut over the ranks; also the tied output matrix.

    Args:
        vocab_size: padded; the number of ranks divides it.
        hidden_size: width of a row.
        seed: of the initial weights.
        name: of this layer.
        std: standard deviation of the initial weights.
        is_sequence_cut: what is looked up, and what the head reads, is this rank's part of the tokens.
    """

    def __init__(
        self,
        vocab_size: int,
        hidden_size: int,
        seed: int,
        name: str,
        std: float,
        is_sequence_cut: bool = False,
    ) -> None:
        super().__init__()
        rows = vocab_size // tp_size()
        self.weight = _cut_parameter(0, rows, hidden_size)
        self.group, self.is_sequence_cut = tp_group(), is_sequence_cut
        self.tp_rank = tp_rank()
        self.first_row = self.tp_rank * rows
        key = key_of(seed, f"{name}.weight")
        normal_(self.weight.data, std, key, hidden_size, row_offset=self.first_row)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map all (tokens,) ids to (tokens, hidden): with `is_sequence_cut` this rank's part of them."""
        if dist.get_world_size(self.group) == 1:
            return lookup(tokens, self.weight)
        rows = tokens - self.first_row
        is_elsewhere = (rows < 0) | (rows >= self.weight.shape[0])
        found = lookup(rows.masked_fill(is_elsewhere, 0), self.weight)
        partial = found.masked_fill(is_elsewhere[:, None], 0.0)
        return _reduce(partial, self.group, self.is_sequence_cut)

    def all_tokens(self, hidden: Tensor) -> Tensor:
        """Gather this rank's part of the tokens, (tokens / tp, hidden), to all; every rank has the same gradient."""
        return Gather.apply(hidden, self.group) if self.is_sequence_cut else hidden

    def logits(self, hidden: Tensor, weight: Tensor) -> Tensor:
        """Map (targets, hidden) to (targets, vocab_local), with the table (or a view of it) as the output matrix."""
        return linear(hidden, [weight], [None], self.group)[0]


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy over the whole vocabulary, in fp32; `logits` are overwritten.

    Args:
        logits: (targets, vocab_local).
        targets: (targets,) global ids.

    Returns:
        (targets,) fp32.
    """
    return vocab_parallel_cross_entropy(logits.float(), targets)


def _cut_parameter(dim: int, *shape: int) -> nn.Parameter:
    parameter = nn.Parameter(torch.empty(shape))
    # DeepSpeed's gradient norm and our checkpoints read these attributes.
    set_tensor_model_parallel_attributes(parameter, True, dim, 1)
    return parameter


def whole_parameter(values: Tensor, is_partial: bool) -> nn.Parameter:
    """A parameter that every tensor-parallel rank holds whole.

    Args:
        values: its initial values.
        is_partial: each rank applies it to its part of the tokens or of the heads: its gradient is to be summed over
            the ranks.
    """
    parameter = nn.Parameter(values)
    vars(parameter)["has_partial_gradient"] = is_partial
    return parameter


def has_partial_gradient(parameter: Tensor) -> bool:
    """True if a whole parameter's gradient must be summed over the tensor-parallel ranks."""
    return bool(getattr(parameter, "has_partial_gradient", False))


def _reduce(partial: Tensor, group: Any, is_sequence_cut: bool) -> Tensor:
    """Sum over the ranks; each keeps all tokens, or its part of them."""
    if dist.get_world_size(group) == 1:
        return partial
    return ScatterSum.apply(partial, group) if is_sequence_cut else Sum.apply(partial, group)


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
