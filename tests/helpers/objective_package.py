"""A package that provides an objective, installed or not."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.helpers.places import ROOT

FOLDER = str(ROOT / "tests" / "helpers" / "copy_objective")


@contextmanager
def installed_package() -> Iterator[None]:
    """Let the package, with what pip would have written beside it, lie on the path."""
    sys.path.append(FOLDER)
    try:
        yield
    finally:
        sys.path.remove(FOLDER)
        sys.modules.pop("copy_objective", None)
