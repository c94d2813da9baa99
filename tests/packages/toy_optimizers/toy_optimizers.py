"""An optimizer of another package: Lion, which keeps one moment and no step count (arXiv 2302.06675)."""

from typing import Any

import torch

from configs.optimizers import OptimizerKind


class Lion(torch.optim.Optimizer):
    """The sign of an interpolated gradient, with decoupled weight decay."""

    def __init__(self, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float]) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            first, second = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if "exp_avg" not in state:
                    state["exp_avg"] = torch.zeros_like(parameter)
                moment = state["exp_avg"]
                direction = moment.lerp(parameter.grad, 1 - first).sign_()
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(direction, alpha=-group["lr"])
                moment.lerp_(parameter.grad, 1 - second)


def build(groups: list[dict[str, Any]], config: Any, device_type: str) -> Lion:
    return Lion(groups, config.lr, (config.beta1, config.beta2))


LION = OptimizerKind(slots=("exp_avg",), build=build)
NO_KIND = "lion"
