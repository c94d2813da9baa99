"""The host waits for nothing in a micro-batch: no count, no flag and no index is read back from the device."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import MagicMock

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from configs.load import load_config
from configs.schema import LossWeighting, RopeTables
from data_pipeline.batch import collate
from glm.attention_paths import block_mask
from glm.loss import GLMLoss
from glm.model import GLMModel
from glm.row_plan import RowPlan
from tests.helpers.rank_runs import small_dataset
from tests.helpers.tiny import UNEVEN_RUN
from train.batches import row_weights, to_micro_batch
from train.engine.gradients import overflow_unless_finite
from train.observe.activations import ActivationObserver

# What makes the host wait for a GPU.
WAITING = {"aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten.is_nonzero"}


@contextmanager
def host_waits() -> Iterator[list[str]]:
    """Operators that would make the host wait, by name."""
    found: list[str] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            name = str(func).rpartition(".")[0]
            if name in WAITING or _picks_by_mask(name, args) or _goes_home(name, kwargs or {}):
                found.append(name)
            return func(*args, **(kwargs or {}))

    with Watch():
        yield found


def _picks_by_mask(name: str, args: Any) -> bool:
    if name not in ("aten.index", "aten.index_put_", "aten.index_put"):
        return False
    return any(index is not None and index.dtype == torch.bool for index in args[1])


def _goes_home(name: str, kwargs: dict[str, Any]) -> bool:
    return name == "aten._to_copy" and kwargs.get("device") == torch.device("cpu")


@pytest.mark.parametrize("path", ["sdpa", "reference"])
def test_a_micro_batch_is_never_waited_for(path: str) -> None:
    config = load_config([*UNEVEN_RUN, "precision=fp32", f"model.attention={path}"])
    dataset = small_dataset(config)
    batch = collate([dataset[0], dataset[1]])
    (tokens, fields), labels = to_micro_batch(batch, row_weights(batch, LossWeighting.row, 0.0))
    model = GLMModel(config.model, config.seed).train()
    loss, of_rows = GLMLoss(len(dataset.objectives)), list[torch.Tensor]()
    loss.embedding = model.embedding
    observer: Any = ActivationObserver(1, *(cast(Any, MagicMock()),) * 2, config)
    loss.on_rows = of_rows.append
    with host_waits() as found:
        hidden = model.final_state(tokens, fields)[0]
        for _ in range(2):
            observer._take(0, hidden.detach())
        loss(hidden, labels).backward()
        between = list(found)
        loss.take()
    assert between == [], "on a GPU the host would stand still here"
    assert model.embedding.weight.grad is not None
    assert [sums.shape for sums in of_rows] == [(2, 2)]


@pytest.mark.parametrize("loss", [1.0, float("nan"), float("inf")])
def test_fp16_learns_of_a_wrong_loss_without_waiting(loss: float) -> None:
    gradients = [torch.ones(3, dtype=torch.float16), torch.ones(2, dtype=torch.float16)]
    optimizer = SimpleNamespace(averaged_gradients={0: gradients, 1: None})
    losses = torch.tensor([[loss, 0.0], [2.0, 0.0]], dtype=torch.float64)
    with host_waits() as found:
        overflow_unless_finite(optimizer, losses)
    assert found == []
    assert gradients[0].isfinite().all()
    assert bool(gradients[1].isinf().any()) == (loss != 1.0)


def test_the_watch_sees_what_it_looks_for() -> None:
    values, mask = torch.arange(4.0), torch.tensor([True, False, True, False])
    with host_waits() as found:
        values[mask]
        values[mask] = 0.0
        mask.nonzero()
        float(values.sum())
    assert found == ["aten.index", "aten.index_put_", "aten.nonzero", "aten._local_scalar_dense"]


def test_the_flex_path_makes_its_mask_without_waiting() -> None:
    """The path has no backward pass on CPU, so what it does beside its kernel is looked at alone."""
    config = load_config([*UNEVEN_RUN, "precision=fp32"])
    batch = collate([small_dataset(config)[0]])
    (_, fields), _ = to_micro_batch(batch, row_weights(batch, LossWeighting.row, 0.0))
    with host_waits() as found:
        plan = RowPlan.of(fields)
        block_mask(plan)
        plan.rotary(10, 1e4, False, RopeTables.fp32)
    assert found == []
