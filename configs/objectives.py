"""The objectives of training, one record each, for rows, loss sums, metrics, `show`, reports and examples.

An objective is built in, or an installed package provides it (configs/plugins.py) under its key:

    [project.entry-points."glm.objectives"]
    reversed = "reversed_text:REVERSED"
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar, Literal

from configs import plugins
from configs.errors import ConfigError
from configs.run_paths import SOURCE
from configs.schema import ObjectiveConfig
from configs.terminal import visible

_KEY = re.compile(r"[a-z][a-z0-9_]{0,30}")


@dataclass(frozen=True)
class Objective:
    """What a row, or a window of it, teaches. GLM-130B, section 2.2."""

    key: str
    """Name in metrics (`train/loss_KEY`), on command lines and in `objective.shares`."""
    label: str
    """Name shown beside a sample: [MASK]."""
    title: str
    """Name shown in a row of a table: [MASK] short blanks."""
    maker: str | None = None
    """MODULE:NAME of the `data_pipeline.objective.RowMaker` that makes its rows of text; None: it has none of its own."""
    part_of: str | None = None
    """Key of the objective in whose rows it appears, and whose loss includes its loss in runs that do not log it."""
    examples: str = "train.showcase.examples:show_answers"
    """MODULE:NAME of the function that makes its examples at the end of a run."""
    blank: Literal["inside", "end"] | None = None
    """Position in a typed text of the blanks that it teaches to fill; None: it teaches none."""

    MASK: ClassVar["Objective"]
    """Several short blanks inside a text."""
    GMASK: ClassVar["Objective"]
    """One long blank at the end of a text."""
    MIP: ClassVar["Objective"]
    """Multi-task instruction: a prompt and its answer."""
    SMASK: ClassVar["Objective"]
    """Whole sentences as blanks, in some windows of a [MASK] row. GLM (Du et al. 2022), section 2.2."""

    @property
    def loss(self) -> str:
        """Name of its loss in the metrics, after `train/` or `valid/`."""
        return f"loss_{self.key}"


Objective.MASK = Objective(
    "mask",
    "[MASK]",
    "[MASK] short blanks",
    maker="data_pipeline.makers:MaskRows",
    examples="train.showcase.examples:show_short_blanks",
    blank="inside",
)
Objective.GMASK = Objective(
    "gmask",
    "[gMASK]",
    "[gMASK] long blanks",
    maker="data_pipeline.makers:LongBlankRows",
    examples="train.showcase.examples:show_continuations",
    blank="end",
)
Objective.MIP = Objective("mip", "MIP", "instructions (MIP)")
Objective.SMASK = Objective("smask", "[sMASK]", "[sMASK] sentences", part_of="mask")

BUILT_IN = (Objective.MASK, Objective.GMASK, Objective.MIP, Objective.SMASK)
"""In the order of their metrics."""


def objectives_of(config: ObjectiveConfig) -> tuple[Objective, ...]:
    """All objectives of the run, those of packages last; loss sums and samples number them in this order.

    [sMASK], which is a part of [MASK] rows, is among them only if it has a share.

    Raises:
        ConfigError: an objective is provided by no installed package, or cannot be used.
    """
    built_in = [each for each in BUILT_IN if each.part_of is None or config.smask_share > 0]
    return (*built_in, *(find(key) for key, _ in asked_shares(config)))


def text_shares(config: ObjectiveConfig) -> tuple[tuple[Objective, float], ...]:
    """The objectives of the rows of text, with their shares; the first one gets the rest.

    Raises:
        ConfigError: an objective is provided by no installed package, or cannot be used.
    """
    asked = [
        (Objective.GMASK, config.gmask_share),
        *((find(key), share) for key, share in asked_shares(config)),
    ]
    rest = 1.0 - sum(share for _, share in asked)
    # Shares such as 0.7, 0.2 and 0.1 leave a rounding error, which does not count as a share.
    return (Objective.MASK, rest if rest > 1e-9 else 0.0), *asked


def asked_shares(config: ObjectiveConfig) -> list[tuple[str, float]]:
    """The entries of `objective.shares`: key and share.

    Raises:
        ConfigError: an entry does not have this form.
    """
    shares: list[tuple[str, float]] = []
    for entry in config.shares:
        key, _, share = entry.partition(":")
        try:
            shares.append((key.strip(), float(share)))
        except ValueError:
            raise ConfigError(
                [
                    f"objective.shares ({visible(entry, keep='')}) must be NAME:SHARE. Try objective.shares=[NAME:0.1]."
                ]
            ) from None
    return shares


def installed_keys() -> list[str]:
    """Keys that installed packages provide, in alphabetical order; imports none of the packages."""
    return sorted({entry.name for entry in plugins.registered(plugins.OBJECTIVES)})


def missing_problem(key: str) -> str | None:
    """The message for an objective that not exactly one package provides; None if exactly one does."""
    entries = [entry for entry in plugins.registered(plugins.OBJECTIVES) if entry.name == key]
    name = visible(key, keep="")
    if any(key == objective.key for objective in BUILT_IN):
        return (
            f"objective.shares ({name}) names an objective that is built in. Take {name} out of it."
        )
    if not is_key(key):
        return f"objective.shares ({name}) must name objectives by lower-case letters, digits and underscores."
    if not entries:
        known = ", ".join(installed_keys()) or "none"
        return (
            f"objective.shares names the objective {name}, which no installed package provides (installed: {known}). "
            f"Install the package that it comes from (python -m pip install PACKAGE; a run's {SOURCE} names it), or "
            f"take {name} out of objective.shares."
        )
    if len(entries) > 1:
        packages = " and ".join(plugins.package(entry) for entry in entries)
        return f"{packages} both provide the objective {name}. Uninstall one: python -m pip uninstall PACKAGE"
    return None


def find(key: str) -> Objective:
    """The objective of a key, built in or registered by an installed package.

    Raises:
        ConfigError: no package provides it, several do, or the registered object is not an objective with this key.
    """
    for objective in BUILT_IN:
        if objective.key == key:
            return objective
    problem = missing_problem(key)
    if problem is not None:
        raise ConfigError([problem])
    (entry,) = [entry for entry in plugins.registered(plugins.OBJECTIVES) if entry.name == key]
    found = plugins.load(entry, "objective.shares")
    if not isinstance(found, Objective) or found.key != key or found.maker is None:
        raise ConfigError(
            [
                f"{plugins.package(entry)} registers {entry.value} as the objective {key}: that must be a "
                f'configs.objectives.Objective with key="{key}" and a maker.'
            ]
        )
    return found


def installed() -> list[str]:
    """The objectives of installed packages, each with package and version; imports none of the packages."""
    entries = plugins.registered(plugins.OBJECTIVES)
    return [f"{entry.name} of {plugins.package(entry)}" for entry in entries]


def imported(reference: str) -> Any:
    """The object that a record names as MODULE:NAME. Records come with this program or from installed packages."""
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)


def is_key(text: str) -> bool:
    """True if a text can be the key of an objective, which becomes the name of a metric."""
    return _KEY.fullmatch(text) is not None


def keys(objectives: Sequence[Objective]) -> tuple[str, ...]:
    """The keys of some objectives, in order."""
    return tuple(objective.key for objective in objectives)
