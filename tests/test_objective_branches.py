"""What an objective does otherwise than others lies in its own code: nobody else asks which objective a row is of."""

import ast
from collections.abc import Iterator

import pytest

from configs.objectives import BUILT_IN, Objective
from tests.helpers.places import ROOT

PACKAGES = ("configs", "data_pipeline", "glm", "launch", "train")
CONSTANTS = {name for name in vars(Objective) if name.isupper()}
KEYS = {objective.key for objective in BUILT_IN}
# Roles of tokens have such names too. These files speak of tokens, and know no objective.
OF_TOKENS = ("data_pipeline/tokenizer", "data_pipeline/special_", "data_pipeline/icetk.py")


def branches(tree: ast.AST) -> Iterator[int]:
    """Lines that compare with, look up by, or match a concrete objective."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            chosen = [node.left, *node.comparators]
        elif isinstance(node, ast.Dict):
            chosen = [key for key in node.keys if key is not None]
        elif isinstance(node, ast.Subscript):
            chosen = [node.slice]
        elif isinstance(node, ast.MatchValue):
            chosen = [node.value]
        else:
            continue
        if any(is_concrete(each) for each in chosen):
            yield node.lineno if hasattr(node, "lineno") else 0


def is_concrete(node: ast.expr) -> bool:
    """True for Objective.GMASK, "gmask", and collections with one of them."""
    if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
        return any(map(is_concrete, node.elts))
    if isinstance(node, ast.Attribute):
        if isinstance(node.value, ast.Attribute) and is_concrete(node.value):
            return True  # Objective.GMASK.key
        return node.attr in CONSTANTS and getattr(node.value, "id", "") == "Objective"
    return isinstance(node, ast.Constant) and node.value in KEYS


@pytest.mark.parametrize(
    ("code", "is_branch"),
    [
        ("row.objective is Objective.GMASK", True),
        ("Objective.MIP in measured", True),
        ('objective.key == "gmask"', True),
        ("objective.key != Objective.MASK.key", True),
        ("objective in (Objective.MASK, Objective.SMASK)", True),
        ("labels[Objective.MASK]", True),
        ('{"mask": 1, "gmask": 2}', True),
        ("match key:\n    case 'gmask': pass", True),
        ("Row(Objective.MIP, 0, 1)", False),
        ("tokens == special.gmask", False),
        ("objective.key == wanted.key", False),
    ],
)
def test_a_branch_is_recognised(code: str, is_branch: bool) -> None:
    assert bool(list(branches(ast.parse(code)))) == is_branch


def test_nobody_but_an_objective_itself_branches_on_it() -> None:
    wrong: list[str] = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            if not name.startswith(OF_TOKENS):
                lines = branches(ast.parse(path.read_text("utf-8")))
                wrong += [f"{name}:{line}" for line in lines]
    assert not wrong
