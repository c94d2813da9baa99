"""Which GPU a rank takes, on stand-ins for CUDA."""

import os

import pytest
import torch

from configs.errors import ConfigError
from configs.schema import DeviceKind
from train.device import resolve_device
from train.world import World, prepare_environment

ONE_EACH = {"SLURM_GPUS_PER_TASK": "1", "CUDA_VISIBLE_DEVICES": "0"}


def chosen(
    monkeypatch: pytest.MonkeyPatch, launcher: str, count: int, variables: dict[str, str]
) -> int | None:
    """Index of the GPU of local rank 1, of `count` that it sees."""
    for name in ("SLURM_GPUS_PER_TASK", "SLURM_GPUS_ON_NODE", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    return resolve_device(DeviceKind.auto, World(1, 1, 2, launcher)).index


@pytest.mark.parametrize(
    ("launcher", "count", "variables", "index"),
    [
        ("slurm", 1, ONE_EACH, 0),
        ("slurm", 1, {"SLURM_GPUS_PER_TASK": "a100:1"}, 0),
        ("slurm", 2, {"SLURM_GPUS_PER_TASK": "2", "CUDA_VISIBLE_DEVICES": "0,1"}, 0),
        ("slurm", 1, {"CUDA_VISIBLE_DEVICES": "GPU-5ebe9f43", "SLURM_GPUS_ON_NODE": "2"}, 0),
        ("env", 1, {"CUDA_VISIBLE_DEVICES": "1"}, 0),
        ("slurm", 2, {"CUDA_VISIBLE_DEVICES": "0,1"}, 1),
        ("torchrun", 2, {}, 1),
    ],
)
def test_a_rank_that_sees_only_its_own_gpu_takes_it(
    launcher: str,
    count: int,
    variables: dict[str, str],
    index: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert chosen(monkeypatch, launcher, count, variables) == index


@pytest.mark.parametrize(
    ("launcher", "variables"),
    [
        ("torchrun", {"CUDA_VISIBLE_DEVICES": "0"}),
        ("slurm", {"CUDA_VISIBLE_DEVICES": "0", "SLURM_GPUS_ON_NODE": "1"}),
        ("env", {}),
    ],
)
def test_two_ranks_do_not_share_a_gpu(
    launcher: str, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="local rank 1 has no GPU of its own: 1 are visible"):
        chosen(monkeypatch, launcher, 1, variables)


def test_the_pipeline_s_modules_go_to_the_gpu_that_was_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "environ", {"LOCAL_RANK": "1"})
    prepare_environment(World(1, 1, 2, "slurm"), "cuda", 0)
    assert os.environ["LOCAL_RANK"] == "0"  # which DeepSpeed takes for the index
