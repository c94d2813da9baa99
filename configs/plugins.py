"""What installed packages add to this program, through Python's entry points.

    [project.entry-points."glm.optimizers"]          in the package toy-optimizers
    lion = "toy_optimizers.lion:LION"

makes `optim.name=toy-optimizers:lion` possible. A name in a configuration, a run folder or a checkpoint only chooses
among what installed packages have registered: it is never a module path, and nothing else is imported for it.
"""

import re
from importlib import metadata

from configs.errors import ConfigError

OPTIMIZERS = "glm.optimizers"


def registered(group: str) -> dict[str, metadata.EntryPoint]:
    """What packages have registered in a group, by "PACKAGE:NAME"; imports none of them."""
    return {
        f"{_normal(entry.dist.name)}:{entry.name}": entry
        for entry in metadata.entry_points(group=group)
        if entry.dist is not None
    }


def load(group: str, name: str, key: str) -> object:
    """Import what "PACKAGE:NAME" names.

    Args:
        group: of entry points.
        name: from the configuration.
        key: of the configuration, for messages.

    Raises:
        ConfigError: it is not installed, or its module cannot be imported.
    """
    entry = registered(group).get(_canonical(name))
    if entry is None:
        raise ConfigError([missing(group, name, key)])
    try:
        return entry.load()
    except Exception as error:  # whatever another package's module does while it is imported
        raise ConfigError(
            [
                f"{key} ({name}): the package {name.partition(':')[0]} is installed, but {entry.value} "
                f"cannot be imported: {error!r}."
            ]
        ) from error


def is_registered(group: str, name: str) -> bool:
    """True if an installed package has registered it."""
    return _canonical(name) in registered(group)


def missing(group: str, name: str, key: str) -> str:
    """Say that nothing of this name is installed, and what to type."""
    package, separator, _ = name.partition(":")
    known = ", ".join(sorted(registered(group))) or "none"
    if not separator:
        return f"{key} ({name}) is neither built in nor written as PACKAGE:NAME; installed packages offer: {known}."
    return f"{key} ({name}) is not installed on this machine. Type: pip install {package} (installed packages offer: {known})."


def _canonical(name: str) -> str:
    package, separator, rest = name.partition(":")
    return f"{_normal(package)}{separator}{rest}"


def _normal(package: str) -> str:
    """Package names are equal whatever their case and their dashes (PEP 503)."""
    return re.sub(r"[-_.]+", "-", package).lower()
