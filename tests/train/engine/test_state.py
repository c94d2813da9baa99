"""The optimizer's state in one process, with and without what torch's AdamW is used to."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from configs.errors import CheckpointError
from configs.run_checkpoints import step_folder
from configs.schema import OptimConfig
from glm.checkpoint.manifest import Manifest
from glm.checkpoint.reader import Reader
from glm.checkpoint.writer import commit, write_rank_file
from tests.helpers.operators import called_operators
from train.engine.optimizers import APEX_ADAMW, TORCH_ADAMW, build_optimizer
from train.engine.state import PartitionedState
from train.topology import Topology

COUNTERS = ("global_steps", "global_samples", "skipped_steps")


class GroupCountingAdam(torch.optim.Optimizer):
    """Keeps its step count as Apex's FusedAdam does: an int in the group, absent before the first step."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {"lr": 0.1})

    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            group["step"] = group.get("step", 0) + 1
            for parameter in group["params"]:
                state = self.state[parameter]
                if len(state) == 0:
                    state["exp_avg"] = torch.zeros_like(parameter)
                    state["exp_avg_sq"] = torch.zeros_like(parameter)
                state["exp_avg"].lerp_(parameter.grad, 0.1)
                state["exp_avg_sq"].lerp_(parameter.grad**2, 0.1)
                parameter.data.sub_(state["exp_avg"], alpha=0.1 / group["step"])


def adamw(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=0.1, fused=True)


def unfused_adamw(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=0.1)


class Toy:
    """Two layers named as DeepSpeed's pipeline names them."""

    def __init__(self, make_optimizer: Any, seed: int, width: int = 3) -> None:
        torch.manual_seed(seed)
        self.module = nn.ModuleDict({"1": nn.Linear(4, width), "2": nn.Linear(width, 2)})
        groups = [
            {"params": [p for p in self.module.parameters() if (p.dim() > 1) == is_matrix]}
            for is_matrix in (True, False)
        ]
        self.engine = SimpleNamespace(
            optimizer=make_optimizer(groups), global_steps=0, global_samples=0, skipped_steps=0
        )
        kind = APEX_ADAMW if make_optimizer is GroupCountingAdam else TORCH_ADAMW
        self.state = PartitionedState(
            self.engine, self.module, kind, 2, Topology(1, 1, 1, 0), settle=lambda: None
        )

    def step(self, seed: int) -> None:
        inputs = torch.randn(5, 4, generator=torch.Generator().manual_seed(seed))
        self.module["2"](self.module["1"](inputs).relu()).pow(2).sum().backward()
        self.engine.optimizer.step()
        self.engine.optimizer.zero_grad()
        self.engine.global_steps += 1

    def save(self, checkpoints: Path) -> Reader:
        folder = step_folder(checkpoints, self.engine.global_steps)
        folder.mkdir()
        file, fragments = write_rank_file(folder, "rank0.safetensors", self.state.pieces())
        manifest = Manifest(
            step=self.engine.global_steps,
            progress={},
            data_state={},
            config="",
            optimizer=self.state.numbers(),
            tensors=self.state.shapes(),
            slots=self.state.slots(),
            files={"rank0.safetensors": file},
            fragments=fragments,
        )
        commit(folder, manifest)
        return Reader(folder, manifest)


@pytest.mark.parametrize("make_optimizer", [adamw, GroupCountingAdam])
def test_training_goes_on_bit_for_bit(tmp_path: Path, make_optimizer: Any) -> None:
    first, second = Toy(make_optimizer, seed=1), Toy(make_optimizer, seed=2)
    for step in range(3):
        first.step(step)
    second.state.load(first.save(tmp_path))
    for step in range(3, 6):
        first.step(step)
        second.step(step)
    for one, other in zip(first.module.parameters(), second.module.parameters(), strict=True):
        assert torch.equal(one, other)
    assert first.state.numbers() == second.state.numbers()
    assert first.state.numbers()["step"] == 6.0


