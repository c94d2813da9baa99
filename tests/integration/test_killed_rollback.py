"""Kill -9 at every moment of a rollback: the same command afterwards leads to the history without the kill."""

import dataclasses
import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from configs.interventions import read_interventions
from tests.helpers.kill_moments import MOMENTS, Moment, arm
from tests.helpers.poison import run_poisoned
from tests.helpers.whole_runs import command, compared, metrics

BATCH, STEPS, POISON = 8, 32, [(160, 200)]
SETTINGS = (
    "stability.on_spike=rollback",
    "stability.spike_steps=[3,5]",
    "stability.skip_steps=3",
    "stability.rollback_samples=80",
    "optim.lr=3e-3",
    f"optim.total_samples={BATCH * STEPS}",
    "checkpoint.save_every_samples=32",
    "eval.every_samples=1000",
)
LAYOUTS = {1: (), 4: ("parallel.tp=2", "parallel.pp=2")}
# In each test run, on four ranks; all of them in the slow one.
USUAL = ("once it is durable", "before loading", "in the new generation", "before the first save")


@dataclasses.dataclass(frozen=True)
class Begun:
    """A run that stopped just before its spike, and the one that went on undisturbed."""

    words: tuple[str, ...]
    stopped: Path
    whole: Path


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Begun]:
    """The runs of a number of ranks, made once."""

    @functools.cache
    def make(world_size: int) -> Begun:
        folder = tmp_path_factory.mktemp("begun")
        words = command(folder, *SETTINGS, *LAYOUTS[world_size], "run.name=r")
        stopped, whole, errors = folder / "stopped", folder / "whole", folder / "errors.txt"
        stop = (*words, f"run.dir={stopped}", f"run.stop_after_samples={BATCH * 20}")
        assert run_poisoned(world_size, stop, errors, POISON) == [75] * world_size
        shutil.copytree(stopped, whole)
        on = (*words, f"run.dir={whole}")
        codes = run_poisoned(world_size, on, errors, POISON)
        assert codes == [0] * world_size, errors.read_text()
        assert len(read_interventions(whole).rollbacks) == 1
        return Begun(words, stopped, whole)

    return make


def decisions(run: Path) -> list[dict[str, Any]]:
    """What was decided; not when, and by which attempt."""
    found = [dataclasses.asdict(each) for each in read_interventions(run).rollbacks]
    return [{k: v for k, v in each.items() if k not in ("time", "generation")} for each in found]


def kept(run: Path) -> list[Any]:
    """The metrics that were cut off, as far as equal runs share them."""
    lines = (run / "rolled_back" / "rollback_1_metrics.jsonl").read_text().splitlines()
    values = [json.loads(line) for line in lines]
    return [[value["step"], value["train/loss"], value["optim/grad_norm"]] for value in values]


@pytest.mark.parametrize(
    "world_size, moment",
    [
        *(pytest.param(1, moment, id=f"1 {moment.name}") for moment in MOMENTS),
        *(
            pytest.param(
                *(4, moment),
                id=f"4 {moment.name}",
                marks=() if moment.name in USUAL else pytest.mark.slow,
            )
            for moment in MOMENTS
        ),
    ],
)
def test_a_rollback_that_is_killed(
    world_size: int, moment: Moment, begun: Callable[[int], Begun], tmp_path: Path
):
    before = begun(world_size)
    run, errors = tmp_path / "run", tmp_path / "errors.txt"
    shutil.copytree(before.stopped, run)
    words = (*before.words, f"run.dir={run}")
    moment = dataclasses.replace(moment, rank=moment.rank if world_size > 1 else 0)
    codes = run_poisoned(world_size, words, errors, POISON, functools.partial(arm, moment))
    assert codes[moment.rank] == -9, errors.read_text()
    assert run_poisoned(world_size, words, errors, POISON) == [0] * world_size, errors.read_text()
    assert compared(run) == compared(before.whole)
    assert [line["step"] for line in metrics(run)] == list(range(1, STEPS + 1))
    assert decisions(run) == decisions(before.whole)
    assert kept(run) == kept(before.whole)
