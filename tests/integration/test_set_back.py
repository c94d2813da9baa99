"""A run that is set back to one of its checkpoints in a running process goes on as it did from there before."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from configs.run_checkpoints import committed, step_folder
from glm.checkpoint.reader import load_full_tensors, read_manifest
from tests.helpers.distributed import run_distributed
from tests.helpers.rank_runs import allow_fp16
from tests.helpers.whole_runs import command, compared, resumed_at, run_attempt
from train.generations import History

SAVES = ("checkpoint.save_every_samples=16", "checkpoint.keep_last=20")
STEP, SAMPLES, LAST = 4, 32, 12


def set_back(
    rank: int, world_size: int, overrides: tuple[str, ...], steps: list[int], trains_on: bool
) -> list[list[dict[str, Any]]]:
    """Train to the end, and once more from each of some steps; the curve after each time."""
    import torch

    from configs import derive
    from configs.load import load_config
    from train import start
    from train.distributed import distributed_session
    from train.prepared import prepared
    from train.run_folder import RunFolder
    from train.topology import Topology
    from train.training import Training
    from train.world import World, prepare_environment

    allow_fp16()
    start.device_problems = lambda *_: []  # a run of a user is refused fp16 on CPU
    config = load_config(list(overrides), world_size)
    world = World(rank, rank, world_size)
    prepare_environment(world, "cpu")
    folder = RunFolder(Path(derive.run_dir(config)))
    device = torch.device("cpu")
    curves = []
    with prepared(config, list(overrides), world, device, folder, folder.read_config()) as ready:
        topology = Topology.from_config(config.parallel, rank, world_size)
        with distributed_session(world, topology, device, ready.rendezvous) as session:
            training = Training(ready, session)
            try:
                training.resume()
                training.run()
                for step in steps:
                    curves.append(compared(folder.path))
                    training.resume(step_folder(folder.checkpoints, step))
                    if trains_on:
                        assert len(compared(folder.path)) == step or rank
                        training.run()
            finally:
                training.close()
            training.release()
            session.barrier()
    return [*curves, compared(folder.path)]


def final_state(run: Path) -> dict[str, Any]:
    """Every tensor of the newest checkpoint, with all that its manifest says of the position."""
    path = committed(run / "checkpoints")[0]
    manifest = read_manifest(path)
    kinds = {slot for slots in manifest.slots.values() for slot in slots}
    tensors = {kind: load_full_tensors(path, kind) for kind in kinds}
    return {"tensors": tensors, "numbers": (manifest.progress, manifest.optimizer)}


def same(one: Any, other: Any) -> bool:
    return one["numbers"] == other["numbers"] and all(
        tensor.equal(other["tensors"][kind][name])
        for kind, named in one["tensors"].items()
        for name, tensor in named.items()
    )


@pytest.mark.parametrize(
    "precision, world_size, layout",
    [
        ("fp32", 1, ()),
        ("bf16", 2, ()),
        ("fp16", 1, ()),
        ("fp32", 4, ("parallel.tp=2", "parallel.pp=2")),
    ],
)
def test_a_run_set_back_twice_repeats_its_curve_and_ends_in_the_same_state(
    tmp_path: Path, precision: str, world_size: int, layout: tuple[str, ...]
):
    run = tmp_path / "run"
    overrides = command(tmp_path, f"precision={precision}", *layout, *SAVES)
    steps = [STEP, STEP + 2]
    words = (*overrides, f"run.dir={run}")
    first, second, third = run_distributed(set_back, world_size, words, steps, True)[0]
    assert len(first) == LAST and first == second == third
    assert resumed_at(run) == [SAMPLES, SAMPLES + 16]
    assert History.read(run).continues_after == {1: 0, 2: STEP, 3: STEP + 2}
    assert [read_manifest(path).generation for path in committed(run / "checkpoints")] == [
        *(3, 3, 3, 2, 1, 1),
    ]
    if precision != "fp16":  # which only this process was let use here
        whole = tmp_path / "whole"
        assert run_attempt(world_size, (*overrides, f"run.dir={whole}")) == [0] * world_size
        assert compared(whole) == first
        assert same(final_state(run), final_state(whole))


def test_a_checkpoint_of_another_layout_is_gone_back_to(tmp_path: Path):
    run = tmp_path / "run"
    words = (*command(tmp_path, *SAVES), f"run.dir={run}")
    stopped = (*words, "parallel.tp=2", f"run.stop_after_samples={SAMPLES}")
    assert run_attempt(2, stopped) == [75, 75]
    first, second = run_distributed(set_back, 1, words, [STEP], True)[0]
    assert len(first) == LAST and first == second
    assert resumed_at(run) == [SAMPLES, SAMPLES]


def test_a_process_that_ends_after_it_was_set_back_has_left_what_it_saved_beyond(tmp_path: Path):
    run, twin = tmp_path / "run", tmp_path / "twin"
    words = command(tmp_path, *SAVES)
    first, _ = run_distributed(set_back, 1, (*words, f"run.dir={run}"), [STEP], False)[0]
    assert len(compared(run)) == STEP
    assert json.loads((run / "status.json").read_text())["state"] == "running"
    shutil.copytree(run, twin)
    assert run_attempt(1, (*words, f"run.dir={run}")) == [0]
    assert resumed_at(run) == [SAMPLES, SAMPLES] and compared(run) == first
