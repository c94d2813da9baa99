"""The optimizers, and the state that each keeps for a parameter; without PyTorch, so that estimates can use it."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from configs import plugins
from configs.errors import ConfigError

KEY = "optim.name"
ADAMW = "adamw"
ADAMW_SLOTS = ("exp_avg", "exp_avg_sq")
"""Adam's moments, as torch.optim and Apex call them."""


class StepCount(str, Enum):
    """Where an optimizer counts its updates."""

    tensor = "tensor"
    """In `state[parameter]["step"]`, a float tensor (torch.optim)."""
    group = "group"
    """In `param_groups[i]["step"]`, an int that is absent before the first one (Apex)."""
    none = "none"
    """Nowhere: its update does not depend on the count."""


@dataclass(frozen=True)
class OptimizerKind:
    """The description of an optimizer; packages register one in the entry point group "glm.optimizers".

    The optimizer must work element by element: under ZeRO-1 it gets flat pieces of matrices, cut at any element.
    """

    slots: tuple[str, ...]
    """Keys of `optimizer.state[parameter]`: each an fp32 tensor of the parameter's shape, zero before the first update."""
    build: Callable[[list[dict[str, Any]], Any, str], Any]
    """Called with (parameter groups, OptimConfig, "cpu" or "cuda"); returns a torch.optim.Optimizer."""
    step_count: StepCount = StepCount.none


def missing_problem(name: str) -> str | None:
    """The message for an unknown optimizer; None if it is built in or an installed package has registered it."""
    is_known = name == ADAMW or plugins.named(plugins.OPTIMIZERS, name) is not None
    return None if is_known else _missing(name)


def find(name: str) -> OptimizerKind:
    """Import the optimizer of an installed package.

    Raises:
        ConfigError: no optimizer has this name, or the registered object is not an `OptimizerKind`.
    """
    entry = plugins.named(plugins.OPTIMIZERS, name)
    if entry is None:
        raise ConfigError([_missing(name)])
    kind = plugins.load(entry, KEY)
    if not isinstance(kind, OptimizerKind):
        raise ConfigError(
            [
                f"{plugins.package(entry)} registers {entry.value} as the optimizer {name}: that must be a "
                "configs.optimizers.OptimizerKind."
            ]
        )
    return kind


def slots(name: str) -> tuple[str, ...]:
    """The names of the optimizer's state tensors for each parameter.

    Raises:
        ConfigError: no optimizer has this name.
    """
    return ADAMW_SLOTS if name == ADAMW else find(name).slots


def _missing(name: str) -> str:
    offered = map(plugins.full_name, plugins.registered(plugins.OPTIMIZERS))
    known = ", ".join(sorted(offered)) or "none"
    package, separator, _ = name.partition(":")
    if not separator:
        return f"{KEY} ({name}) is neither built in nor written as PACKAGE:NAME; installed packages offer: {known}."
    return f"{KEY} ({name}) is not installed on this machine. Type: pip install {package} (installed packages offer: {known})."
