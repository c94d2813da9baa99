"""Shares of further objectives: what is wrong is named, with what to type, and nothing unregistered is imported."""

import sys
from pathlib import Path

import pytest

from configs.errors import ConfigError
from configs.load import load_config
from configs.objectives import BUILT_IN, Objective, find, imported, objectives_of, text_shares
from configs.schema import ObjectiveConfig
from tests.helpers.objective_package import installed_package


def problems(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(list(overrides))
    return str(caught.value)


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ("[copy]", "must be NAME:SHARE"),
        ("[copy:much]", "must be NAME:SHARE"),
        ("[copy:1.5]", "must have a share between 0 and 1"),
        ("[copy:nan]", "must have a share between 0 and 1"),
        ("[copy:0.1,copy:0.1]", "more than once"),
        ("[copy:0.4]", "together ask for 1.1 of the rows"),
        ("[gmask:0.1]", "is built in"),
        ("[os.system:0.1]", "lower-case letters"),
        ("[elsewhere:0.1]", "no installed package provides (installed: copy)"),
    ],
)
def test_what_is_wrong_is_named(shares: str, words: str) -> None:
    with installed_package():
        assert words in problems(f"objective.shares={shares}")


def test_an_installed_objective_takes_its_share_from_the_mask_rows() -> None:
    with installed_package():
        config = load_config(["objective.shares=[copy:0.2]"]).objective
        shares = {objective.key: share for objective, share in text_shares(config)}
        assert shares == pytest.approx({"mask": 0.1, "gmask": 0.7, "copy": 0.2})
        assert [each.key for each in objectives_of(config)][3:] == ["copy"]
    assert text_shares(ObjectiveConfig(gmask_share=1.0))[0] == (Objective.MASK, 0.0)


def test_without_the_package_its_module_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "copy.py").write_text("raise SystemExit('imported')\n")
    (tmp_path / "elsewhere.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "names the objective elsewhere, which no installed package provides" in problems(
        "objective.shares=[elsewhere:0.1]"
    )
    assert "elsewhere" not in sys.modules


def register(folder: Path, package: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    info = folder / f"{package}-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 2.0\n")
    (info / "entry_points.txt").write_text(f"[glm.objectives]\nspecial = {value}\n")
    monkeypatch.syspath_prepend(folder)


@pytest.mark.parametrize("value", ["json:dumps", "configs.objectives:Objective.MIP", "nowhere:X"])
def test_a_package_that_provides_no_objective_is_named(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(tmp_path, "broken", value, monkeypatch)
    with pytest.raises(ConfigError, match=r"broken 2\.0"):
        find("special")


def test_two_packages_that_provide_the_same_are_both_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(tmp_path, "first", "json:dumps", monkeypatch)
    register(tmp_path, "second", "json:dumps", monkeypatch)
    words = problems("objective.shares=[special:0.1]")
    assert "first 2.0 and second 2.0 both provide the objective special" in words


def test_what_the_records_name_exists() -> None:
    for objective in BUILT_IN:
        assert find(objective.key) is objective
        for reference in (objective.maker, objective.examples):
            assert reference is None or callable(imported(reference))
