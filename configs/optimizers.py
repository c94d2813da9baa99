"""Which optimizers there are, and what each keeps of a parameter; known without PyTorch, so that estimates can count it."""

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
    """Nowhere: its update does not depend on it."""


@dataclass(frozen=True)
class OptimizerKind:
    """An optimizer as this program sees it; packages register one under the entry points "glm.optimizers".

    It must work element by element: ZeRO-1 gives it flat pieces of matrices, whose borders lie anywhere.
    """

    slots: tuple[str, ...]
    """Keys of `optimizer.state[parameter]`: each an fp32 tensor of the parameter's shape, zero before the first update."""
    build: Callable[[list[dict[str, Any]], Any, str], Any]
    """(parameter groups, OptimConfig, "cpu" or "cuda") -> torch.optim.Optimizer."""
    step_count: StepCount = StepCount.none


def missing_problem(name: str) -> str | None:
    """What is wrong with a name, and what to type; None: it is built in, or an installed package has registered it."""
    is_known = name == ADAMW or plugins.named(plugins.OPTIMIZERS, name) is not None
    return None if is_known else _missing(name)


def find(name: str) -> OptimizerKind:
    """Import the optimizer of an installed package.

    Raises:
        ConfigError: there is none of this name, or it is no OptimizerKind.
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
    """What the optimizer keeps of each parameter.

    Raises:
        ConfigError: there is none of this name.
    """
    return ADAMW_SLOTS if name == ADAMW else find(name).slots


def _missing(name: str) -> str:
    offered = map(plugins.full_name, plugins.registered(plugins.OPTIMIZERS))
    known = ", ".join(sorted(offered)) or "none"
    package, separator, _ = name.partition(":")
    if not separator:
        return f"{KEY} ({name}) is neither built in nor written as PACKAGE:NAME; installed packages offer: {known}."
    return f"{KEY} ({name}) is not installed on this machine. Type: pip install {package} (installed packages offer: {known})."
