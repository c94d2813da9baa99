"""The page of all keys: current, complete, and every key explained."""

from dataclasses import is_dataclass
from typing import Any, get_type_hints

from configs.document import documented_keys, render, without_none
from configs.load import flatten, load_config
from configs.schema import Config
from tests.helpers.places import ROOT

PAGE = ROOT / "docs" / "configuration.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), (
        "type: python -m configs.document > docs/configuration.md"
    )


def test_every_key_of_a_composed_run_is_documented_and_no_other() -> None:
    # With a ramp, whose keys are not there without one.
    keys = flatten(load_config(["optim.batch_ramp.start=4"]))
    assert [key.name for key in documented_keys()] == list(keys)


def test_every_explanation_is_a_sentence() -> None:
    for key in documented_keys():
        assert key.text.endswith("."), key.name
        assert len(key.text) > 10, key.name


def test_keys_are_named_as_the_dataclasses_nest() -> None:
    def names(owner: type, prefix: str) -> list[str]:
        found: list[str] = []
        for name, hint in get_type_hints(owner).items():
            inner: Any = without_none(hint)
            found += names(inner, f"{prefix}{name}.") if is_dataclass(inner) else [prefix + name]
        return found

    assert [key.name for key in documented_keys()] == names(Config, "")


def test_types_and_defaults_are_shown_as_they_are_typed() -> None:
    shown = {key.name: (key.type, key.default) for key in documented_keys()}
    assert shown["optim.lr"] == ("float, above 0", "0.001")
    assert shown["optim.min_lr"] == ("float or null", "null")
    assert shown["parallel.recompute"] == ("none, selective, full", "none")
    assert shown["precision"] == ("auto, fp32, bf16, fp16", "auto")
    assert shown["data.paths"] == ("list[str]", "['python-docs']")
    assert shown["optim.batch_ramp.start"] == ("int or null, at least 1", "null")
