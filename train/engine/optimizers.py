"""The optimizer: AdamW with GLM-130B's parameter groups, or one that an installed package provides.

Weight decay applies to matrices, including the embedding, and not to LayerNorm parameters and biases (GLM-130B, table
11). The default is torch's AdamW with its fused kernel, which reads and writes every number once, on CPU and CUDA alike.
NVIDIA Apex's FusedAdam is used on CUDA where it is installed.
"""

import inspect
from typing import Any

import torch
from torch import nn

from configs import optimizers
from configs.optimizers import ADAMW, ADAMW_SLOTS, OptimizerKind, StepCount
from configs.schema import OptimConfig
from glm.apex_probe import is_usable

DECAY = "decay"
NO_DECAY = "no_decay"


def optimizer_kind(name: str, device_type: str) -> OptimizerKind:
    """Look up the optimizer that `optim.name` stands for on a device.

    Raises:
        ConfigError: no installed package provides it.
    """
    if name != ADAMW:
        return optimizers.find(name)
    return APEX_ADAMW if _takes_apex(device_type) else TORCH_ADAMW


def optimizer_name(name: str, device_type: str) -> str:
    """Name the implementation, for the summary at the start of a run."""
    if name != ADAMW:
        return name
    return "apex.FusedAdam" if _takes_apex(device_type) else "torch.AdamW (fused)"


def build_optimizer(
    kind: OptimizerKind, module: nn.Module, config: OptimConfig, device_type: str
) -> torch.optim.Optimizer:
    """Make the optimizer over `module`'s parameters; the learning rate is set at each step.

    Args:
        kind: the optimizer to build.
        module: this rank's stage.
        config: betas, epsilon and weight decay.
        device_type: "cpu" or "cuda".
    """
    return kind.build(parameter_groups(module, config.weight_decay), config, device_type)


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split parameters into decayed matrices and undecayed vectors; empty groups are left out.

    A stage may hold nothing but the embedding, and the optimizers reject an empty group.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in parameters if parameter.dim() > 1]
    vectors = [parameter for parameter in parameters if parameter.dim() <= 1]
    groups = [
        {"params": matrices, "weight_decay": weight_decay, "name": DECAY},
        {"params": vectors, "weight_decay": 0.0, "name": NO_DECAY},
    ]
    return [group for group in groups if group["params"]]


class _PlainAdamW(torch.optim.AdamW):
    """AdamW without the wrappers that import PyTorch's compiler: no update here is compiled."""

    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.AdamW.zero_grad)
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


def _torch_adamw(
    groups: list[dict[str, Any]], config: OptimConfig, device_type: str
) -> torch.optim.Optimizer:
    return _PlainAdamW(groups, fused=True, **_adam_settings(config))


def _apex_adamw(
    groups: list[dict[str, Any]], config: OptimConfig, device_type: str
) -> torch.optim.Optimizer:
    from apex.optimizers import FusedAdam

    return FusedAdam(groups, adam_w_mode=True, **_adam_settings(config))


def _adam_settings(config: OptimConfig) -> dict[str, Any]:
    return {"lr": config.lr, "betas": (config.beta1, config.beta2), "eps": config.eps}


TORCH_ADAMW = OptimizerKind(ADAMW_SLOTS, _torch_adamw, StepCount.tensor)
APEX_ADAMW = OptimizerKind(ADAMW_SLOTS, _apex_adamw, StepCount.group)


def _takes_apex(device_type: str) -> bool:
    return device_type == "cuda" and is_usable("amp_C", "apex.optimizers")
