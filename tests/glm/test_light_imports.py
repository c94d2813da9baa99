"""What a library's import may put off: wandb and PyTorch's compiler, and nothing for others or for later."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from glm.light_imports import light_imports

LIBRARY = """
import torch

try:
    import wandb
except ImportError:
    wandb = None

@torch.compile
def plain(x):
    "Doubles."
    return x * 2

@torch.compile(fullgraph=True, dynamic=False)
def with_options(x, *, factor):
    return x * factor

module = torch.compile(torch.nn.Identity())
"""


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, dict[str, Any]]]:
    """What the compiler is given, and with which options; a stand-in that adds 100 to results."""
    given: list[tuple[Any, dict[str, Any]]] = []

    def compile_now(model: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        given.append((model, options))
        return lambda *arguments, **named: model(*arguments, **named) + 100

    monkeypatch.setattr(torch, "compile", compile_now)
    return given


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a library, and of a wandb that can be imported."""
    (tmp_path / "a_library.py").write_text(LIBRARY)
    (tmp_path / "wandb.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("a_library", "wandb"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def imported() -> Any:
    return importlib.import_module("a_library")


def test_functions_are_compiled_at_their_first_call(compiled: list[Any], folder: Path) -> None:
    before = torch.compile
    with light_imports():
        library = imported()
    assert torch.compile is before
    assert [options for _, options in compiled] == [{}]  # a module is compiled at once
    assert isinstance(compiled.pop()[0], torch.nn.Identity)
    assert library.plain.__doc__ == "Doubles."
    assert [library.plain(1), library.plain(2)] == [102, 104]
    assert library.with_options(2, factor=5) == 110
    assert [options for _, options in compiled] == [{}, {"fullgraph": True, "dynamic": False}]


def test_wandb_is_hidden_from_the_library_alone(compiled: list[Any], folder: Path) -> None:
    with light_imports():
        assert imported().wandb is None
    assert isinstance(importlib.import_module("wandb"), ModuleType)


def test_a_wandb_that_is_imported_already_stays(compiled: list[Any], folder: Path) -> None:
    wandb = importlib.import_module("wandb")
    with light_imports():
        assert imported().wandb is wandb


def test_a_failed_import_leaves_nothing_behind(compiled: list[Any], folder: Path) -> None:
    before, finders = torch.compile, list(sys.meta_path)
    (folder / "a_library.py").write_text("1 / 0")
    with pytest.raises(ZeroDivisionError), light_imports():
        imported()
    assert torch.compile is before and sys.meta_path == finders
