"""Extensions that installed packages register through Python's entry points; only this file reads them.

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
    """The entry points that packages have registered in a group, in alphabetical order; imports none of them."""
    # Imported late: this import takes longer than most commands need to report a mistake.
    from importlib.metadata import entry_points

    found = [entry for entry in entry_points(group=group) if entry.dist is not None]
    return sorted(found, key=lambda entry: (entry.name, package(entry)))


def package(entry: "EntryPoint") -> str:
    """Name and version of the package that has registered an entry point: toy-optimizers 1.0."""
    assert entry.dist is not None, "registered() leaves out what is of no package"
    return f"{entry.dist.name} {entry.dist.version}"


def full_name(entry: "EntryPoint") -> str:
    """The name of an entry point as it is typed: PACKAGE:NAME."""
    assert entry.dist is not None, "registered() leaves out what is of no package"
    return f"{_normal(entry.dist.name)}:{entry.name}"


def named(group: str, name: str) -> "EntryPoint | None":
    """The entry point with the name PACKAGE:NAME; None if no installed package has registered it."""
    of_package, separator, rest = name.partition(":")
    wanted = f"{_normal(of_package)}{separator}{rest}"
    return next((entry for entry in registered(group) if full_name(entry) == wanted), None)


def load(entry: "EntryPoint", key: str) -> object:
    """Import the object that a package has registered.

    Args:
        entry: an entry point from `registered`.
        key: the configuration key that names it, for the message.

    Raises:
        ConfigError: the object cannot be imported.
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
    """Normalise a package name: case does not matter, nor which of -, _ and . it has (PEP 503)."""
    return re.sub(r"[-_.]+", "-", of_package).lower()
