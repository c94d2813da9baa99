"""What configs states is stated nowhere else: rules by their names and choices, numbers by their values."""

import ast
from collections.abc import Iterator

import pytest

from configs import computation
from configs.peak_rates import PEAK_RATES
from tests.helpers.sources import sources

# Modules of configs whose functions answer what follows from a configuration.
FACTS = (
    *("configs/computation.py", "configs/cutting.py", "configs/derive.py"),
    *("configs/hardware.py", "configs/pipeline.py"),
)


def functions(tree: ast.Module) -> Iterator[str]:
    """Names of a file's own functions, its private ones as if they were not."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name.lstrip("_")


def numbers(tree: ast.AST) -> Iterator[tuple[int, float]]:
    """Lines and values of all numbers that are written out, also as `1 << 22` and `5 * 10**8`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant | ast.BinOp | ast.UnaryOp):
            try:
                value = eval(compile(ast.Expression(node), "", "eval"), {"__builtins__": {}})
            except (NameError, TypeError):  # it is more than numbers
                continue
            if isinstance(value, int | float) and not isinstance(value, bool):
                yield node.lineno, value


def stated() -> set[str]:
    """Functions of the modules that state facts."""
    return {name for path in FACTS for name in functions(sources()[path])}


def test_a_rule_of_configs_is_not_written_again() -> None:
    assert {
        "attention_path",
        "reduce_bucket_size",
        "stage_entries",
        "padded_vocab_size",
    } <= stated()
    wrong = [
        f"{path}: {name}"
        for path, tree in sources().items()
        if path.startswith(("launch/", "glm/", "train/"))
        for name in functions(tree)
        if name in stated()
    ]
    assert not wrong


@pytest.mark.parametrize("package", ["launch", "glm"])
def test_what_auto_means_is_asked_of_configs(package: str) -> None:
    for path, tree in sources().items():
        if path.startswith(f"{package}/"):
            names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
            assert "auto" not in names, f"{path} resolves a choice by itself"


def test_estimates_take_what_the_trainer_does_from_configs() -> None:
    known = {
        float(value)
        for value in (
            computation.GRADIENT_BUCKET,
            computation.SQUARED_AT_ONCE,
            computation.SQUARED_IN_CACHE,
            computation.SHORT_ROW,
            *(PEAK_RATES[name].half for name in ("A100", "H100", "B200")),
        )
    }
    wrong = [
        f"{path}:{line}: {value}"
        for path, tree in sources().items()
        if path.startswith("launch/")
        for line, value in numbers(tree)
        if value in known
    ]
    assert not wrong


@pytest.mark.parametrize("text", ["x = 1 << 22", "f(5 * 10**8)", "y = -(-512)"])
def test_a_number_is_found_however_it_is_written(text: str) -> None:
    known = {1 << 22, 500_000_000, 512}
    assert known & {value for _, value in numbers(ast.parse(text))}
