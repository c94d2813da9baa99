"""What `pip install` gets: our packages and presets, commands that exist, never the tests."""

import ast
import runpy
from typing import Any

import pytest
import setuptools

from tests.helpers.places import ROOT
from tests.helpers.sources import PACKAGES


@pytest.fixture
def arguments(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What setup.py hands to setuptools."""
    caught: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", caught.update)
    monkeypatch.chdir(ROOT)
    runpy.run_path("setup.py")
    return caught


def test_exactly_our_packages_are_installed(arguments: dict[str, Any]) -> None:
    with_init = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for package in PACKAGES
        for path in (ROOT / package).rglob("__init__.py")
    }
    assert set(arguments["packages"]) == with_init
    folders = {path.parent for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert len(folders) == len(with_init), (
        "a folder of sources without __init__.py is not installed"
    )


def test_every_preset_is_installed(arguments: dict[str, Any]) -> None:
    patterns = arguments["package_data"]["configs"]
    installed = {path for pattern in patterns for path in (ROOT / "configs").glob(pattern)}
    assert installed == set((ROOT / "configs").rglob("*.yaml"))
    assert len(installed) > 10


def test_every_template_is_installed(arguments: dict[str, Any]) -> None:
    patterns = arguments["package_data"]["launch"]
    installed = {path for pattern in patterns for path in (ROOT / "launch").glob(pattern)}
    assert installed == {path for path in (ROOT / "launch" / "templates").iterdir()}


def test_all_that_the_report_inlines_is_installed(arguments: dict[str, Any]) -> None:
    folder = ROOT / "train" / "report"
    patterns = arguments["package_data"]["train.report"]
    installed = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    assert installed == {path for path in (folder / "assets").rglob("*") if path.is_file()}
    assert len(installed) > 10


def test_every_command_exists(arguments: dict[str, Any]) -> None:
    for script in arguments["entry_points"]["console_scripts"]:
        name, _, target = script.partition(" = ")
        module, _, function = target.partition(":")
        path = ROOT / (module.replace(".", "/") + ".py")
        assert path.exists(), f"{name}: there is no {module}"
        functions = [
            node.name
            for node in ast.parse(path.read_text("utf-8")).body
            if isinstance(node, ast.FunctionDef)
        ]
        assert function in functions, f"{name}: {module} has no {function}"


def test_the_changelog_tells_of_this_version(arguments: dict[str, Any]) -> None:
    assert f"\n## {arguments['version']}\n" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_whoever_tests_gets_all_that_tests_import(arguments: dict[str, Any]) -> None:
    extras = arguments["extras_require"]
    assert set(extras["test"]) < set(extras["dev"])
    for tool in ("pytest>", "pytest-xdist", "hypothesis", "ruff", "basedpyright", "codespell"):
        assert any(line.startswith(tool) for line in extras["test"])


def test_apex_is_never_asked_for(arguments: dict[str, Any]) -> None:
    """The package of that name on the index is another one; NVIDIA's is built from source and detected."""
    asked = [*arguments["install_requires"], *arguments["extras_require"]["dev"]]
    assert not [line for line in asked if line.startswith("apex")]
