"""Which checkpoint a start takes among its own, another run's and none; one rank, checkpoints made by hand."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from configs.errors import ConfigError, RunFolderError
from configs.load import load_config, to_stored_yaml
from tests.helpers.checkpoints import forge, save
from tests.helpers.distributed import run_distributed

CONFIG = load_config(["device=cpu", "precision=fp32"])
OTHER = "f" * 16


def choose_in(rank: int, world_size: int, run: Path, cases: list[str]) -> list[Any]:
    """What a start in `run` finds with each `checkpoint.resume`: path or message, and what it said."""
    import torch.distributed as dist

    from train import choice, identity
    from train.run_folder import RunFolder
    from train.topology import Topology

    dist.init_process_group("gloo")
    session: Any = SimpleNamespace(
        topology=Topology(1, 1, world_size, rank), control_group=dist.group.WORLD
    )
    found = []
    for resume in cases:
        said: list[str] = []
        trackers: Any = SimpleNamespace(log=said.append)
        config = load_config(["device=cpu", "precision=fp32", f"checkpoint.resume={resume}"])
        known = identity.settle(run)
        try:
            chosen = choice.choose_checkpoint(
                RunFolder(run), config, None, session, trackers, known
            )
            if chosen is None:
                choice.begin_at_0(RunFolder(run), known)
            found.append((None if chosen is None else str(chosen[0]), said))
        except RunFolderError as error:
            found.append((error, said))
    return found


def chosen_in(run: Path, *cases: str) -> list[tuple[Any, list[str]]]:
    return run_distributed(choose_in, 1, run, list(cases))[0]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of three steps that has saved at 2 and 3; another run has as many lines."""
    from train import identity

    for name in ("run", "other"):
        folder = tmp_path / name
        folder.mkdir()
        lines = [{"step": n, "samples_seen": 8 * n, "tokens_seen": 64 * n} for n in (1, 2, 3)]
        (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        run_id = identity.settle(folder).run_id
        for step in (2, 3):
            checkpoint_of(folder, step, run_id)
        identity.record_checkpoint(folder, run_id)
    return tmp_path / "run"


def checkpoint_of(folder: Path, step: int, run_id: str) -> Path:
    made = save(folder / "checkpoints", step, seed=step)
    return forge(made, extra={"run_id": run_id}, config=to_stored_yaml(CONFIG))


def test_a_checkpoint_of_another_run_is_passed_over_with_a_word_and_taken_if_it_is_named(
    run: Path,
) -> None:
    foreign = checkpoint_of(run, 3, OTHER)
    auto, named, folder = chosen_in(run, "auto", str(foreign), str(run.parent / "other"))
    assert auto[0] == str(run / "checkpoints" / "step_00000002")
    assert f"{foreign} belongs to another run ({OTHER}): it is skipped" in auto[1][0]
    assert named[0] == str(foreign) and "as checkpoint.resume asks" in named[1][0]
    # Of another run's folder the newest is taken, as generate and evaluate do.
    assert folder[0] == str(run.parent / "other" / "checkpoints" / "step_00000003")


def test_only_checkpoints_of_another_run_are_refused_and_left(run: Path) -> None:
    for step in (2, 3):
        checkpoint_of(run, step, OTHER)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    ((error, _),) = chosen_in(run, "auto")
    assert "only checkpoints of another run" in str(error)
    assert "checkpoint.resume=" in str(error) and "run.name=NAME" in str(error)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_run_that_has_lost_its_checkpoints_begins_again_only_if_it_is_asked_to(run: Path) -> None:
    from train import identity

    own = identity.settle(run)
    lines = (run / "metrics.jsonl").read_text()
    (run / "checkpoints").rename(run.parent / "lost")
    (run / "wandb").mkdir()
    (run / "wandb" / "run_id.txt").write_text("of the earlier run")
    refused, never, auto = chosen_in(run, "auto", "never", "auto")
    assert "its checkpoints are gone" in str(refused[0])
    assert "checkpoint.resume=never" in str(refused[0]) and "run.name=NAME" in str(refused[0])
    assert never[0] is None and auto[0] is None
    assert (run / "rolled_back" / "metrics_1.jsonl").read_text() == lines
    assert (run / "rolled_back" / "wandb_1" / "run_id.txt").exists()
    assert not (run / "wandb").exists()
    again = identity.settle(run)
    assert again.run_id != own.run_id and not again.has_checkpoint
    # What it has lost is another run's from now on.
    (run.parent / "lost").rename(run / "checkpoints")
    ((error, _),) = chosen_in(run, "auto")
    assert "only checkpoints of another run" in str(error)


def test_a_run_that_was_killed_before_its_first_checkpoint_simply_starts_again(
    tmp_path: Path,
) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    assert chosen_in(tmp_path, "auto") == [(None, [])]
    assert (tmp_path / "metrics.jsonl").exists()


def test_checkpoints_of_another_model_are_refused_though_config_yaml_is_lost(run: Path) -> None:
    for step in (2, 3):
        path = run / "checkpoints" / f"step_{step:08d}"
        config = to_stored_yaml(load_config(["model.num_heads=2", "model.rope_2d=true"]))
        forge(path, config=config)
    with pytest.raises(AssertionError, match="another model: model.num_heads is 2 there"):
        chosen_in(run, "auto")


def alike(rank: int, world_size: int, numbers: list[str]) -> str:
    """What a rank says that has resolved its own precision."""
    import torch
    import torch.distributed as dist

    from train.choice import agree_on_numbers
    from train.topology import Topology

    dist.init_process_group("gloo")
    session: Any = SimpleNamespace(
        topology=Topology(1, 1, world_size, rank), control_group=dist.group.WORLD
    )
    config = load_config(["device=cpu", f"precision={numbers[rank]}"])
    try:
        agree_on_numbers(config, torch.device("cpu"), session)
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("numbers, differs", [(["bf16", "bf16"], False), (["bf16", "fp32"], True)])
def test_ranks_that_resolve_auto_otherwise_are_refused_by_name(
    numbers: list[str], differs: bool
) -> None:
    (one, other) = run_distributed(alike, 2, numbers)
    assert one == other
    assert bool(one) == differs
    if differs:
        assert "rank 1 on " in one and "precision=fp32. Type" in one and os.uname().nodename in one