@pytest.mark.parametrize("make_optimizer", [adamw, GroupCountingAdam])
def test_a_checkpoint_before_the_first_step_is_one_too(tmp_path: Path, make_optimizer: Any) -> None:
    first, second = Toy(make_optimizer, seed=1), Toy(make_optimizer, seed=2)
    second.state.load(first.save(tmp_path))
    first.step(0)
    second.step(0)
    for one, other in zip(first.module.parameters(), second.module.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("make_optimizer", [adamw, GroupCountingAdam])
def test_looking_at_the_state_before_the_first_step_changes_nothing(make_optimizer: Any) -> None:
    looked_at, untouched = Toy(make_optimizer, seed=1), Toy(make_optimizer, seed=1)
    assert looked_at.state.numbers()["step"] == 0.0
    looked_at.state.pieces()
    looked_at.step(0)
    untouched.step(0)
    for one, other in zip(
        looked_at.module.parameters(), untouched.module.parameters(), strict=True
    ):
        assert torch.equal(one, other)


def test_a_state_of_the_unfused_optimizer_goes_on_in_the_fused_one(tmp_path: Path) -> None:
    first, second = Toy(unfused_adamw, seed=1), Toy(adamw, seed=2)
    for step in range(3):
        first.step(step)
    second.state.load(first.save(tmp_path))
    for step in range(3, 6):
        first.step(step)
        second.step(step)
    for one, other in zip(first.module.parameters(), second.module.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
    assert first.state.numbers() == second.state.numbers()


def test_the_trainers_own_optimizer_is_fused_on_cpu() -> None:
    """One kernel takes a tensor of step counts beside its parameters."""
    module = nn.Linear(3, 2)
    optimizer = build_optimizer(TORCH_ADAMW, module, OptimConfig(), "cpu")
    with called_operators() as calls:
        for parameter in module.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    assert calls.count("aten::_fused_adamw_") == 2  # one a parameter group
    assert not [name for name in calls if "lerp" in name or "addcdiv" in name]


def test_loading_between_steps_leaves_nothing_of_what_was_there(tmp_path: Path) -> None:
    toy = Toy(adamw, seed=1)
    toy.step(0)
    reader = toy.save(tmp_path)
    toy.step(1)
    expected = [parameter.detach().clone() for parameter in toy.module.parameters()]
    toy.step(2)
    toy.module["1"].weight.grad = torch.ones(3, 4)
    toy.state.load(reader)
    toy.step(1)
    for parameter, values in zip(toy.module.parameters(), expected, strict=True):
        assert torch.equal(parameter, values)


def test_names_do_not_depend_on_the_engine(tmp_path: Path) -> None:
    assert list(Toy(adamw, seed=1).state.shapes()) == [
        "layers.0.weight",
        "layers.0.bias",
        "layers.1.weight",
        "layers.1.bias",
    ]


def test_a_tensor_of_another_shape_is_refused_by_name(tmp_path: Path) -> None:
    toy = Toy(adamw, seed=1, width=5)
    with pytest.raises(CheckpointError, match=r"layers\.0\.weight.*\[3, 4\].*\[5, 4\].*run\.name"):
        toy.state.load(Toy(adamw, seed=1).save(tmp_path))


@pytest.mark.parametrize(
    "numbers",
    [
        {},
        {"step": "many"},
        {"step": 1.0},
        {"step": []},
        {"step": 1e308, "counters": dict.fromkeys(COUNTERS, 1)},
        {"step": math.nan, "counters": dict.fromkeys(COUNTERS, 1)},
        {"step": 1.0, "counters": dict.fromkeys(COUNTERS, -1)},
    ],
)
def test_nonsense_numbers_are_refused(tmp_path: Path, numbers: dict[str, Any]) -> None:
    toy = Toy(adamw, seed=1)
    reader = toy.save(tmp_path)
    reader.manifest.optimizer.clear()
    reader.manifest.optimizer.update(numbers)
    with pytest.raises(CheckpointError, match="numbers are damaged"):
        toy.state.load(reader)


def test_the_copy_of_a_tied_weight_is_not_stored(tmp_path: Path) -> None:
    toy = Toy(adamw, seed=1)
    toy.module["1"].weight.ds_pipe_replicated = True
    assert "layers.0.weight" not in {piece.tensor for piece in toy.state.pieces()}
    assert "layers.0.weight" in toy.state.shapes()


def test_the_state_is_cut_again_only_when_it_has_moved() -> None:
    toy = Toy(adamw, seed=1)
    toy.step(0)
    before = toy.state.pieces()
    toy.step(1)
    assert toy.state.pieces() is before
    (weights,) = (p for p in before if (p.tensor, p.kind) == ("layers.0.weight", "master"))
    assert torch.equal(weights.values, toy.module["1"].weight.reshape(-1))
    for state in toy.engine.optimizer.state.values():
        state["exp_avg"] = state["exp_avg"].clone()
    after = toy.state.pieces()
    assert after is not before
    moments = [p for p in after if (p.tensor, p.kind) == ("layers.0.weight", "exp_avg")]
    expected = toy.engine.optimizer.state[toy.module["1"].weight]["exp_avg"]
    assert moments[0].values.data_ptr() == expected.data_ptr()
