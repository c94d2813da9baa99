"""A place as the committing rank looks after it: what is committed stays, and a later attempt's work is not touched."""

import errno
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from configs.errors import DistributedError
from configs.load import load_config
from configs.run_checkpoints import step_folder, unfinished
from glm.checkpoint.folder import newest_good
from tests.helpers.checkpoints import (
    KINDS,
    NUM_RANKS,
    SHAPES,
    pieces_of,
    small_manifest,
    write_files,
)
from tests.helpers.savers import check_content

OVERTAKEN = DistributedError("a later attempt of this run has begun")
STALE = OSError(errno.ESTALE, "Stale file handle")


def passing(calls: int, error: Exception) -> Callable[[], None]:
    """A fence that lets the first calls pass."""
    left = iter(range(calls))

    def fence() -> None:
        if next(left, None) is None:
            raise error

    return fence


def everything_in(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def save_alone(checkpoints: Path, step: int, fence: Callable[[], None]) -> Any:
    """One rank saves all that there is; the attempt, which is over."""
    from train.checkpoint.store import CheckpointStore

    return save_into(CheckpointStore(checkpoints, 1, None, fence), step)


def save_into(place: Any, step: int) -> Any:
    """The same for any place."""
    from train.checkpoint.save_attempt import CommitPlan, RankPart, SaveAttempt
    from train.checkpoint.store import NO_PINS

    name = "rank00000-abcd0123.safetensors"
    pieces = [piece for rank in range(NUM_RANKS) for piece in pieces_of(rank, seed=step)]
    shapes = {tensor: list(shape) for tensor, shape in SHAPES.items()}
    attempt = SaveAttempt(
        place,
        step_folder(place.checkpoints, step),
        RankPart(name, pieces, shapes, {tensor: list(KINDS) for tensor in SHAPES}, "rank 0"),
        CommitPlan(small_manifest(step, {}, []), [name], NO_PINS),
    )
    attempt.run()
    return attempt


@pytest.mark.parametrize("error, is_fatal", [(OVERTAKEN, True), (STALE, False)])
def test_what_an_attempt_has_committed_before_it_is_overtaken_stays(
    tmp_path: Path, error: Exception, is_fatal: bool
) -> None:
    save_alone(tmp_path, 1, passing(9, error))
    attempt = save_alone(tmp_path, 2, passing(1, error))  # the commit's question is answered
    assert attempt.finished.is_set() and attempt.error is None
    assert attempt.fatal is (error if is_fatal else None)
    attempt.give_up()  # whatever the other ranks may say
    assert newest_good([tmp_path], pytest.fail) == step_folder(tmp_path, 2)
    check_content(step_folder(tmp_path, 2), seed=2)
    # An attempt that cannot ask the fence, or is stopped by it, deletes nothing.
    check_content(step_folder(tmp_path, 1), seed=1)
    assert (tmp_path / "latest").read_text() == "step_00000001\n"


def test_an_attempt_that_is_held_up_while_it_cleans_deletes_nothing_of_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from train.checkpoint import store as place

    save_alone(tmp_path, 1, passing(9, OVERTAKEN))
    overtaken = threading.Event()
    remove = place.remove

    def be_held_up(folder: Path, mark: str) -> None:
        """The next attempt begins while step 1 is being deleted."""
        remove(folder, mark)
        if folder.name == "step_00000001":
            overtaken.set()
            write_files(tmp_path, 3, seed=3, attempt="beef0000")
            write_files(tmp_path, 2, seed=2, attempt="beef0000")

    def fence() -> None:
        if overtaken.is_set():
            raise OVERTAKEN

    monkeypatch.setattr(place, "remove", be_held_up)
    assert save_alone(tmp_path, 2, fence).fatal is OVERTAKEN
    assert overtaken.is_set()
    for step in (2, 3):
        assert len(list(step_folder(tmp_path, step).glob("*-beef0000.safetensors"))) == NUM_RANKS
    check_content(step_folder(tmp_path, 2), seed=2)


def test_the_question_is_asked_before_each_folder_is_deleted(tmp_path: Path) -> None:
    from train.checkpoint.store import CheckpointStore

    for step in (1, 2, 3):
        write_files(tmp_path, step, seed=step, attempt="dead0000")
    CheckpointStore(tmp_path, 1, None, passing(1, STALE)).make_room(step_folder(tmp_path, 9))
    assert len(unfinished(tmp_path)) == 2
    with pytest.raises(DistributedError, match="later attempt"):
        CheckpointStore(tmp_path, 1, None, passing(1, OVERTAKEN)).make_room(
            step_folder(tmp_path, 9)
        )
    assert len(unfinished(tmp_path)) == 1


def test_the_second_copy_asks_the_same_question_before_anything_of_it_changes(
    tmp_path: Path,
) -> None:
    from train.checkpoint import places_of

    run = tmp_path / "run"
    run.mkdir()
    config = load_config(["run.name=r", f"checkpoint.copy_to={tmp_path / 'elsewhere'}"])
    (run / "config.yaml").write_text("of the later attempt")
    _, copy = places_of(config, run / "checkpoints")
    assert save_into(copy, 1).error is None
    before = everything_in(tmp_path / "elsewhere")
    assert before["r/config.yaml"] == b"of the later attempt"
    (run / "config.yaml").write_text("of the previous attempt")
    _, copy = places_of(config, run / "checkpoints", passing(0, OVERTAKEN))
    assert save_into(copy, 2).fatal is OVERTAKEN
    assert everything_in(tmp_path / "elsewhere") == before


def test_what_a_killed_copy_left_is_cleaned_away(tmp_path: Path) -> None:
    from train.checkpoint import places_of

    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").write_text("{}")
    config = load_config(["run.name=r", f"checkpoint.copy_to={tmp_path / 'elsewhere'}"])

    class KilledError(BaseException):
        """Nothing may catch it."""

    def die(*_: Any) -> None:
        raise KilledError

    _, copy = places_of(config, run / "checkpoints")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KilledError):
        patch.setattr("train.checkpoint.second_copy.sync_to_disk", die)
        save_into(copy, 1)
    assert any(name.endswith("metrics.jsonl.part") for name in everything_in(tmp_path))
    assert save_into(copy, 1).error is None
    assert not any(name.endswith(".part") for name in everything_in(tmp_path))


