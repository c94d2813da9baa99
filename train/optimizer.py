"""AdamW with GLM-130B's parameter groups: weight decay on matrices, none on LayerNorm parameters and biases.

torch's AdamW is the default (its fused kernel on CUDA); NVIDIA Apex's FusedAdam is taken where Apex is installed.
The embedding is decayed, as in the original run. GLM-130B, table 11.
"""

import importlib.util
from typing import Any

import torch
from torch import nn

from configs.schema import OptimConfig

DECAY = "decay"
NO_DECAY = "no_decay"


def build_optimizer(
    module: nn.Module, config: OptimConfig, device_type: str
) -> torch.optim.Optimizer:
    """Make the optimizer over `module`'s parameters; the learning rate is set at each step.

    Args:
        module: this rank's stage.
        config: moments, epsilon, weight decay.
        device_type: "cpu" or "cuda".
    """
    groups = parameter_groups(module, config.weight_decay)
    settings: dict[str, Any] = {
        "lr": config.lr,
        "betas": (config.beta1, config.beta2),
        "eps": config.eps,
    }
    if optimizer_name(device_type) == "apex.FusedAdam":
        from apex.optimizers import FusedAdam

        return FusedAdam(groups, adam_w_mode=True, **settings)
    return torch.optim.AdamW(groups, fused=device_type == "cuda", **settings)


def optimizer_name(device_type: str) -> str:
    """Name what `build_optimizer` takes, for the start-up report."""
    if device_type == "cuda" and _has_nvidia_apex():
        return "apex.FusedAdam"
    return "torch.AdamW (fused)" if device_type == "cuda" else "torch.AdamW"


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


def _has_nvidia_apex() -> bool:
    # `pip install apex` is an unrelated package without optimizers.
    if importlib.util.find_spec("apex") is None:
        return False
    try:
        return importlib.util.find_spec("apex.optimizers") is not None
    except ImportError:
        return False
