"""The run folder has one owner: only configs/run_paths.py spells the name of a file in it.

Docstrings, comments and the texts below attributes may name such files: they explain. A path, a pattern, a message or a
help text takes the name from its owner. Everyday words ("stop", "tokenizer") count where they stand in a path.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs import run_paths
from configs.run_paths import RunPaths
from tests.helpers.places import ROOT

OWNER = "configs/run_paths.py"
PACKAGES = ("configs", "data_pipeline", "glm", "launch", "train")

NAMES = {path.name for path in vars(RunPaths(Path("run"))).values()} - {"run"} | {
    value
    for name, value in vars(run_paths).items()
    if name.isupper() and isinstance(value, str) and "/" not in value
}
WORDS = {name for name in NAMES if name.isalpha()}
_ANYWHERE = re.compile(
    rf"(?<![\w.-])({'|'.join(map(re.escape, sorted(NAMES - WORDS - {run_paths.STEP})))})(?![\w-])"
    rf"|\b{run_paths.STEP}(?![a-z])"
)
_WORD = "|".join(sorted(WORDS))
_IN_A_PATH = re.compile(rf"(?<![\w.-])({_WORD})(?=/)|(?<=/)({_WORD})(?![\w.-])")
_PATH_CALLS = {"Path", "join", "joinpath", "with_name", "glob", "rglob"}


def spelled_in(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of each literal that names a file of the run folder."""
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    parts = {id(part) for node in ast.walk(tree) for part in _parts_of_paths(node)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
            continue
        if id(node) in documentation:
            continue
        is_part = id(node) in parts and node.value in WORDS
        if is_part or _ANYWHERE.search(node.value) or _IN_A_PATH.search(node.value):
            yield node.lineno, node.value


def _parts_of_paths(node: ast.AST) -> list[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        return [node.left, node.right]
    if isinstance(node, ast.Call):
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        return list(node.args) if name in _PATH_CALLS else []
    return []


def test_the_names_are_those_of_a_run_folder() -> None:
    assert {"status.json", "events.jsonl", "metrics.jsonl", "config.yaml", "log.txt"} <= NAMES
    assert {"checkpoints", "generations", "stacks", "tokenizer", "wandb", "stop"} <= WORDS


def test_only_their_owner_spells_the_names_of_a_run_folders_files() -> None:
    sources = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    assert len(sources) > 50
    found = [
        f"{name}:{line}: {text[:80]!r}"
        for path in sources
        if (name := str(path.relative_to(ROOT))) != OWNER
        for line, text in spelled_in(ast.parse(path.read_text("utf-8")))
    ]
    assert not found, "\n".join(found)
    assert list(spelled_in(ast.parse((ROOT / OWNER).read_text("utf-8"))))


def test_job_scripts_do_not_spell_them_either() -> None:
    scripts = sorted((ROOT / "launch" / "templates").iterdir())
    assert scripts
    for path in scripts:
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
            code = re.sub(r"(^|\s)#.*", "", line)
            found = _ANYWHERE.search(code) or re.search(rf"/({_WORD})(?![\w.-])", code)
            assert not found, f"{path.name}:{number}: {line}"


@pytest.mark.parametrize(
    "code",
    [
        'path = run / "status.json"', 'path = f"{run}/stop"', 'say(f"{run} has no metrics.jsonl.")',
        'run.glob("checkpoints/step_*/manifest.json")', 'os.path.join(run, "wandb")', 'run / "tokenizer" / name',
    ],
)  # fmt: skip
def test_a_spelled_name_is_found(code: str) -> None:
    assert list(spelled_in(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    ['"""Reads status.json."""', 'key == "tokenizer"', "run / STATUS", 'x["stop"]', '"step_seconds"', '"config.json"'],
)  # fmt: skip
def test_other_uses_of_the_words_are_not(code: str) -> None:
    assert not list(spelled_in(ast.parse(code)))
