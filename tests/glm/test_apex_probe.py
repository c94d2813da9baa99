"""Apex is used where its compiled extensions can be imported; on stand-ins for its packages."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from glm.apex_probe import is_usable

NORM = ("fused_layer_norm_cuda", "apex.normalization.fused_layer_norm")
ADAM = ("amp_C", "apex.optimizers")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that modules are imported from, with none of Apex; what is imported from it is forgotten."""
    for name in list(sys.modules):
        if name in (NORM[0], ADAM[0]) or name.partition(".")[0] == "apex":
            monkeypatch.delitem(sys.modules, name)
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(
            sys.modules[name].__file__
        ):
            del sys.modules[name]


def write(site: Path, *modules: str, text: str = "") -> None:
    """Make modules; those with a dot lie in packages."""
    for module in modules:
        path = site / (module.replace(".", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        for folder in path.relative_to(site).parents[:-1]:
            (site / folder / "__init__.py").touch()
        path.write_text(text)
    importlib.invalidate_caches()


def test_without_apex_nothing_is_used(site: Path) -> None:
    assert not is_usable(*NORM) and not is_usable(*ADAM)


def test_packages_without_extensions_are_not_used(site: Path) -> None:
    write(site, NORM[1], ADAM[1])
    assert not is_usable(*NORM) and not is_usable(*ADAM)


def test_each_extension_counts_for_itself(site: Path) -> None:
    write(site, NORM[1], *ADAM)
    assert is_usable(*ADAM) and not is_usable(*NORM)
    write(site, NORM[0])
    assert is_usable(*NORM)


def test_an_extension_for_another_pytorch_is_not_used(site: Path) -> None:
    write(site, ADAM[1])
    write(site, ADAM[0], text="raise ImportError('undefined symbol: _ZN3c104')")
    assert not is_usable(*ADAM)


def test_the_unrelated_apex_is_not_even_imported(site: Path) -> None:
    write(site, "apex", text="raise SystemExit('imported')")
    assert not is_usable(*NORM) and not is_usable(*ADAM)


def test_the_optimizer_asks_for_its_own_extension(site: Path) -> None:
    from train.engine import optimizers

    write(site, NORM[0], text="")
    write(site, NORM[1], text="fused_layer_norm_affine = len")
    assert optimizers.optimizer_name("adamw", "cuda").startswith("torch")
    write(site, *ADAM)
    assert optimizers.optimizer_name("adamw", "cuda") == "apex.FusedAdam"
    assert optimizers.optimizer_name("adamw", "cpu").startswith("torch")
    assert isinstance(sys.modules[ADAM[0]], ModuleType)
