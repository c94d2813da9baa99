"""The folder of checkpoints: what counts, what is passed over, what is cleaned away."""

import json
from pathlib import Path

import pytest

from configs.errors import CheckpointError
from configs.run_checkpoints import committed, step_folder, step_of, unfinished
from glm.checkpoint.folder import candidates, newest_good, remove, strays, write_hint
from glm.checkpoint.manifest import DamagedCheckpointError
from glm.checkpoint.reader import read_manifest, verify
from tests.helpers.checkpoints import forge, save, with_checksum, write_files


def test_folders_are_named_after_their_step() -> None:
    assert step_folder(Path("c"), 200).name == "step_00000200"


def test_the_newest_comes_first_also_beyond_eight_digits(tmp_path: Path) -> None:
    for step in (5, 123_456_789, 40):
        save(tmp_path, step, seed=step)
    (tmp_path / "step_elsewhere").mkdir()
    (tmp_path / "latest").write_text("step_00000005\n")
    assert [f.name for f in committed(tmp_path)] == [
        "step_123456789",
        "step_00000040",
        "step_00000005",
    ]


def test_no_folder_is_no_checkpoint(tmp_path: Path) -> None:
    assert committed(tmp_path / "absent") == []
    assert newest_good([tmp_path / "absent"], pytest.fail) is None


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(tmp_path: Path) -> None:
    good, bad = save(tmp_path, 1, seed=1), save(tmp_path, 2, seed=2)
    file = next(bad.glob("*.safetensors"))
    file.write_bytes(b"")
    reports: list[str] = []
    assert newest_good([tmp_path], reports.append) == good
    assert len(reports) == 1
    assert file.name in reports[0]


def test_an_unfinished_checkpoint_is_named_and_passed_over(tmp_path: Path) -> None:
    good = save(tmp_path, 2, seed=1)
    write_files(tmp_path, 1, seed=1, attempt="a")
    write_files(tmp_path, 3, seed=1, attempt="a")
    reports: list[str] = []
    assert newest_good([tmp_path], reports.append) == good
    assert [report.split(" ")[0] for report in reports] == [str(tmp_path / "step_00000003")]
    assert len(unfinished(tmp_path)) == 2


def test_if_all_are_damaged_the_run_does_not_silently_start_anew(tmp_path: Path) -> None:
    for step in (1, 2):
        next(save(tmp_path, step, seed=step).glob("*.safetensors")).unlink()
    with pytest.raises(CheckpointError, match=r"step_00000002.*step_00000001.*run\.name=NAME") as e:
        newest_good([tmp_path], lambda _: None)
    assert not isinstance(e.value, DamagedCheckpointError)


def test_a_checkpoint_of_a_newer_program_is_not_passed_over(tmp_path: Path) -> None:
    save(tmp_path, 1, seed=1)
    path = save(tmp_path, 2, seed=2) / "manifest.json"
    body = {**json.loads(path.read_text()), "format_version": 3}
    path.write_text(with_checksum(body))
    with pytest.raises(CheckpointError, match="format version 3"):
        newest_good([tmp_path], lambda _: None)


def test_strays_go_and_what_belongs_stays(tmp_path: Path) -> None:
    write_files(tmp_path, 1, seed=3, attempt="dead")
    folder = save(tmp_path, 1, seed=1)
    for path in strays(folder, read_manifest(folder).files):
        path.unlink()
    verify(folder)
    assert len(list(folder.iterdir())) == 4


def test_what_is_removed_is_gone(tmp_path: Path) -> None:
    remove(save(tmp_path, 1, seed=1))
    remove(tmp_path / "absent")
    assert list(tmp_path.iterdir()) == []


def test_the_hint_names_the_newest(tmp_path: Path) -> None:
    write_hint(save(tmp_path, 12, seed=1))
    assert (tmp_path / "latest").read_text() == "step_00000012\n"


def test_a_later_attempt_counts_for_more_than_a_later_step(tmp_path: Path) -> None:
    # The second attempt went on from step 2; what the first one, cut off, still wrote is no history.
    for step, generation in ((1, 1), (2, 1), (3, 2), (9, 1)):
        forge(save(tmp_path, step, seed=step), generation=generation)
    found = candidates([tmp_path])
    assert [step_of(folder) for folder in found] == [3, 9, 2, 1]
    assert newest_good([tmp_path], pytest.fail) == step_folder(tmp_path, 3)


def test_a_damaged_manifest_is_tried_in_its_place_and_named(tmp_path: Path) -> None:
    good = forge(save(tmp_path, 2, seed=2), generation=4)
    (save(tmp_path, 3, seed=3) / "manifest.json").write_text("{}")
    (save(tmp_path, 1, seed=1) / "manifest.json").write_text("{}")
    reports: list[str] = []
    assert newest_good([tmp_path], reports.append) == good
    assert len(reports) == 1 and "step_00000003" in reports[0]


def test_the_newest_of_two_places_is_taken_and_of_equals_the_first(tmp_path: Path) -> None:
    own, copies = tmp_path / "own", tmp_path / "copies"
    for step in (1, 3):
        save(own, step, seed=step)
    for step in (3, 4):
        save(copies, step, seed=step)
    places = [own, copies, tmp_path / "absent"]
    assert newest_good(places, pytest.fail) == step_folder(copies, 4)
    next(step_folder(copies, 4).glob("*.safetensors")).unlink()
    assert newest_good(places, lambda _: None) == step_folder(own, 3)
    next(step_folder(own, 3).glob("*.safetensors")).unlink()
    assert newest_good(places, lambda _: None) == step_folder(copies, 3)
