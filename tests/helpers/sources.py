"""The sources of our packages, for tests that read them."""

import ast
from functools import lru_cache

from tests.helpers.places import ROOT

PACKAGES = ("configs", "data_pipeline", "glm", "train", "launch")


@lru_cache(maxsize=1)
def sources() -> dict[str, ast.Module]:
    """Every source file of our packages, parsed, by its path in the repository."""
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text("utf-8")) for path in files}
