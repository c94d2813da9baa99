"""Reading: every kind of damage is found and named, and any box can be had."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.errors import CheckpointError
from glm.checkpoint.boxes import Box
from glm.checkpoint.folder import newest_good
from glm.checkpoint.manifest import DamagedCheckpointError
from glm.checkpoint.reader import (
    Reader,
    load_full_tensors,
    read_manifest,
    verify,
    verify_files,
)
from tests.helpers.checkpoints import SHAPES, save, tensors


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(tmp_path, 4, seed=1)


def test_whole_tensors_come_back_bit_for_bit(folder: Path) -> None:
    expected = tensors(seed=1)
    for kind in ("parameter", "master", "exp_avg", "exp_avg_sq"):
        found = load_full_tensors(folder, kind)
        assert found.keys() == SHAPES.keys()
        for name, values in found.items():
            assert values.dtype == expected[name, kind].dtype
            assert torch.equal(values, expected[name, kind])


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_box_can_be_read(folder: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(SHAPES)))
    shape = SHAPES[name]
    offset = tuple(data.draw(st.integers(0, n - 1)) for n in shape)
    sizes = tuple(data.draw(st.integers(1, n - s)) for s, n in zip(offset, shape, strict=True))
    box = Box(offset, sizes)
    found = Reader(folder, read_manifest(folder)).read(name, "exp_avg", box)
    expected = tensors(seed=1)[name, "exp_avg"][box.within(Box.whole(shape))]
    assert torch.equal(found, expected)


def test_reading_does_not_write(folder: Path) -> None:
    name = "final_norm.weight"
    Reader(folder, read_manifest(folder)).read(name, "master", Box((0,), (5,))).zero_()
    verify(folder)


def test_the_master_stands_in_for_weights_that_are_not_stored(tmp_path: Path) -> None:
    from tests.helpers import checkpoints as helper

    files, fragments = {}, []
    folder = tmp_path / "step_00000001"
    folder.mkdir()
    for rank in range(helper.NUM_RANKS):
        name = f"rank{rank}.safetensors"
        pieces = [piece for piece in helper.pieces_of(rank, 1) if piece.kind == "master"]
        files[name], parts = helper.write_rank_file(folder, name, pieces)
        fragments += parts
    manifest = helper.small_manifest(1, files, fragments)
    helper.commit(folder, replace(manifest, slots={name: ["master"] for name in manifest.tensors}))
    found = load_full_tensors(folder, "parameter")["final_norm.weight"]
    assert torch.equal(found, tensors(1)["final_norm.weight", "master"])
    with pytest.raises(CheckpointError, match="does not hold.*exp_avg"):
        load_full_tensors(folder, "exp_avg")


def test_a_tensor_that_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(DamagedCheckpointError, match=r"layers\.7\.x"):
        Reader(folder, read_manifest(folder)).read("layers.7.x", "master", Box((0,), (1,)))


def test_a_box_beyond_the_tensor_is_not_filled_with_garbage(folder: Path) -> None:
    reader = Reader(folder, read_manifest(folder))
    with pytest.raises(DamagedCheckpointError, match="does not hold all"):
        reader.read("final_norm.weight", "master", Box((3,), (4,)))


def rank_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize("bytes_left", [0, 7, -1])
def test_a_truncated_file_is_named(folder: Path, index: int, bytes_left: int) -> None:
    path = rank_files(folder)[index]
    content = path.read_bytes()
    path.write_bytes(content[:bytes_left])
    with pytest.raises(DamagedCheckpointError, match=path.name):
        verify(folder)
    with pytest.raises(DamagedCheckpointError, match=path.name):
        load_full_tensors(folder)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_missing_file_is_named(folder: Path, index: int) -> None:
    path = rank_files(folder)[index]
    path.unlink()
    with pytest.raises(DamagedCheckpointError, match=f"{path.name} is damaged: missing"):
        verify(folder)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(index=st.integers(0, 2), place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_one_flipped_bit_is_named(folder: Path, index: int, place: float, bit: int) -> None:
    path = rank_files(folder)[index]
    content = path.read_bytes()
    changed = bytearray(content)
    changed[int(place * len(content))] ^= 1 << bit
    path.write_bytes(changed)
    try:
        with pytest.raises(DamagedCheckpointError, match=path.name):
            verify(folder)
    finally:
        path.write_bytes(content)


def test_the_file_of_an_older_step_is_named(tmp_path: Path, folder: Path) -> None:
    older = save(tmp_path / "other", 3, seed=2)
    path = rank_files(folder)[1]
    path.write_bytes(rank_files(older)[1].read_bytes())
    with pytest.raises(DamagedCheckpointError, match=path.name):
        verify(folder)


def test_the_manifest_of_an_older_step_is_noticed(tmp_path: Path, folder: Path) -> None:
    older = save(tmp_path / "other", 3, seed=2)
    (folder / "manifest.json").write_bytes((older / "manifest.json").read_bytes())
    with pytest.raises(DamagedCheckpointError):
        verify(folder)


def test_only_the_damaged_share_complains(folder: Path) -> None:
    path = rank_files(folder)[1]
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    manifest = read_manifest(folder)
    names = sorted(manifest.files)
    verify_files(folder, manifest, [names[0], names[2]])
    with pytest.raises(DamagedCheckpointError, match=names[1]):
        verify_files(folder, manifest, [names[1]])


def test_damage_in_moments_does_not_keep_weights_from_being_read(folder: Path) -> None:
    manifest = read_manifest(folder)
    part = next(part for part in manifest.fragments if part.kind == "exp_avg")
    path = folder / part.file
    content = bytearray(path.read_bytes())
    content[part.begin] ^= 1
    path.write_bytes(content)
    load_full_tensors(folder, "parameter")
    with pytest.raises(DamagedCheckpointError, match=f"{part.tensor}.*exp_avg"):
        load_full_tensors(folder, "exp_avg")


def test_a_folder_in_place_of_a_file_is_damage(folder: Path) -> None:
    path = rank_files(folder)[0]
    path.unlink()
    path.mkdir()
    with pytest.raises(DamagedCheckpointError, match=path.name):
        verify(folder)


def test_a_manifest_that_is_no_text_is_damage(folder: Path) -> None:
    (folder / "manifest.json").write_bytes(b"\x80\x02]q\x00.")
    with pytest.raises(DamagedCheckpointError, match="not a complete checkpoint"):
        verify(folder)


def test_a_tensor_larger_than_any_memory_is_refused_with_its_name(folder: Path) -> None:
    # 2**47 bytes in files with holes would take no room on a disk.
    manifest = read_manifest(folder)
    part = next(part for part in manifest.fragments if part.kind == "master")
    huge = Box((0,), (2**45,))
    manifest = replace(
        manifest,
        tensors={"huge": [2**45]},
        fragments=[replace(part, tensor="huge", box=huge)],
    )
    with pytest.raises(DamagedCheckpointError, match="no memory for huge"):
        Reader(folder, manifest).read("huge", "master", huge)


def test_a_disk_error_makes_way_for_the_checkpoint_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = save(folder.parent, 5, seed=2)
    lstat = Path.lstat

    def refuse(path: Path) -> os.stat_result:
        if path.parent == newest and path.suffix == ".safetensors":
            raise OSError(errno.EIO, "Input/output error")
        return lstat(path)

    monkeypatch.setattr(Path, "lstat", refuse)
    reports: list[str] = []
    assert newest_good([folder.parent], reports.append) == folder
    assert len(reports) == 1 and "cannot be read: Input/output error" in reports[0]
    with pytest.raises(DamagedCheckpointError, match="Input/output error"):
        load_full_tensors(newest)