def test_a_checkpoint_is_not_written_through_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    step_folder(tmp_path, 1).symlink_to(outside)
    assert "is a symbolic link" in save_alone(tmp_path, 1, passing(9, OVERTAKEN)).error
    assert list(outside.iterdir()) == []


ONE, OTHER = "1" * 16, "2" * 16


def save_of(place: Any, step: int, run_id: str) -> Any:
    """Save as a run with an identity does; the attempt, which is over."""
    from train.checkpoint.save_attempt import CommitPlan, RankPart, SaveAttempt
    from train.checkpoint.store import NO_PINS

    folder = step_folder(place.checkpoints, step)
    refusal = place.make_room(folder)
    name = f"rank00000-{run_id[:8]}-abcd{step:04d}.safetensors"
    pieces = [piece for rank in range(NUM_RANKS) for piece in pieces_of(rank, seed=step)]
    manifest = replace(small_manifest(step, {}, []), extra={"run_id": run_id})
    shapes = {tensor: list(shape) for tensor, shape in SHAPES.items()}
    part = RankPart(name, pieces, shapes, {tensor: list(KINDS) for tensor in SHAPES}, "rank 0")
    attempt = SaveAttempt(place, folder, part, CommitPlan(manifest, [name], NO_PINS), refusal)
    attempt.run()
    return attempt


def test_retention_deletes_only_what_this_run_has_saved(tmp_path: Path) -> None:
    from train.checkpoint.store import CheckpointStore

    one, other = (CheckpointStore(tmp_path, 1, None, run_id=run) for run in (ONE, OTHER))
    assert save_of(other, 1, OTHER).error is None
    write_files(tmp_path, 2, seed=2, attempt=f"{OTHER[:8]}-dead0000")  # another run's, unfinished
    users = [tmp_path / name for name in ("step_00000003", "step_00000004_backup", "my_notes")]
    for folder in users:
        folder.mkdir()
        (folder / "rank.txt").write_text("mine")
    before = everything_in(tmp_path)
    assert save_of(one, 5, ONE).error is None
    (step_folder(tmp_path, 5) / "notes.txt").write_text("mine too")
    write_files(tmp_path, 6, seed=6, attempt=f"{ONE[:8]}-dead0000")  # killed
    before["step_00000005/notes.txt"] = b"mine too"
    assert save_of(one, 7, ONE).error is None
    after = everything_in(tmp_path)
    del before["latest"], after["latest"]
    assert before.items() <= after.items()
    assert {name.partition("/")[0] for name in after.keys() - before.keys()} == {"step_00000007"}


def test_a_checkpoint_of_another_run_is_not_replaced_by_one_of_the_same_step(
    tmp_path: Path,
) -> None:
    from train.checkpoint.store import CheckpointStore

    save_of(CheckpointStore(tmp_path, 1, None, run_id=OTHER), 4, OTHER)
    before = everything_in(tmp_path)
    attempt = save_of(CheckpointStore(tmp_path, 1, None, run_id=ONE), 4, ONE)
    assert "holds a checkpoint of another run. Move it elsewhere" in attempt.error
    assert everything_in(tmp_path) == before
    # Nor is one of a later step taken for a history that this run has left.
    assert save_of(CheckpointStore(tmp_path, 1, None, run_id=ONE), 3, ONE).error is None
    assert before.items() - {"latest": before["latest"]}.items() <= everything_in(tmp_path).items()


def test_a_copy_repairs_a_tokenizer_that_a_killed_one_left_in_parts(tmp_path: Path) -> None:
    from train.checkpoint.second_copy import carry

    run, copy, folder = (tmp_path / name for name in ("run", "copy", "step"))
    for path in (run / "tokenizer" / "model.json", run / "tokenizer" / "spec.txt"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"whole {path.name}")
    (copy / "tokenizer").mkdir(parents=True)
    (copy / "tokenizer" / "model.json").write_text("wh")
    folder.mkdir()
    carry(run, copy, folder)
    assert everything_in(copy) == everything_in(run) and not list(folder.iterdir())
