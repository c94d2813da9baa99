"""An optimizer of an installed package trains, saves and continues on another layout like the built-in one."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.errors import ConfigError
from configs.load import load_config
from configs.optimizers import find, slots
from glm.checkpoint.reader import read_manifest
from launch.estimate.memory import checkpoint_bytes
from launch.estimate.plan import ClusterPlan
from tests.helpers.distributed import run_distributed
from tests.helpers.rank_runs import assemble, config_of, held_state, rank_session, save_after

PACKAGES = Path(__file__).parents[2] / "packages" / "toy_optimizers"
LION = "optim.name=toy-optimizers:lion"
SHARDED = (LION, "precision=fp32", "parallel.tp=2", "parallel.pp=2")
REPLICATED = (LION, "precision=fp32")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PACKAGES))


def train_and_save(
    rank: int, world_size: int, overrides: tuple[str, ...], checkpoints: Path
) -> dict[str, Any]:
    """Three steps, then a checkpoint."""
    from train.engine.pipeline import PipelineEngine

    sys.path.insert(0, str(PACKAGES))
    config = config_of(overrides, world_size)
    with rank_session(rank, world_size, config) as session:
        engine = PipelineEngine(config, session)
        steps, checkpoint = save_after(engine, session, config, checkpoints, 0, 3)
        state = held_state(engine, session, config)
        engine.close()
    return {"steps": steps, "folder": checkpoint, **state}


def load(rank: int, world_size: int, overrides: tuple[str, ...], folder: Path) -> Any:
    """What a fresh engine holds after it was restored; or why it was not."""
    from configs.errors import CheckpointError
    from train.checkpoint import restore, verify_together
    from train.engine.pipeline import PipelineEngine

    sys.path.insert(0, str(PACKAGES))
    config = config_of(overrides, world_size)
    with rank_session(rank, world_size, config) as session:
        engine = PipelineEngine(config, session)
        try:
            restore(engine, folder, verify_together(folder, session))
        except CheckpointError as error:
            return str(error)
        state = held_state(engine, session, config)
        engine.close()
    return state


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run_distributed(train_and_save, 4, SHARDED, tmp_path_factory.mktemp("lion"))


def test_it_continues_on_another_layout_bit_for_bit(saved: list[dict[str, Any]]) -> None:
    loaded = run_distributed(load, 2, REPLICATED, saved[0]["folder"])
    expected, found = assemble(saved), assemble(loaded)
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        np.testing.assert_array_equal(found[key], values, err_msg=str(key))
    assert all(values.any() for (_, kind), values in found.items() if kind == "exp_avg")
    losses = [loss for loss, _ in saved[0]["steps"]]
    assert losses[-1] < losses[0]


def test_its_slots_stand_in_the_manifest(saved: list[dict[str, Any]]) -> None:
    manifest = read_manifest(saved[0]["folder"])
    assert {tuple(slots) for slots in manifest.slots.values()} == {("master", "exp_avg")}


def test_another_optimizer_refuses_its_checkpoint(saved: list[dict[str, Any]]) -> None:
    (message,) = run_distributed(load, 1, ("precision=fp32",), saved[0]["folder"])
    assert "(exp_avg_sq): it was written with another optimizer" in message
    assert "optim.name" in message


@pytest.mark.usefixtures("installed")
def test_estimates_count_its_slots() -> None:
    adam, lion = load_config(["precision=fp32"]), load_config(["precision=fp32", LION])
    assert slots(lion.optim.name) == ("exp_avg",)
    assert checkpoint_bytes(adam) * 8 == checkpoint_bytes(lion) * 12
    held = {
        name: ClusterPlan.of(config).staging_bytes_per_rank
        for name, config in (("adam", adam), ("lion", lion))
    }
    assert held["adam"] * 8 == held["lion"] * 12


def test_a_package_that_is_not_installed_is_named() -> None:
    with pytest.raises(ConfigError, match=r"toy-optimizers:lion.*pip install toy-optimizers"):
        load_config([LION])


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("name", ["Toy_Optimizers:lion", "toy.optimizers:lion"])
def test_a_package_has_one_name_however_it_is_spelt(name: str) -> None:
    assert find(name).slots == ("exp_avg",)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    "name, message",
    [
        ("lion", r"neither built in nor written as PACKAGE:NAME.*toy-optimizers:lion"),
        ("toy_optimizers:LION", r"not installed.*toy-optimizers:lion"),
        ("os:system", r"not installed"),
    ],
)
def test_a_name_only_chooses_among_what_is_registered(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config([f"optim.name={name}"])


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    "name, message",
    [
        ("no_kind", r"toy-optimizers 1\.0 .* must be a configs\.optimizers\.OptimizerKind"),
        ("no_module", "cannot be imported"),
    ],
)
def test_what_a_package_registers_wrongly_is_one_message(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find(f"toy-optimizers:{name}")
