"""Bounds of numbers: every number has one, stated beside its field."""

import ast
import dataclasses
import re
from collections.abc import Iterator
from typing import Any, cast, get_type_hints

import pytest

from configs.bounds import bounded_values, bounds_of
from configs.document import without_none
from configs.hardware import CUSTOM, PRESETS
from configs.help import describe_key
from configs.keys import type_of
from configs.schema import BatchRampConfig, Config
from tests.helpers.places import ROOT

# Their range depends on other keys (configs/checks/training.py).
WITHOUT = {
    "optim.min_lr",
    "optim.decay_samples",
    "optim.wsd_decay_samples",
}


def number_keys(owner: type, prefix: str = "") -> Iterator[tuple[str, type, str]]:
    """Full key, owner and name of every key that takes one number."""
    for name, hint in get_type_hints(owner).items():
        inner: Any = without_none(hint)
        if dataclasses.is_dataclass(inner):
            yield from number_keys(cast(type, inner), f"{prefix}{name}.")
        elif inner in (int, float):
            yield prefix + name, owner, name


def test_every_number_has_a_bound_except_the_known_ones() -> None:
    keys = list(number_keys(Config))
    assert len(keys) > 80
    assert {key for key, owner, name in keys if not bounds_of(owner).get(name)} == WITHOUT


def test_what_a_message_says_to_type_lies_within() -> None:
    for _, owner, name in number_keys(Config):
        bounds = bounds_of(owner).get(name, ())
        assert all(other.holds(bound.usual) for bound in bounds for other in bounds), name


def test_defaults_lie_within() -> None:
    config = Config()
    config.optim.batch_ramp = BatchRampConfig(8, 8, 64)
    values = list(bounded_values(config))
    assert {"optim.batch_ramp.increment", "seed", "cluster.nodes"} <= {key for key, _, _ in values}
    for key, value, bound in values:
        assert bound.problem(key, value) is None


def test_a_bound_does_not_change_the_type() -> None:
    assert type_of("optim.lr") is float
    assert type_of("optim.batch_ramp.start") is int


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("optim.lr", "float, above 0, default "),
        ("parallel.zero_stage", "int, 0 or 1, default "),
        ("cluster.nodes", "int, at least 1, at most 1,000,000, default "),
        ("run.stop_after_samples", "int or null, at least 1, default "),
    ],
)
def test_help_shows_the_bound(key: str, words: str) -> None:
    assert describe_key(key).startswith(f"{key}: {words}")


def test_checks_of_relations_restate_no_bound() -> None:
    """What a bound says in words stands in configs/bounds.py and configs/schema alone."""
    said = re.compile(r"\) must (be (at least \d|above 0|between|at most)|not be negative)")
    wrong = []
    for path in sorted((ROOT / "configs" / "checks").glob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        texts = [node for node in ast.walk(tree) if isinstance(node, ast.Constant)]
        # "A / B must be at least N tokens" is a relation.
        wrong += [
            f"{path.name}:{node.lineno}"
            for node in texts
            if isinstance(node.value, str)
            and said.search(node.value)
            and not node.value.endswith("must be at least ")
        ]
    assert not wrong


def test_the_names_of_gpus_are_those_of_the_presets() -> None:
    text = describe_key("cluster.gpu")
    assert re.findall(r"[A-Z]\d{3}\S*(?=,)", text) == list(PRESETS)
    assert CUSTOM in text
