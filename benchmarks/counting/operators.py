"""What one operator costs on a GPU: bytes that it reads and writes, operations, and whether the host waits for it.

Each operator that computes is one kernel. It reads each of its inputs once and writes each of its outputs once, which
is what torch's own kernels do for element-wise operators and reductions; caches that save more, and kernels that read
twice, are not counted. Views cost nothing.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from benchmarks.counting.tally import Work
from glm.fused import traffic

aten = torch.ops.aten

# Products with weights are (rows, inner) x (inner, columns); batched ones are attention's.
_PRODUCTS = {"aten::mm", "aten::addmm", "aten::addmm_"}
_ATTENTION = {"aten::bmm", "aten::baddbmm", "aten::baddbmm_"}
# They allocate, or name memory that is there.
_FREE = {
    "aten::empty",
    "aten::empty_like",
    "aten::empty_strided",
    "aten::new_empty",
    "aten::new_empty_strided",
    "aten::_unsafe_view",
    "aten::_reshape_alias",
    "aten::lift_fresh",
    "aten::set_",
    "aten::resize_",
    "aten::record_stream",
}
# Written without being read.
_OVERWRITES = {"aten::copy_", "aten::zero_", "aten::fill_", "aten::arange", "aten::_foreach_zero_"}
# They pick as many elements as they return, whatever the size of the table.
_PICKS = {"aten::embedding", "aten::index", "aten::index_select", "aten::gather"}
# They change as many elements as they are given.
_PLACES = {"aten::index_put_", "aten::index_add_", "aten::scatter_", "aten::scatter_add_"}
# Two kernels: zeros, then a copy into a part.
_INTO_ZEROS = {"aten::slice_backward", "aten::select_backward", "aten::embedding_dense_backward"}


def bytes_of(values: Any) -> int:
    """Bytes that must be moved for the tensors among values, however nested, once each."""
    return traffic(tree_leaves(values))


def kind_of(name: str) -> str:
    """The field of a Tally to which an operator counts.

    Args:
        name: with its namespace, without its overload: "aten::mm".
    """
    if name in _PRODUCTS:
        return "products"
    return "attention" if name in _ATTENTION else "other"


def work_of(func: Any, args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> Work:
    """Count an operator that was called.

    Args:
        func: an OpOverload.
        args: as it was called.
        kwargs: as it was called.
        result: what it returned.
    """
    name = func.name().partition(".")[0]
    if name in _FREE or func.is_view or not _tensors((args, kwargs, result)):
        return Work()
    inputs, written = _inputs(func, name, args, kwargs), _written(func, args, kwargs, result)
    read = bytes_of(inputs)
    if name in _PICKS:
        # The first argument is the table.
        read = bytes_of(result) + bytes_of([args[1:], kwargs])
    elif name in _PLACES:
        given = bytes_of([args[1:], kwargs])
        return Work(1, given, _values(args, kwargs))
    elif name in _INTO_ZEROS:
        return Work(2, read, bytes_of(result) + bytes_of(args[0]))
    return Work(1, read, bytes_of(written), _flops(name, args))


def sync_of(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> str | None:
    """Why the host waits for the device at this operator; None if it does not."""
    name = func.name().partition(".")[0]
    if name in ("aten::_local_scalar_dense", "aten::item"):
        return "a value is read"
    if name in ("aten::nonzero", "aten::masked_select", "aten::unique_dim", "aten::_unique2"):
        return "a size is read"
    if name in ("aten::index", "aten::index_put_", "aten::index_put") and _picks_by_mask(
        name, args
    ):
        return "a size is read"
    if name == "aten::_to_copy" and not kwargs.get("non_blocking", False):
        device = kwargs.get("device")
        if device is not None and torch.device(device).type != args[0].device.type:
            to_host = torch.device(device).type == "cpu"
            return (
                "a tensor is copied to the host" if to_host else "a tensor is copied to the device"
            )
    return None


def _picks_by_mask(name: str, args: Sequence[Any]) -> bool:
    """True if the number of elements depends on a mask's values; setting all of them to one value does not."""
    masks = [index for index in args[1] if index is not None and index.dtype is torch.bool]
    return bool(masks) and not (name != "aten::index" and args[2].numel() == 1)


def _inputs(func: Any, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Any]:
    """What it reads."""
    if name not in _OVERWRITES:
        return [args, {key: value for key, value in kwargs.items() if key != "out"}]
    return [args[1:], kwargs]


def _written(func: Any, args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> list[Any]:
    """What it writes: new tensors, and arguments that it changes."""
    found: list[Any] = [result]
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            given = args[place] if place < len(args) else kwargs.get(argument.name)
            found.append(given)
    return found


def _values(args: Sequence[Any], kwargs: dict[str, Any]) -> int:
    """Bytes of the tensor of values that an operator puts into places."""
    given = _tensors((args[1:], kwargs))
    return sum(bytes_of(each) for each in given if each.is_floating_point())


def _flops(name: str, args: Sequence[Any]) -> int:
    if kind_of(name) == "other":
        return 0
    left, right = (args[1], args[2]) if "add" in name else (args[0], args[1])
    return 2 * left.numel() * right.shape[-1]


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
