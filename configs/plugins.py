"""What installed packages add to this program, through Python's entry points: the one reader of them.

    [project.entry-points."glm.optimizers"]          in the package toy-optimizers
    lion = "toy_optimizers:LION"

A name in a configuration, a run folder or a checkpoint only chooses among what installed packages have registered: it
is never a module path, and nothing else is imported for it.
"""

import re
from typing import TYPE_CHECKING

from configs.errors import ConfigError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

OPTIMIZERS = "glm.optimizers"
OBJECTIVES = "glm.objectives"


def registered(group: str) -> "list[EntryPoint]":
    """What packages have registered in a group, in alphabetical order; imports none of them."""
    # Late on purpose: it takes longer to import than most commands need to say what is wrong.
    from importlib.metadata import entry_points

    found = [entry for entry in entry_points(group=group) if entry.dist is not None]
    return sorted(found, key=lambda entry: (entry.name, package(entry)))


def package(entry: "EntryPoint") -> str:
    """Name and version of the package that has registered it: toy-optimizers 1.0."""
    assert entry.dist is not None, "registered() leaves out what is of no package"
    return f"{entry.dist.name} {entry.dist.version}"


def full_name(entry: "EntryPoint") -> str:
    """PACKAGE:NAME."""
    assert entry.dist is not None, "registered() leaves out what is of no package"
    return f"{_normal(entry.dist.name)}:{entry.name}"


def named(group: str, name: str) -> "EntryPoint | None":
    """The one that PACKAGE:NAME names; None: no installed package has registered it."""
    of_package, separator, rest = name.partition(":")
    wanted = f"{_normal(of_package)}{separator}{rest}"
    return next((entry for entry in registered(group) if full_name(entry) == wanted), None)


def load(entry: "EntryPoint", key: str) -> object:
    """Import what a package has registered.

    Args:
        entry: of `registered`.
        key: of the configuration that asks for it, for the message.

    Raises:
        ConfigError: it cannot be imported.
    """
    try:
        return entry.load()
    except Exception as error:  # whatever another package's module does while it is imported
        raise ConfigError(
            [
                f"{key}: {entry.name} of {package(entry)} ({entry.value}) cannot be imported ({type(error).__name__}: "
                f"{error}). Repair or update the package, or take it out of {key}."
            ]
        ) from error


def _normal(of_package: str) -> str:
    """Package names are equal whatever their case and their dashes (PEP 503)."""
    return re.sub(r"[-_.]+", "-", of_package).lower()
