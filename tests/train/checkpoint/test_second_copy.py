"""The second copy: another whole checkpoint elsewhere, with a retention and failures of its own."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from configs.run_checkpoints import step_folder
from glm.checkpoint.folder import newest_good
from tests.helpers.checkpoints import NUM_RANKS
from tests.helpers.distributed import run_distributed
from tests.helpers.savers import check_content, fake_saver, start_step, steps_in
from tests.helpers.whole_runs import command, compared, run_attempt

REFUSED = OSError(errno.ENOSPC, "No space left on device")


def save_all(rank: int, world_size: int, folder: Path, full: str) -> list[tuple[int, bool, bool]]:
    """Save three times; (step, is copy, was written) of each outcome."""
    from train.checkpoint import save_attempt as attempt

    saver = fake_saver(
        rank,
        folder / "run" / "checkpoints",
        f"checkpoint.copy_to={folder / 'elsewhere'}",
        "checkpoint.keep_last=3",
        "checkpoint.copy_keep_last=2",
    )
    write = attempt.write_rank_file
    outcomes = []
    for step in (1, 2, 3):

        def refuse(target: Path, *arguments: Any, step: int = step) -> Any:
            is_copy = "elsewhere" in str(target)
            if step == 3 and rank == 1 and full == ("copy" if is_copy else "own"):
                raise REFUSED
            return write(target, *arguments)

        attempt.write_rank_file = refuse
        start_step(saver, step)
        outcomes += saver.finish()
    dist.barrier()
    return [(o.progress.step, o.is_copy, o.error is None) for o in outcomes]


def test_each_checkpoint_is_written_twice_and_each_place_keeps_its_own_number(
    tmp_path: Path,
) -> None:
    (outcomes, *others) = run_distributed(save_all, NUM_RANKS, tmp_path, "")
    assert outcomes == [(step, copy, True) for step in (1, 2, 3) for copy in (False, True)]
    assert others == [outcomes] * (NUM_RANKS - 1)
    own, copies = tmp_path / "run" / "checkpoints", tmp_path / "elsewhere" / "r" / "checkpoints"
    assert steps_in(own) == [3, 2, 1] and steps_in(copies) == [3, 2]
    for step in (2, 3):
        check_content(step_folder(copies, step), seed=step)


@pytest.mark.parametrize("full", ["own", "copy"])
def test_one_full_disk_does_not_keep_the_other_from_its_checkpoint(
    tmp_path: Path, full: str
) -> None:
    for outcomes in run_distributed(save_all, NUM_RANKS, tmp_path, full):
        assert [written for step, _, written in outcomes if step < 3] == [True] * 4
        assert {(copy, written) for step, copy, written in outcomes if step == 3} == {
            (full == "copy", False),
            (full != "copy", True),
        }
    own, copies = tmp_path / "run" / "checkpoints", tmp_path / "elsewhere" / "r" / "checkpoints"
    assert (3 in steps_in(own), 3 in steps_in(copies)) == (full == "copy", full == "own")
    good = newest_good([own, copies], lambda _: None)
    assert good is not None and good.parent == (copies if full == "own" else own)
    check_content(good, seed=3)


def test_a_run_continues_from_its_copy_and_the_copy_is_a_run(tmp_path: Path) -> None:
    overrides = command(
        tmp_path,
        "run.name=twice",
        f"checkpoint.copy_to={tmp_path / 'elsewhere'}",
        "checkpoint.save_every_samples=16",
    )
    own = (*overrides, f"run.dir={tmp_path / 'run'}")
    assert run_attempt(1, command(tmp_path, f"run.dir={tmp_path / 'whole'}")) == [0]
    assert run_attempt(1, (*own, "run.stop_after_samples=48")) == [75]
    copy = tmp_path / "elsewhere" / "twice"
    # The run's own newest checkpoint is lost: the copy's is taken.
    shutil.rmtree(step_folder(tmp_path / "run" / "checkpoints", 6))
    lost = tmp_path / "lost"
    shutil.copytree(copy, lost)
    assert run_attempt(1, own) == [0]
    assert compared(tmp_path / "run") == compared(tmp_path / "whole")
    assert f"from {step_folder(copy / 'checkpoints', 6)}" in (tmp_path / "run/log.txt").read_text()
    # Everything but the copy is lost: it is a run folder, and continues.
    assert run_attempt(1, (*command(tmp_path), f"run.dir={lost}")) == [0]
    assert compared(lost) == compared(tmp_path / "whole")
    assert os.path.isdir(lost / "tokenizer")
