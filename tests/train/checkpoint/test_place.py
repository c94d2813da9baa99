"""A place as the committing rank looks after it: what is committed stays, and a later life's work is not touched."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from configs.errors import DistributedError
from glm.checkpoint.folder import newest_good, step_folder
from tests.helpers.checkpoints import NUM_RANKS, SHAPES, pieces_of, small_manifest
from tests.helpers.savers import check_content

OVERTAKEN = DistributedError("a later life of this run has begun")
STALE = OSError(errno.ESTALE, "Stale file handle")


def passing(calls: int, error: Exception) -> Callable[[], None]:
    """A fence that lets the first calls pass."""
    left = iter(range(calls))

    def fence() -> None:
        if next(left, None) is None:
            raise error

    return fence


def save_alone(checkpoints: Path, step: int, fence: Callable[[], None]) -> Any:
    """One rank saves all that there is; the attempt, which is over."""
    from train.checkpoint.attempt import Attempt, Duty, Part
    from train.checkpoint.place import Place

    name = "rank00000-abcd0123.safetensors"
    pieces = [piece for rank in range(NUM_RANKS) for piece in pieces_of(rank, seed=step)]
    shapes = {tensor: list(shape) for tensor, shape in SHAPES.items()}
    attempt = Attempt(
        Place(checkpoints, 1, None, fence),
        step_folder(checkpoints, step),
        Part(name, pieces, shapes, "rank 0"),
        Duty(small_manifest(step, {}, []), [name], None),
    )
    attempt.run()
    return attempt


@pytest.mark.parametrize("error, is_fatal", [(OVERTAKEN, True), (STALE, False)])
def test_what_a_life_has_committed_before_it_is_overtaken_stays(
    tmp_path: Path, error: Exception, is_fatal: bool
) -> None:
    save_alone(tmp_path, 1, passing(9, error))
    attempt = save_alone(tmp_path, 2, passing(1, error))  # the commit's question is answered
    assert attempt.finished.is_set() and attempt.error is None
    assert attempt.fatal is (error if is_fatal else None)
    attempt.give_up()  # whatever the other ranks may say
    assert newest_good([tmp_path], pytest.fail) == step_folder(tmp_path, 2)
    check_content(step_folder(tmp_path, 2), seed=2)
    # Who cannot ask, or hears no, deletes nothing.
    check_content(step_folder(tmp_path, 1), seed=1)
    assert (tmp_path / "latest").read_text() == "step_00000001\n"
