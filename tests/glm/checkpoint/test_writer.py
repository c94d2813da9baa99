"""Writing and committing: at every moment a reader finds the old state or the new one."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from configs.run_checkpoints import committed, step_of
from glm.checkpoint import writer
from glm.checkpoint.boxes import Box
from glm.checkpoint.folder import newest_good
from glm.checkpoint.manifest import DamagedCheckpointError
from glm.checkpoint.reader import load_full_tensors, read_manifest, verify
from glm.checkpoint.writer import Piece, commit, write_rank_file
from tests.helpers.checkpoints import pieces_of, save, small_manifest, tensors, write_files


class Killed(BaseException):
    """Stands for kill -9: nothing may catch it."""


def test_the_file_is_an_ordinary_safetensors_file(tmp_path: Path) -> None:
    values = torch.arange(6, dtype=torch.float32)
    low = torch.tensor([1.5, -2.0, 3.0], dtype=torch.bfloat16)
    pieces = [
        Piece("final_norm.weight", "parameter", Box((2,), (3,)), low),
        Piece("layers.0.x", "master", Box((1, 0), (2, 3)), values),
    ]
    file, fragments = write_rank_file(tmp_path, "rank00000-a.safetensors", pieces)
    stored = load_file(tmp_path / "rank00000-a.safetensors")
    assert stored.keys() == {"master/layers.0.x@1,0", "parameter/final_norm.weight@2"}
    assert torch.equal(stored["master/layers.0.x@1,0"], values.reshape(2, 3))
    assert torch.equal(stored["parameter/final_norm.weight@2"], low)
    assert file.num_bytes == (tmp_path / "rank00000-a.safetensors").stat().st_size
    assert file.header_bytes % 8 == 0
    assert [part.kind for part in fragments] == ["master", "parameter"]  # wide numbers first


def test_a_file_without_boxes_is_valid(tmp_path: Path) -> None:
    # A rank whose partition is padding owns nothing.
    file, fragments = write_rank_file(tmp_path, "rank00000-a.safetensors", [])
    assert fragments == []
    assert load_file(tmp_path / "rank00000-a.safetensors") == {}
    assert file.num_bytes == file.header_bytes


def test_what_does_not_cover_every_tensor_is_not_committed(tmp_path: Path) -> None:
    files, fragments = write_files(tmp_path, 5, seed=1, attempt="a")
    folder = tmp_path / "step_00000005"
    with pytest.raises(DamagedCheckpointError, match="exactly once"):
        commit(folder, small_manifest(5, files, fragments[:-1]))
    assert committed(tmp_path) == []


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writer.os, call, refuse)
    with pytest.raises(OSError, match="No space left"):
        write_rank_file(tmp_path, "rank00000-a.safetensors", pieces_of(0, seed=1))
    assert list(tmp_path.iterdir()) == []


def test_a_commit_that_the_disk_refuses_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    former, left = save(tmp_path, 1, seed=1), save(tmp_path, 4, seed=4)
    files, fragments = write_files(tmp_path, 2, seed=2, attempt="b")
    replace = os.replace

    def refuse(source: Path, target: Path) -> None:
        if source.name.endswith("manifest.json.part"):
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(writer.os, "replace", refuse)
    with pytest.raises(OSError, match="No space left"):
        commit(tmp_path / "step_00000002", small_manifest(2, files, fragments), [left])
    assert committed(tmp_path) == [left, former]
    assert list(tmp_path.glob("*/*.part")) == []


def test_two_attempts_that_commit_a_step_at_once_do_not_share_a_file(tmp_path: Path) -> None:
    # The former one comes back at the worst moment: the later one has written its manifest, and not yet renamed it.
    class OvertakenError(Exception):
        pass

    def overtaken() -> None:
        raise OvertakenError

    folder = tmp_path / "step_00000002"
    former = small_manifest(2, *write_files(tmp_path, 2, seed=1, attempt="former"))
    later = small_manifest(2, *write_files(tmp_path, 2, seed=2, attempt="later"))
    came_back = []

    def come_back() -> None:
        with pytest.raises(OvertakenError):
            commit(folder, former, fence=overtaken)
        came_back.append(True)

    commit(folder, later, fence=come_back)
    assert came_back and read_manifest(folder).files == later.files
    verify(folder)
    assert list(folder.glob("*.part")) == []


def test_a_commit_that_happened_is_not_reported_as_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The ranks would delete the files of a committed checkpoint.
    files, fragments = write_files(tmp_path, 2, seed=2, attempt="b")
    folder = tmp_path / "step_00000002"
    fsync = os.fsync

    def refuse(descriptor: int) -> None:
        if (folder / "manifest.json").exists():
            raise OSError(errno.EIO, "Input/output error")
        fsync(descriptor)

    monkeypatch.setattr(writer.os, "fsync", refuse)
    commit(folder, small_manifest(2, files, fragments))
    verify(folder)


def killing(monkeypatch: pytest.MonkeyPatch, deadly_call: int) -> Callable[[], int]:
    """Die before the n-th fsync or rename; returns how many calls were made."""
    calls = [0]
    for name in ("fsync", "replace"):
        original = getattr(os, name)

        def step(*arguments: object, original: Callable = original) -> object:
            calls[0] += 1
            if calls[0] == deadly_call:
                raise Killed
            return original(*arguments)

        monkeypatch.setattr(writer.os, name, step)
    return lambda: calls[0]


def num_calls(tmp_path: Path, again: Callable[[Path], object]) -> int:
    with pytest.MonkeyPatch.context() as patch:
        count = killing(patch, -1)
        again(tmp_path)
        return count()


def test_killed_anywhere_the_earlier_checkpoint_or_the_new_one_is_found(tmp_path: Path) -> None:
    def first(checkpoints: Path) -> None:
        save(checkpoints, 1, seed=1)

    def second(checkpoints: Path) -> None:
        save(checkpoints, 2, seed=2, attempt="bbbbbbbb")

    first(tmp_path / "counted")
    total = num_calls(tmp_path / "counted", second)
    assert total >= 3 * 3 + 5  # three files of write, rename, sync; then the commit
    found = []
    for deadly in range(1, total + 1):
        checkpoints = tmp_path / str(deadly)
        first(checkpoints)
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            killing(patch, deadly)
            second(checkpoints)
        good = newest_good([checkpoints], lambda _: None)
        assert good is not None
        found.append(step_of(good))
        expected = tensors(seed=found[-1])
        for name, whole in load_full_tensors(good, "master").items():
            assert torch.equal(whole, expected[name, "master"])
        second(checkpoints)  # and the next attempt is not disturbed by what lies there
        verify(checkpoints / "step_00000002")
    # The rename of the manifest is the commit; only the last sync comes after it.
    assert found == [1] * (total - 1) + [2]


def test_killed_while_saving_a_step_again_one_of_both_versions_is_whole(tmp_path: Path) -> None:
    def again(checkpoints: Path) -> None:
        save(checkpoints, 1, seed=2, attempt="bbbbbbbb")

    save(tmp_path / "counted", 1, seed=1)
    total = num_calls(tmp_path / "counted", again)
    versions = []
    for deadly in range(1, total + 1):
        checkpoints = tmp_path / str(deadly)
        save(checkpoints, 1, seed=1)
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            killing(patch, deadly)
            again(checkpoints)
        folder = newest_good([checkpoints], lambda _: None)
        assert folder is not None
        stored = load_full_tensors(folder, "exp_avg")["final_norm.weight"]
        matches = [
            seed
            for seed in (1, 2)
            if torch.equal(stored, tensors(seed)["final_norm.weight", "exp_avg"])
        ]
        versions += matches
        assert len(matches) == 1
    assert versions == [1] * (total - 1) + [2]


def test_a_history_that_was_left_never_comes_back(tmp_path: Path) -> None:
    # Set back from step 4 to step 1, the run saves step 2; steps 3 and 4 lead elsewhere.
    def prepare(checkpoints: Path) -> tuple[Path, ...]:
        save(checkpoints, 1, seed=1)
        return save(checkpoints, 4, seed=4), save(checkpoints, 3, seed=3)

    left = prepare(tmp_path / "counted")
    total = num_calls(
        tmp_path / "counted", lambda path: save(path, 2, seed=2, attempt="b", superseded=left)
    )
    for deadly in range(1, total + 1):
        checkpoints = tmp_path / str(deadly)
        left = prepare(checkpoints)
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            killing(patch, deadly)
            save(checkpoints, 2, seed=2, attempt="b", superseded=left)
        steps = [step_of(folder) for folder in committed(checkpoints)]
        assert 2 not in steps or steps == [2, 1]
    assert [step_of(folder) for folder in committed(tmp_path / "counted")] == [2, 1]


def test_files_of_a_killed_attempt_are_not_merged(tmp_path: Path) -> None:
    write_files(tmp_path, 6, seed=9, attempt="dead0000")
    folder = save(tmp_path, 6, seed=1, attempt="0000beef")
    assert all("beef" in name for name in verify(folder).files)
    expected = tensors(seed=1)
    for name, whole in load_full_tensors(folder, "master").items():
        assert torch.equal(whole, expected[name, "master"])
